"""CTranslate2 in its own process against transformers, on tiny random checkpoints of every family that translates."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdx import InputError
from sdx.config import Precision, Runtime
from sdx.languages import languages
from sdx.models import residency
from sdx.store.store import Store
from sdx.translation import transformers_runtime
from sdx.translation.ctranslate2_runtime import CTranslate2, check_codes
from sdx.translation.search import Search
from sdx.translation.seq2seq import Seq2Seq
from tests.kit.tiny import tiny_nllb
from tests.kit.tiny_seq2seq import FAMILIES, ending

pytestmark = [pytest.mark.whole, pytest.mark.long]
pytest.importorskip("ctranslate2")

EN, TH = "eng_Latn", "tha_Thai"
SENTENCES = ["The dog.", "How many legs?", "Yes </s> tha_Thai", "A fox jumps over the lazy dog.", "Plants.", "X"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def nllb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_nllb(tmp_path_factory.mktemp("models") / "nllb")


@pytest.fixture(autouse=True)
def released() -> Iterator[None]:
    yield
    residency.release()


def prepared(path: Path, cache: Path, runtime: Runtime, beams: int, precision: Precision = Precision.fp32) -> Seq2Seq:
    translator, store = Seq2Seq(None, None, str(path), 4, precision, beams, runtime), Store(cache)
    assert translator.why_unsupported(EN, TH) is None
    translator.prepare({name: store.realise(step) for name, step in translator.needs(EN, TH).items()})
    return translator


def both(path: Path, cache: Path, beams: int) -> list[list[str]]:
    runtimes = (Runtime.transformers, Runtime.ctranslate2)
    return [prepared(path, cache, one, beams).translate_sentences(SENTENCES, EN, TH) for one in runtimes]


def engine(translator: Seq2Seq) -> CTranslate2:
    found, _ = translator._ready()
    assert isinstance(found, CTranslate2)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_translations_are_those_of_transformers_in_fp32(family: str, cache: Path, tmp_path: Path):
    path = FAMILIES[family](tmp_path / "model")
    for beams in (1, 4):
        theirs, ours = both(path, cache, beams)
        assert ours == theirs
        assert len(set(ours)) > 2


def test_translations_that_end_differ_only_where_the_beam_search_ended_earlier(
    nllb: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Patience ends a search that `generate` continues; nothing that it finds scores better."""
    path = ending(tiny_nllb(tmp_path / "model"))
    theirs, ours = both(path, cache, 1)
    assert ours == theirs
    assert any(len(text) < 30 for text in ours)

    seen: dict[Runtime, list[list[int]]] = {}
    for runtime in (Runtime.transformers, Runtime.ctranslate2):
        translator = prepared(path, cache, runtime, 4)
        _, vocabulary = translator._ready()
        monkeypatch.setattr(vocabulary, "decode", lambda rows, at=runtime: seen.update({at: rows}) or [""] * len(rows))
        translator.translate_sentences(SENTENCES, EN, TH)
    model = transformers_runtime.load_model(path, Precision.fp32)
    before, end = vocabulary.ids[EN], model.config.eos_token_id
    sources = [[before, *row, end] for row in vocabulary.encode(SENTENCES)]
    same = 0
    for source, theirs_, ours_ in zip(sources, *seen.values(), strict=True):
        one, other = (_score(model, source, row) for row in (theirs_, ours_))
        assert other <= one + 1e-4
        same += abs(one - other) < 1e-4
    assert same >= len(sources) / 2


def _score(model: Any, source: list[int], row: list[int]) -> float:
    """Mean log-probability of a translation, as beam search ranks it."""
    import torch

    start, end, pad = (getattr(model.config, f"{name}_token_id") for name in ("decoder_start", "eos", "pad"))
    tokens = [token for token in row if token not in (start, end, pad)]
    labels = torch.tensor([*tokens, end])
    decoded = torch.tensor([[start, *tokens]])
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([source]), decoder_input_ids=decoded).logits[0]
    chosen = logits.log_softmax(-1)[torch.arange(len(labels)), labels]
    return float(chosen[1:].sum() / len(labels))  # the first is forced


def test_all_202_codes_of_nllb_begin_a_translation(cache: Path, tmp_path: Path):
    codes = tuple(entry.nllb for entry in languages() if entry.nllb)
    assert len(codes) == 202
    translator = prepared(tiny_nllb(tmp_path / "model", codes), cache, Runtime.ctranslate2, 1)
    assert all(translator.supports(EN, entry.flores) for entry in languages() if entry.nllb)
    child = engine(translator).child
    for code in codes:
        [row] = child.ask("translate", sources=[[EN, "▁", "a", "</s>"]], rooms=[3], prefix=code, beams=1)
        assert row[0] == code
        [row] = child.ask("translate", sources=[[code, "▁", "a", "</s>"]], rooms=[3], prefix=EN, beams=1)
    assert translator._converted
    check_codes(translator._converted, set(codes))
    with pytest.raises(InputError, match=r"for CTranslate2 has no token for xxx_Latn: .*runtime=transformers"):
        check_codes(translator._converted, {*codes, "xxx_Latn"})


