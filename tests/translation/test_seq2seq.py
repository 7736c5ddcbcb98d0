"""NLLB with a tiny random model, by transformers: what the model sees, order, layout, and what is refused."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from sdx import InputError
from sdx.config import Precision
from sdx.languages import languages
from sdx.models import residency
from sdx.run import build
from sdx.store.files import read_json, write_json
from sdx.store.store import Store
from sdx.translation.search import Search
from sdx.translation.seq2seq import Seq2Seq, Seq2SeqConfig
from sdx.translation.transformers_runtime import batches
from sdx.translation.vocabulary import TokenizerJson
from tests.kit.tiny import NLLB_CODES, tiny_nllb

pytestmark = pytest.mark.whole

EN, TH, HI = "eng_Latn", "tha_Thai", "hin_Deva"
REVISION = "0123456789abcdef" * 2 + "01234567"
CONF = Path(__file__).parents[2] / "conf" / "translator"
TEXTS = [
    "The cat is asleep on the table.",
    "# Two steps\n\n- Boil the water. Add the rice.\n- Wait for `timer.done()`.\n",
    "X",
    "A sentence that goes on for a while.",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_nllb(tmp_path_factory.mktemp("models") / "nllb")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def make(path: Path, batch_size: int = 32, precision: Precision = Precision.fp32, beams: int = 2) -> Seq2Seq:
    return Seq2Seq(None, None, str(path), batch_size, precision, beams)


def prepared(translator: Seq2Seq, cache: Path) -> Seq2Seq:
    store = Store(cache)
    translator.prepare({name: store.realise(step) for name, step in translator.needs(EN, TH).items()})
    return translator


def test_order_layout_and_determinism(model: Path, cache: Path):
    translator = prepared(make(model), cache)
    output = translator.translate(TEXTS, EN, TH)
    assert output == translator.translate(TEXTS, EN, TH)
    assert output == [translator.translate([text], EN, TH)[0] for text in TEXTS]
    assert all(text.strip() for text in output)
    assert len(set(output)) == len(output)
    assert not set(output) & set(TEXTS)
    heading, blank, first, second, end = output[1].split("\n")
    assert heading.startswith("# ")
    assert (blank, end) == ("", "")
    assert first.startswith("- ")
    assert second.startswith("- ")
    assert "`timer.done()`" in second
    assert output != translator.translate(TEXTS, EN, HI)
    residency.release()
    assert output == translator.translate(TEXTS, EN, TH)


@pytest.mark.parametrize("beams", [1, 3])
def test_batches_do_not_change_results_in_fp32(model: Path, cache: Path, beams: int):
    outputs = [prepared(make(model, size, beams=beams), cache).translate(TEXTS, EN, TH) for size in (1, 2, 32)]
    assert outputs[0] == outputs[1] == outputs[2]


def test_what_encoder_and_decoder_see(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    translator = prepared(make(model), cache)
    engine, vocabulary = translator._ready()
    assert isinstance(vocabulary, TokenizerJson)
    tokenizer = vocabulary.tokenizer
    seen: list[tuple[Any, Any, Any]] = []
    generate = engine.generate

    def spy(input_ids: Any, attention_mask: Any, generation_config: Any) -> Any:
        output = generate(input_ids=input_ids, attention_mask=attention_mask, generation_config=generation_config)
        seen.append((input_ids, attention_mask, output))
        return output

    monkeypatch.setattr(engine, "generate", spy)
    [text] = translator.translate_sentences(["Is </s> eng_Latn?"], EN, TH)
    [(ids, mask, output)] = seen
    codes = read_json(model / "config.json")
    sequence = ids[0].tolist()
    assert tokenizer.id_to_token(sequence[0]) == EN
    assert sequence.index(codes["eos_token_id"]) == len(sequence) - 1  # and none for the text's own </s>
    assert tokenizer.decode(sequence[1:-1], skip_special_tokens=False) == "Is </s> eng_Latn?"
    assert output[0, 0] == codes["decoder_start_token_id"]
    assert tokenizer.id_to_token(int(output[0, 1])) == TH
    assert TH not in text

    translator.translate_sentences(["Yes.", "Yes, it is."], EN, HI)
    ids, mask, output = seen[-1]
    assert [tokenizer.id_to_token(int(row[1])) for row in output] == [HI, HI]
    assert [row[keep == 1][-1] for row, keep in zip(ids, mask, strict=True)] == [codes["eos_token_id"]] * 2
    assert set(ids[mask == 0].tolist()) == {codes["pad_token_id"]}


def test_a_looping_model_ends(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    """Twice the source's tokens and 32, rounded up; each sentence has the room of its own length."""
    translator = prepared(make(model, beams=1), cache)
    engine, _ = translator._ready()
    generate = engine.generate
    sizes = []

    def endless(generation_config: Any, **inputs: Any) -> Any:
        generation_config.suppress_tokens = [engine.config.eos_token_id]
        output = generate(generation_config=generation_config, **inputs)
        sizes.append(list(output.shape))
        return output

    monkeypatch.setattr(engine, "generate", endless)
    translator.translate_sentences(["One.", "Two.", "One, two, three, four."], EN, TH)
    assert sizes == [[1, 1 + 128], [2, 1 + 64]]


