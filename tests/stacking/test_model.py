"""The stacked model: its output for a text depends on that text alone, and only what was trained is stored."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForMultipleChoice, AutoModelForSequenceClassification

from sdx import InputError
from sdx.models.loading import padded
from sdx.offline.assets import packages
from sdx.stacking.model import (
    StackConfig,
    StackForMultipleChoice,
    StackForSequenceClassification,
    StackModel,
    is_trained,
    masked_mean,
    without_adapters,
)
from sdx.stacking.objectives import Collator
from sdx.stacking.parts import part_directory, part_source
from sdx.store.files import write_json
from sdx.training import packing
from sdx.training.attention import PACKED
from tests.kit.tiny import tiny_encoder, tiny_gemma, tiny_model, tiny_nllb
from tests.kit.tiny_stack import LABELS, RANK, stack_config, tiny_stack

pytestmark = pytest.mark.whole

KINDS = ("bert", "xlm-roberta", "m2m_100")
ENGLISH = ["a", "How many legs does a dog have?", "Four, I think; it is a dog.", "of the", "x" * 57]
ROWS = [(text, text[:4]) for text in ENGLISH[:4]]
HEADS = (StackForSequenceClassification, StackForMultipleChoice)
REVISION = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parts")
    found = {kind: tiny_encoder(folder / kind, kind) for kind in (*KINDS, "mt5")}
    llms = {"llm": tiny_model(folder / "llm"), "gemma": tiny_gemma(folder / "gemma")}
    return found | llms | {"nllb": tiny_nllb(folder / "nllb")}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The artifact cache for the parts that a stack's config names."""
    monkeypatch.setenv("SDX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def stack(models: dict[str, Path], kind: type[Any] = StackModel, encoder: str = "bert", **options: Any) -> Any:
    return tiny_stack(models[encoder], models["llm"], kind, **options)


def batch_of(model: Any, rows: list[tuple[str, ...]], lang: str = "en") -> dict[str, torch.Tensor]:
    """Inputs of a head: ids, mask and the spans of the last two texts of each row."""
    encoded = model.sequence_tokenizer(lang).encode(rows, 64)
    ids, mask = padded([one.ids for one in encoded], model.pad_id).values()
    spans = torch.tensor([one.spans[-2:] for one in encoded])
    batch = {"input_ids": ids, "attention_mask": mask}
    return batch | ({"spans": spans} if isinstance(model, StackForMultipleChoice) else {})


# One and many


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("encoder", [*KINDS, "mt5", "nllb", "none", "alone"])
def test_a_text_alone_and_among_others(models: dict[str, Path], encoder: str, bidirectional: bool):
    if encoder == "alone":
        model = tiny_stack(models["xlm-roberta"], None)
    else:
        model = tiny_stack(models.get(encoder), models["llm"], bidirectional=bidirectional)
    texts = [*ENGLISH, "ab cd", ("ab", "cd")]
    alone, together = model.encode(texts, "en", batch_size=1), model.encode(texts, "en", batch_size=4)
    assert alone.shape == (7, 32 if encoder == "alone" else 64)
    assert alone.dtype is torch.float32
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(model.encode(texts[::-1], "en").flip(0), alone, atol=2e-5, rtol=1e-4)
    assert torch.pdist(alone).min() > 1e-2  # and yet each says something of its own
    torch.testing.assert_close(model(**batch_of(model, [("a", "b")])).pooler_output, model.encode([("a", "b")], "en"))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("encoder", KINDS)
@pytest.mark.parametrize("kind", HEADS)
def test_logits_alone_and_among_others(models: dict[str, Path], kind: type[Any], encoder: str, bidirectional: bool):
    model = stack(models, kind, encoder, bidirectional=bidirectional, start_token=1 if bidirectional else None)
    with torch.no_grad():
        together = model(**batch_of(model, ROWS))
        alone = [model(**batch_of(model, [row])) for row in ROWS]
    assert together.logits.shape == ((4, 3) if kind is StackForSequenceClassification else (4, 2))
    torch.testing.assert_close(together.logits, torch.cat([one.logits for one in alone]), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(together.vectors, torch.cat([one.vectors for one in alone]), atol=2e-5, rtol=1e-4)
    assert together.loss is None
    labels = torch.tensor([1, 0, 1, 1])
    expected = -together.logits.log_softmax(-1)[range(4), labels].mean()
    torch.testing.assert_close(model(**batch_of(model, ROWS), labels=labels).loss, expected)


def test_choices_are_pooled_over_their_own_tokens(models: dict[str, Path]):
    model = stack(models, StackForMultipleChoice)
    rows = [("passage", "which?", "one", "two more"), ("p", "q?", "a", "bcdef")]
    batch = batch_of(model, rows)
    with torch.no_grad():
        output = model(**batch)
        states = model.hidden_states(batch["input_ids"], batch["attention_mask"])
        for row, spans in enumerate(batch["spans"].tolist()):
            for choice, (first, last) in enumerate(spans):
                vector = states[row, first:last].mean(0)
                torch.testing.assert_close(output.vectors[row, choice], vector)
                torch.testing.assert_close(output.logits[row, choice], model.classifier(vector)[0])
    read = model.sequence_tokenizer("en").tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist())
    first, last = batch["spans"][0, 1].tolist()
    assert "".join(read[first:last]) == "▁two▁more"


def test_masked_mean_leaves_padding_out():
    states = torch.tensor([[[1.0], [3.0], [100.0]], [[1.0], [3.0], [5.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert masked_mean(states, mask).tolist() == [[2.0], [3.0]]
    assert masked_mean(states[1:], None).tolist() == [[3.0]]


def test_a_model_with_a_head_encodes_texts(models: dict[str, Path]):
    model = stack(models, StackForSequenceClassification)
    rows = [("ab", "c"), ("a", "longer")]
    torch.testing.assert_close(model.encode(rows, "en"), model(**batch_of(model, rows)).vectors, atol=2e-5, rtol=1e-4)
    assert stack(models, StackForMultipleChoice).encode(rows, "en").shape == (2, 64)


@pytest.mark.parametrize("encoder", ["bert", "xlm-roberta"])
def test_a_text_that_is_longer_than_the_encoder_reads_loses_its_end(models: dict[str, Path], encoder: str):
    """These encoders have 64 positions."""
    model = stack(models, encoder=encoder)
    assert torch.equal(model.encode(["x" * 100], "en"), model.encode(["x" * 500], "en"))
    assert [len(one.ids) for one in model.sequence_tokenizer("en").encode([("x" * 100, "y" * 100)], 512)] == [64]


@pytest.mark.parametrize("encoder", [*KINDS, "mt5", "nllb", "llm"])
def test_padding_is_known_without_the_model(models: dict[str, Path], encoder: str):
    """Some encoders number their positions by the padding token."""
    model = tiny_stack(None, models["llm"]) if encoder == "llm" else stack(models, encoder=encoder)
    assert Collator.of({"llm" if encoder == "llm" else "encoder": models[encoder]}).pad_id == model.pad_id
    assert model.pad_id == model.sequence_tokenizer("en").tokenizer.pad_token_id


# What sees what


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("llm", ["llm", "gemma"])
def test_the_first_token_sees_the_last_only_both_ways(models: dict[str, Path], llm: str, bidirectional: bool):
    """With every way to call the LLM; Gemma has a layer with a window of 8 tokens."""
    model = tiny_stack(None, models[llm], llm_size=64 if llm == "llm" else 32, bidirectional=bidirectional)
    rows = [[10, 20, 30], [10, 20, 31]], [list(range(10, 32)), [*range(10, 31), 99]]
    mask = torch.ones(1, 3, dtype=torch.long)
    with torch.no_grad():
        for one, two in rows:
            longest = {"attention_mask": torch.ones(1, len(one), dtype=torch.long)}
            ours, theirs = (model.hidden_states(torch.tensor([row]), **longest) for row in (one, two))
            assert torch.equal(ours[:, 0], theirs[:, 0]) is not bidirectional
            assert torch.equal(ours[:, -2], theirs[:, -2]) is not bidirectional
            assert not torch.equal(ours[:, -1], theirs[:, -1])
            bare = model.hidden_states(torch.tensor([one]))
            torch.testing.assert_close(bare, ours, atol=2e-5, rtol=1e-4)
        model.llm.set_attn_implementation(PACKED)
        (one, two), long = rows[0], rows[1][0]
        packed = model.hidden_states(**packing.join([long, one]))[0]
        model.llm.set_attn_implementation("sdpa")
        padded_rows = padded([long, one], 0)
        alone = model.hidden_states(**padded_rows)
        torch.testing.assert_close(packed[: len(long)], alone[0], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(packed[len(long) :], alone[1, :3], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(alone[1:, :3], model.hidden_states(torch.tensor([one]), mask), atol=2e-5, rtol=1e-4)


def test_both_ways_is_stored(models: dict[str, Path], tmp_path: Path):
    model = tiny_stack(None, models["llm"], bidirectional=True)
    model.save_pretrained(tmp_path / "saved")
    loaded = StackModel.from_pretrained(tmp_path / "saved")
    assert torch.equal(loaded.encode(ENGLISH, "en"), model.encode(ENGLISH, "en"))
    causal = tiny_stack(None, models["llm"])
    assert not torch.allclose(causal.encode(ENGLISH, "en"), model.encode(ENGLISH, "en"), atol=1e-2)


@pytest.mark.parametrize("encoder", KINDS)
def test_the_llm_begins_with_its_own_start_token(models: dict[str, Path], encoder: str):
    """It replaces the encoder's; the other states are unchanged."""
    plain, model = stack(models, encoder=encoder), stack(models, encoder=encoder, start_token=7)
    batch = batch_of(model, [("ab", "c"), ("How many", "legs does a dog have?")])
    with torch.no_grad():
        ours, theirs = model.soft_prompt(**batch), plain.soft_prompt(**batch)
        start = model.llm(torch.tensor([[7]])).last_hidden_state[0, 0]
        states = model.hidden_states(**batch)
    assert torch.equal(ours[:, 1:], theirs[:, 1:])
    assert torch.equal(ours[:, 0], model.llm.get_input_embeddings().weight[7].expand(2, -1))
    assert not torch.allclose(ours[:, 0], theirs[:, 0], atol=1e-2)
    torch.testing.assert_close(states[:, 0], start.expand(2, -1), atol=2e-5, rtol=1e-4)  # it sees nothing else
    assert not torch.allclose(states[:, 1:], plain.hidden_states(**batch)[:, 1:], atol=1e-2)  # and is seen


def test_the_frozen_encoder_has_no_dropout_in_training(models: dict[str, Path]):
    model = stack(models, lora={**RANK, "dropout": 0.0})
    assert model.encoder.config.hidden_dropout_prob == 0.1
    model.train()
    assert model.llm.training
    assert not any(module.training for module in model.encoder.modules())
    batch = batch_of(model, ROWS)
    assert torch.equal(model.hidden_states(**batch), model.hidden_states(**batch))
    dropping = stack(models, lora={**RANK, "dropout": 0.5}).train()
    assert not torch.equal(dropping.hidden_states(**batch), dropping.hidden_states(**batch))
    dropping.eval()
    assert torch.equal(dropping.hidden_states(**batch), dropping.hidden_states(**batch))


def test_only_the_bridge_and_the_adapters_have_gradients(models: dict[str, Path]):
    model = stack(models).train()
    model(**batch_of(model, ROWS)).pooler_output.square().sum().backward()
    touched = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert touched == {name for name, _ in model.named_parameters() if is_trained(name)}
    assert {name.partition(".")[0] for name in touched} == {"bridge", "llm"}
    assert all(float(weight.grad.abs().sum()) > 0 for _, weight in model.named_parameters() if weight.grad is not None)


def test_without_adapters_it_is_the_plain_llm(models: dict[str, Path]):
    model = stack(models)
    plain = AutoModel.from_pretrained(models["llm"])
    ids = torch.tensor([[10, 20, 30]])
    with torch.no_grad():
        adapted = model.llm_hidden_states(ids)
        with without_adapters(model.llm):
            assert torch.equal(model.llm_hidden_states(ids), plain(ids).last_hidden_state)
        assert torch.equal(model.llm_hidden_states(ids), adapted)
    assert not torch.allclose(adapted, plain(ids).last_hidden_state, atol=1e-2)
    assert all(weight.requires_grad is (".lora_" in name) for name, weight in model.llm.named_parameters())


# Texts and languages


@pytest.mark.parametrize("encoder", [*KINDS, "mt5", "nllb", "none"])
def test_a_pair_has_a_separator(models: dict[str, Path], encoder: str):
    model = tiny_stack(models.get(encoder), models["llm"])
    segments = model.sequence_tokenizer("en")
    one, two, whole = segments.encode([("ab", "c"), ("a", "bc"), ("abc",)], 64)
    (_, first), (second, _) = one.spans
    assert segments.between
    assert one.ids[first:second] == segments.between
    assert len({tuple(encoded.ids) for encoded in (one, two, whole)}) == 3
    vectors = model.encode([("ab", "c"), ("a", "bc"), "abc"], "en")
    assert torch.pdist(vectors).min() > 1e-3


@pytest.mark.parametrize("encoder", ["m2m_100", "nllb"])
def test_a_language_is_known_or_refused(models: dict[str, Path], encoder: str):
    model = stack(models, encoder=encoder)
    for code in ("en", "th"):
        segments = model.sequence_tokenizer(code)
        [encoded] = segments.encode([("a",)], 64)
        assert segments.tokenizer.unk_token_id not in encoded.ids
    assert not torch.equal(model.encode(["a"], "en"), model.encode(["a"], "th"))
    with pytest.raises(InputError, match=r"has no code for Swahili"):
        model.encode(["a"], "sw")
    with pytest.raises(ValueError, match="xx_Nope"):
        model.encode(["a"], "xx_Nope")


def test_the_prefix_is_in_front_of_every_text(models: dict[str, Path]):
    plain, prefixed = stack(models), stack(models)
    prefixed.config.encoder["prefix"] = "query: "
    assert torch.equal(prefixed.encode(["a"], "en"), plain.encode(["query: a"], "en"))


# Stored and loaded


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "auto"),
    [
        (StackModel, AutoModel),
        (StackForSequenceClassification, AutoModelForSequenceClassification),
        (StackForMultipleChoice, AutoModelForMultipleChoice),
    ],
)
def test_a_round_trip(models: dict[str, Path], tmp_path: Path, kind: type[Any], auto: Any, dtype: torch.dtype):
    model = stack(models, kind, dtype=dtype, bias=True, start_token=1)
    model.save_pretrained(tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["config.json", "model.safetensors"]
    stored = load_file(tmp_path / "saved/model.safetensors")
    head = set() if kind is StackModel else {"classifier.weight", "classifier.bias"}
    adapters = {name for name in stored if ".lora_A." in name or ".lora_B." in name}
    assert len(adapters) == 2 * 7 * 2
    assert (
        stored.keys() - adapters
        == {"bridge.mean", "bridge.std", "bridge.gain", "bridge.up_proj.weight", "bridge.up_proj.bias"} | head
    )
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    config = json.loads((tmp_path / "saved/config.json").read_text())
    assert (config["dtype"], config["architectures"]) == (str(dtype).removeprefix("torch."), [kind.__name__])
    loaded = auto.from_pretrained(tmp_path / "saved")
    assert type(loaded) is kind
    assert not loaded.training
    assert {weight.dtype for weight in loaded.parameters()} == {dtype}
    assert loaded.config.id2label == LABELS
    with torch.no_grad():
        ours, theirs = (one(**batch_of(one, ROWS)) for one in (model, loaded))
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key
    ours, theirs = (one.state_dict() for one in (model, loaded))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_far_less_is_stored_than_the_bases_have(models: dict[str, Path], tmp_path: Path):
    model = stack(models, lora={**RANK, "rank": 1})
    model.save_pretrained(tmp_path / "saved")
    bases = sum((models[part] / "model.safetensors").stat().st_size for part in ("bert", "llm"))
    assert (tmp_path / "saved/model.safetensors").stat().st_size < bases / 10


def test_a_dtype_is_asked_for(models: dict[str, Path], tmp_path: Path):
    stack(models).save_pretrained(tmp_path / "saved")
    for options, dtype in (
        ({}, torch.float32),
        ({"dtype": "auto"}, torch.float32),
        ({"dtype": torch.bfloat16}, torch.bfloat16),
        ({"dtype": "bfloat16"}, torch.bfloat16),
        ({"torch_dtype": torch.bfloat16}, torch.bfloat16),
    ):
        model = AutoModel.from_pretrained(tmp_path / "saved", **options)
        assert {weight.dtype for weight in model.parameters()} == {dtype}


def test_the_config_names_bases_and_revisions_and_no_cache(models: dict[str, Path], tmp_path: Path):
    parts = {"encoder": models["bert"], "llm": models["llm"]}
    encoder, llm = {"asset": "e5_small", "prefix": "query: "}, {"hub_id": "someone/llm", "revision": REVISION}
    model = StackModel(stack_config(models["bert"], models["llm"]), parts)
    for name, source in (("encoder", encoder), ("llm", llm)):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "source.json", {**source, "licence": "MIT"})
    model.config.encoder = part_source(tmp_path / "encoder", "query: ")
    model.config.llm = part_source(tmp_path / "llm")
    model.save_pretrained(tmp_path / "saved")
    loaded = StackModel.from_pretrained(tmp_path / "saved", parts=parts)
    loaded.save_pretrained(tmp_path / "again")
    for folder in ("saved", "again"):
        text = (tmp_path / folder / "config.json").read_text()
        written = json.loads(text)
        assert (written["encoder"], written["llm"]) == (encoder, llm)
        assert not any(str(path) in text for path in (*parts.values(), tmp_path))
    found = AutoConfig.from_pretrained(tmp_path / "again")
    assert type(found) is StackConfig
    assert (found.encoder, found.llm) == (encoder, llm)


def test_a_packaged_part_is_named_with_its_packages(models: dict[str, Path], tmp_path: Path):
    source = {"asset": "e5_small", "packages": packages("e5_small"), "licence": "MIT"}
    write_json(tmp_path / "source.json", source)
    assert part_source(tmp_path, "query: ")["packages"] == source["packages"]
    older = {"asset": "e5_small", "packages": ["e5==0"]}
    with pytest.raises(InputError, match=r"e5_small of e5==0, and this sdx has .*; take the sdx that trained it"):
        part_directory("encoder", older, None)
    assert part_directory("encoder", older, {"encoder": tmp_path}) == tmp_path


def test_parts_that_are_directories_are_found_again(models: dict[str, Path], tmp_path: Path, cache: Path):
    model = stack(models)
    model.save_pretrained(tmp_path / "saved")
    loaded = AutoModel.from_pretrained(tmp_path / "saved")
    assert torch.equal(loaded.encode(ENGLISH, "en"), model.encode(ENGLISH, "en"))
    assert loaded.directories["llm"].is_relative_to(cache)
    config = json.loads((tmp_path / "saved/config.json").read_text())
    config["llm"]["path"] = str(tmp_path / "gone")
    (tmp_path / "saved/config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=str(tmp_path / "gone")):
        AutoModel.from_pretrained(tmp_path / "saved")


def test_options_of_transformers(models: dict[str, Path], tmp_path: Path):
    model = stack(models, StackForSequenceClassification)
    options = {"push_to_hub": False, "is_main_process": True, "max_shard_size": "1KB", "token": None}
    model.save_pretrained(tmp_path / "saved", state_dict=model.state_dict(), safe_serialization=True, **options)
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["config.json", "model.safetensors"]
    assert load_file(tmp_path / "saved/model.safetensors").keys() == model.trained_weights().keys()
    loaded = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "saved", local_files_only=True, trust_remote_code=False
    )
    assert torch.equal(loaded.classifier.weight, model.classifier.weight)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved", device_map="cpu")
    assert loaded.device.type == "cpu"
    with pytest.raises(InputError, match=r"quantization_config=\.\.\.\) does not reach the parts"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved", quantization_config={})
    with pytest.raises(InputError, match=r"classifier\.\w+ is of another model"):
        StackForSequenceClassification.from_pretrained(tmp_path / "saved", num_labels=5)
    (tmp_path / "other").mkdir()
    shutil.move(tmp_path / "saved", tmp_path / "other/inside")
    inside = StackForSequenceClassification.from_pretrained(tmp_path / "other", subfolder="inside")
    assert torch.equal(inside.classifier.weight, model.classifier.weight)


def test_a_push_uploads_what_is_saved(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import HfApi, ModelCard, RepoUrl
    from transformers.utils import hub

    uploaded: dict[str, bytes] = {}

    def create_commit(_api: Any, operations: Any, **_options: Any) -> None:
        for operation in operations:
            with operation.as_file() as file:
                uploaded[operation.path_in_repo] = file.read()

    monkeypatch.setattr(HfApi, "create_repo", lambda *_, **__: RepoUrl("https://huggingface.co/me/stack"))
    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    monkeypatch.setattr(hub, "create_and_tag_model_card", lambda *_, **__: ModelCard("a stack"))
    model = stack(models)
    model.push_to_hub("me/stack")
    model.save_pretrained(tmp_path / "saved")
    assert uploaded.keys() == {"README.md", "config.json", "model.safetensors"}
    for name in ("config.json", "model.safetensors"):
        assert uploaded[name] == (tmp_path / "saved" / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("gone", r"saved does not fit its config: bridge\.gain is missing; copy the directory again"),
        ("fewer", r"bridge\.up_proj\.weight is missing"),
        ("more", r"bridge\.up_proj\.bias is of another model"),
        ("wider", r"bridge\.up_proj\.weight is of another model"),
        ("head", r"classifier\.weight is of another model"),
    ],
)
def test_weights_that_are_not_the_configs(models: dict[str, Path], tmp_path: Path, change: str, message: str):
    stack(models, StackForSequenceClassification).save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved/model.safetensors"
    weights = load_file(file)
    if change == "fewer":
        del weights["bridge.up_proj.weight"]
    elif change == "more":
        weights["bridge.up_proj.bias"] = torch.zeros(64)
    elif change == "wider":
        weights["bridge.up_proj.weight"] = torch.zeros(128, 32)
    elif change == "head":
        weights["classifier.weight"] = torch.zeros(7, 64)
    save_file(weights, file)
    if change == "gone":
        file.unlink()
    with pytest.raises(InputError, match=message):
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")


def test_a_head_is_put_on_and_left_off(models: dict[str, Path], tmp_path: Path):
    stack(models, StackForSequenceClassification).save_pretrained(tmp_path / "classes")
    stack(models).save_pretrained(tmp_path / "bare")
    ours, theirs = (AutoModel.from_pretrained(tmp_path / name) for name in ("classes", "bare"))
    assert type(ours) is StackModel
    texts = ours.encode(ENGLISH, "en"), theirs.encode(ENGLISH, "en")
    assert texts[0].shape == texts[1].shape
    headed = AutoModelForSequenceClassification.from_pretrained(tmp_path / "bare")
    assert headed.classifier.weight.shape == (3, 64)


@pytest.mark.parametrize("kind", [StackModel, *HEADS])
def test_a_part_alone(models: dict[str, Path], tmp_path: Path, kind: type[Any]):
    reader, llm = tiny_stack(models["bert"], None, kind), tiny_stack(None, models["llm"], kind)
    head = set() if kind is StackModel else {"classifier.weight", "classifier.bias"}
    assert reader.trained_weights().keys() == {"bridge.mean", "bridge.std"} | head
    assert all(".lora_" in name or name in head for name in llm.trained_weights())
    assert (reader.config.hidden_size, llm.config.hidden_size) == (32, 64)
    for name, model in (("reader", reader), ("llm", llm)):
        model.save_pretrained(tmp_path / name)
        loaded = kind.from_pretrained(tmp_path / name)
        batch = batch_of(model, ROWS)
        with torch.no_grad():
            ours, theirs = model(**batch), loaded(**batch)
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    plain = tiny_stack(None, models["llm"], kind, lora=None)
    assert plain.trained_weights().keys() == head
    plain.save_pretrained(tmp_path / "plain")
    assert not kind.from_pretrained(tmp_path / "plain").trained_weights().keys() - head


def test_the_encoder_alone_gives_standardised_states(models: dict[str, Path]):
    model = tiny_stack(models["bert"], None)
    batch = batch_of(model, ROWS)
    with torch.no_grad():
        raw = model.encoder(**batch).last_hidden_state
    expected = (raw - model.bridge.mean) / model.bridge.std
    torch.testing.assert_close(model.hidden_states(**batch), expected)