def test_a_vocabulary_that_the_config_cuts_off_is_refused(cache: Path, tmp_path: Path):
    """CTranslate2's converter drops tokens beyond `vocab_size` without a word."""
    from transformers import AutoModelForSeq2SeqLM

    path = tiny_nllb(tmp_path / "model")
    model = AutoModelForSeq2SeqLM.from_pretrained(path)
    model.resize_token_embeddings(model.config.vocab_size - 3)
    model.save_pretrained(path)
    with pytest.raises(InputError, match="has no token for"):
        prepared(path, cache, Runtime.ctranslate2, 1)


def test_in_8_bits(nllb: Path, cache: Path):
    in_8, in_32 = (prepared(nllb, cache, Runtime.ctranslate2, 2, one) for one in (Precision.int8, Precision.fp32))
    assert in_8._converted
    assert in_32._converted
    sizes = [(converted / "model.bin").stat().st_size for converted in (in_8._converted, in_32._converted)]
    assert sizes[0] < 0.6 * sizes[1]  # the table of positions stays
    texts = in_8.translate(["The dog.\n\n- A fox."], EN, TH)
    assert texts == in_8.translate(["The dog.\n\n- A fox."], EN, TH)
    assert texts[0].count("\n") == 2
    assert in_8.version != in_32.version


def test_batches_do_not_change_results(nllb: Path, cache: Path):
    translator = prepared(nllb, cache, Runtime.ctranslate2, 2)
    together = translator.translate_sentences(SENTENCES * 3, EN, TH)
    assert together == [translator.translate_sentences([one], EN, TH)[0] for one in SENTENCES] * 3


def test_a_sentence_longer_than_the_positions_keeps_its_source(cache: Path, tmp_path: Path):
    translator = prepared(tiny_nllb(tmp_path / "model", max_position_embeddings=40), cache, Runtime.ctranslate2, 1)
    short, long = translator.translate_sentences(["The dog.", "x " * 40], EN, TH)
    assert 0 < len(short) < 40
    assert long == ""
    assert translator.translate([text := "x " * 40], EN, TH) == [text]


def test_the_process_ends_when_the_model_is_released(nllb: Path, cache: Path):
    pid = engine(prepared(nllb, cache, Runtime.ctranslate2, 1)).child.pid
    os.kill(pid, signal.SIGTERM)  # as a job's processes get it; the parent decides
    translator = prepared(nllb, cache, Runtime.ctranslate2, 1)
    translator.translate_sentences(["One."], EN, TH)
    assert engine(translator).child.pid == pid
    residency.release()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


PARENT = """
import sys
from pathlib import Path
from sdx.translation.ctranslate2_runtime import CTranslate2
engine = CTranslate2(Path(sys.argv[1]), 64)
print(engine.child.pid, flush=True)
sources = [["eng_Latn", "\u2581", "a", "b", "</s>"]] * 20_000
engine.child.ask("translate", sources=sources, rooms=[500] * 20_000, prefix="tha_Thai", beams=4)
"""


def test_the_process_ends_with_its_parent_in_the_middle_of_a_translation(nllb: Path, cache: Path):
    converted = prepared(nllb, cache, Runtime.ctranslate2, 1)._converted
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(converted)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    pid = int(parent.stdout.readline())
    time.sleep(1)
    assert parent.poll() is None
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _is_alive(pid):
        time.sleep(0.1)
    assert not _is_alive(pid)


def _is_alive(pid: int) -> bool:
    """Not a zombie, which nobody may be left to wait for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_dead_process_and_a_damaged_model_are_told(nllb: Path, cache: Path, tmp_path: Path):
    translator = prepared(nllb, cache, Runtime.ctranslate2, 1)
    os.kill(engine(translator).child.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="process of CTranslate2 ended with status -9"):
        translator.translate_sentences(["One."], EN, TH)
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match=r"CTranslate2 cannot load .*; pip install 'sdx\[ctranslate2\]', "):
        CTranslate2(tmp_path, 64)


def test_without_the_package(nllb: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A plan has the keys of the run; the run says what is missing before anything is converted."""
    given = prepared(nllb, cache, Runtime.ctranslate2, 1)
    key = given.needs(EN, TH)["converted"].key
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    again = Seq2Seq(None, None, str(nllb), 4, Precision.fp32, 1, Runtime.ctranslate2)
    assert again.version == given.version
    assert again.needs(EN, TH)["converted"].key == key
    with pytest.raises(InputError, match=r"runtime=ctranslate2 needs a package that is not installed: pip install"):
        prepared(nllb, tmp_path / "empty", Runtime.ctranslate2, 1)


def test_the_room_of_a_translation():
    assert Search(1, None).room(4) == 64
    assert Search(1, None, 50).room(4) == 50