@given(st.lists(st.integers(2, 600), max_size=60), st.integers(1, 9), st.integers(1, 2000))
def test_batches(lengths: list[int], size: int, memory: int):
    lengths.sort(reverse=True)
    search = Search(1, None)
    found = [lengths[some] for some in batches(lengths, lengths, memory, size, search)]
    assert [length for batch in found for length in batch] == lengths
    for batch in found:
        assert 0 < len(batch) <= size
        assert len(batch) == 1 or len(batch) * batch[0] <= memory
        assert len({search.room(length) for length in batch}) == 1
        assert all(2 * length + 32 <= search.room(length) < 4 * length + 64 for length in batch)


def test_old_checkpoints_load_silently(model: Path, cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """Meta's repositories: pickled weights with aliases and tables, a limit of 200 tokens, no dtype."""
    import torch

    expected = prepared(make(model), cache).translate(TEXTS[:2], EN, TH)
    old = tmp_path / "old"
    shutil.copytree(model, old, ignore=shutil.ignore_patterns("*.safetensors"))
    weights = dict(prepared(make(model), cache)._ready()[0].state_dict())
    torch.save({**weights, "model.encoder.embed_positions.weights": torch.zeros(9, 32)}, old / "pytorch_model.bin")
    config = read_json(old / "config.json")
    write_json(old / "config.json", {key: config[key] for key in config if key != "dtype"} | {"max_length": 200})
    write_json(old / "generation_config.json", read_json(old / "generation_config.json") | {"max_length": 200})
    capfd.readouterr()
    assert prepared(make(old), cache).translate(TEXTS[:2], EN, TH) == expected
    assert capfd.readouterr() == ("", "")


def test_languages_without_a_code_are_refused(model: Path):
    local = make(model)
    assert local.supports(EN, TH)
    assert local.why_unsupported(EN, TH) is None
    assert not local.supports(EN, "deu_Latn")
    with pytest.raises(InputError, match=r"translator=nllb cannot translate German \(deu_Latn\): translator\.path="):
        local.translate(["One."], EN, "deu_Latn")

    remote = Seq2Seq("someone/model", REVISION, None, 1, Precision.fp32, 1)
    known = [entry.flores for entry in languages() if remote.supports(EN, entry.flores)]
    assert len(known) == 202
    assert not {"arb_Latn", "min_Arab"} & set(known)
    assert "NLLB-200 has no code for it" in (remote.why_unsupported("arb_Latn", EN) or "")


def test_a_fine_tuned_model_that_lost_languages(tmp_path: Path, cache: Path):
    """On the hub nothing is known of it before it is there; then it is an error and not <unk>."""
    few = prepared(make(tiny_nllb(tmp_path / "few", NLLB_CODES[:2])), cache)
    assert few.supports(EN, TH)
    assert not few.supports(EN, HI)
    remote = Seq2Seq("someone/model", REVISION, None, 1, Precision.fp32, 1)
    remote._model_dir = few._model_dir
    with pytest.raises(InputError, match=r"Hindi \(hin_Deva\): translator\.hub_id=someone/model has no code for it"):
        remote.translate(["One."], EN, HI)


@pytest.fixture
def copied(model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(model, tmp_path / "copy")


def test_directories_that_are_no_nllb(copied: Path):
    (copied / "model.safetensors").rename(copied / "weights")
    with pytest.raises(InputError, match=r"has no weights \(\*\.safetensors or pytorch_model\*\.bin\)"):
        make(copied)
    (copied / "weights").rename(copied / "model.safetensors")
    tokenizer = (copied / "tokenizer.json").read_bytes()
    (copied / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"has no tokenizer \(tokenizer\.json, source\.spm, .*\); save it there"):
        make(copied)
    (copied / "tokenizer.json").write_bytes(tokenizer)
    write_json(copied / "config.json", {"model_type": "bart"})
    with pytest.raises(InputError, match=r"a model of type bart; translator=path takes NLLB-200 and M2M-100 "):
        make(copied)
    (copied / "config.json").unlink()
    with pytest.raises(InputError, match=r"translator\.path=.* has no config\.json"):
        make(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hub_id": None}, r"exactly one of translator\.hub_id and translator\.path, not none"),
        ({"path": "/some/where"}, "not translator.hub_id=someone/model and translator.path=/some/where"),
        ({"revision": "main"}, r"translator\.revision=main does not pin"),
    ],
)
def test_options_that_cannot_work(change: dict[str, Any], message: str):
    good = {"hub_id": "someone/model", "revision": REVISION, "path": None}
    options = good | {"batch_size": 1, "precision": Precision.bf16, "num_beams": 1} | change
    with pytest.raises(InputError, match=message):
        Seq2Seq(**options)


def test_what_decides_the_key(model: Path, copied: Path):
    def identity(translator: Seq2Seq) -> tuple[str, str]:
        return translator.version, translator.needs(EN, TH)["translator"].key

    same = identity(make(model, batch_size=1))
    assert identity(make(model, batch_size=64)) == same
    assert identity(make(model, beams=1)) != same
    assert identity(make(model, precision=Precision.bf16)) != same
    assert identity(make(copied))[0] == same[0]
    (copied / "model.safetensors").touch()
    assert identity(make(copied))[1] != same[1]
    remote = Seq2Seq("someone/model", REVISION, None, 1, Precision.fp32, 2)
    assert REVISION in remote.version
    assert remote.needs(EN, TH)["translator"].config == {"hub_id": "someone/model", "revision": REVISION}


@pytest.mark.parametrize("name", ["nllb_600m", "nllb_1b", "nllb_3b", "path"])
def test_configurations(name: str, model: Path):
    written = OmegaConf.load(CONF / f"{name}.yaml")
    assert written.pop("defaults") == ["schema_seq2seq", "_self_"]
    given = {"path": str(model)} if name == "path" else {}
    given["runtime"] = "transformers"
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Seq2SeqConfig), written, given))
    assert config.name == name
    assert isinstance(build(config), Seq2Seq)


def test_nothing_heavy_is_loaded_to_plan(model: Path):
    code = (
        "import sys; from sdx.config import Precision; from sdx.translation.seq2seq import Seq2Seq; "
        f"t = Seq2Seq(None, None, {str(model)!r}, 1, Precision.bf16, 1); "
        "t.supports('eng_Latn', 'tha_Thai'), t.version, t.needs('eng_Latn', 'tha_Thai'); "
        "print({'torch', 'transformers', 'tokenizers', 'huggingface_hub'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
