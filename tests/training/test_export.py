"""The export against the engine's weights, before they are rounded."""

import errno
import json
import logging
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import (
    AttentionInterface,
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from sdx.config import Adapter, Precision, TrainConfig
from sdx.models.loading import dtype_of
from sdx.process.ranks import is_main, rank
from sdx.training import engine as engines
from sdx.training import export as exporting
from sdx.training.engine import build, update
from sdx.training.export import export
from sdx.training.launch import process_group
from sdx.training.memory import Layout
from sdx.training.quiet import deepspeed
from sdx.training.trainable import TrainableLM, with_adapters
from tests.kit.processes import Processes
from tests.kit.tiny import tiny_tokenizer
from tests.kit.training import trained_weights

Weights = dict[str, torch.Tensor]
TRAIN = TrainConfig(batch_size=1, learning_rate=1e-2, lora_dropout=0.0)
LORA = TrainConfig(batch_size=1, learning_rate=1e-2, lora_dropout=0.0, adapter=Adapter.lora)
IDS = torch.arange(5, 25)[None]
SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "initializer_range": 0.2,
    "pad_token_id": 3,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "dtype": "float32",
}
SHARD_BYTES = 100_000
"""A layer of `SHAPE` in bf16 is 62 kB, with four experts 173 kB; an embedding 51 kB."""

RANKS: dict[str, dict[str, Any]] = {
    "zero3": {"name": "untied", "zero_stage": 3, "precision": Precision.fp32},
    "zero3_lora": {"name": "tied", "zero_stage": 3, "precision": Precision.bf16, "train": LORA},
    "zero3_fused": {"name": "mixtral", "zero_stage": 3, "precision": Precision.bf16},
    "zero1": {"name": "tied", "zero_stage": 1, "precision": Precision.bf16},
}


def next_token_loss(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    logits = model(input_ids=batch["input_ids"], use_cache=False).logits[0, :-1].float()
    return cross_entropy(logits, batch["input_ids"][0, 1:]), torch.ones(())


@contextmanager
def trained(model_dir: Path, train: TrainConfig = TRAIN, **layout: Any) -> Iterator[deepspeed.DeepSpeedEngine]:
    """An engine after two steps."""
    trainable = TrainableLM(model_dir, tokenizer=None)
    with process_group() as device, build(trainable, train, Layout(**layout), seed=1) as engine:
        exporting._plain(engine.module.model).set_attn_implementation("sdpa")  # the engine may want packs
        for _ in range(2):
            engine.set_gradient_accumulation_boundary(True)
            loss, _ = engine(next_token_loss, {"input_ids": IDS.to(device)})
            engine.backward(loss)
            update(engine, train.learning_rate, train)
        yield engine


def exported(models: Path, name: str, out: Path, shard_bytes: int = SHARD_BYTES, **options: Any) -> Weights:
    """Trains and exports; returns the trained weights in fp32."""
    with trained(models / name, **options) as engine:
        weights = trained_weights(engine)
        export(engine, AutoTokenizer.from_pretrained(models / name), out, shard_bytes)
    return weights


def expected(model_dir: Path, weights: Weights, precision: Precision) -> Weights:
    """All weights of the model of which `weights` were trained, as the export should round them."""
    dtype = dtype_of(precision)
    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype).state_dict()
    result = {name: weight.float() for name, weight in base.items()} | weights
    for name in weights:
        if ".lora_A." in name:
            down, up = (result.pop(key).to(dtype).float() for key in (name, name.replace("_A.", "_B.")))
            target = name.removeprefix("base_model.model.").replace(".lora_A.default", "")
            result[target] = result[target] + LORA.lora_alpha / LORA.lora_rank * (up @ down)
    return {name: weight.bfloat16() for name, weight in result.items()}


def load(out: Path, dtype: Any = "auto") -> Any:
    """The exported model, which loads without a message."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        model, found = AutoModelForCausalLM.from_pretrained(out, dtype=dtype, output_loading_info=True)
    finally:
        logger.removeHandler(handler)
    assert not any(found.values()), found
    assert not said
    assert model.dtype == (torch.bfloat16 if dtype == "auto" else dtype)
    return model


def assert_equal(model: Any, weights: Weights) -> None:
    """Tied weights may be missing from `weights`."""
    ours = model.state_dict()
    tied = model.all_tied_weights_keys
    assert ours.keys() - tied.keys() == weights.keys() - tied.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, weights[tied.get(name, name)], rtol=0, atol=0, msg=name)


def stored(out: Path) -> Weights:
    """All weights in the shards."""
    weights: Weights = {}
    for file in sorted(out.glob("*.safetensors")):
        shard = load_file(file)
        assert not weights.keys() & shard.keys()
        weights |= shard
    return weights


def make_models(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    text = SHAPE | {"vocab_size": len(tokenizer)}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    made = {
        "untied": (LlamaForCausalLM, LlamaConfig(**text)),
        "tied": (LlamaForCausalLM, LlamaConfig(**text, tie_word_embeddings=True)),
        "mixtral": (MixtralForCausalLM, MixtralConfig(**text, num_local_experts=4)),
        "gemma3_text": (Gemma3ForCausalLM, Gemma3TextConfig(**text, sliding_window=8)),
        "gemma3": (
            Gemma3ForConditionalGeneration,
            Gemma3Config(
                text_config=Gemma3TextConfig(**text), vision_config=vision, mm_tokens_per_image=4, dtype="float32"
            ),
        ),
    }
    for name, (kind, config) in made.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = kind(config)
        model.generation_config.max_new_tokens = 7
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_models(folder)
    return folder


@pytest.mark.parametrize("precision", [Precision.bf16, Precision.fp32])
@pytest.mark.parametrize("train", [TRAIN, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_is_the_trained_model(models: Path, tmp_path: Path, zero_stage: int, train: TrainConfig, precision: Precision):
    out = tmp_path / "model"
    weights = exported(models, "untied", out, train=train, zero_stage=zero_stage, precision=precision)
    assert_equal(load(out), expected(models / "untied", weights, precision))
    base = load_file(models / "untied" / "model.safetensors")
    changed = {name for name, weight in stored(out).items() if not torch.equal(weight, base[name].bfloat16())}
    assert len(changed) == (21 if train is LORA else 30)
    assert sorted(path.name for path in out.glob("model*")) == [
        *(f"model-{number:05d}-of-00005.safetensors" for number in range(1, 6)), "model.safetensors.index.json"
    ]  # fmt: skip
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == base.keys()
    assert index["metadata"]["total_size"] == sum(weight.nbytes for weight in stored(out).values())
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("zero_stage", [0, 3])
@pytest.mark.parametrize("name", ["tied", "mixtral", "gemma3_text", "gemma3"])
def test_names_are_those_of_the_base(models: Path, tmp_path: Path, name: str, zero_stage: int):
    weights = exported(models, name, tmp_path / "out", zero_stage=zero_stage, precision=Precision.bf16)
    assert_equal(load(tmp_path / "out"), expected(models / name, weights, Precision.bf16))
    assert stored(tmp_path / "out").keys() == stored(models / name).keys()


@pytest.mark.parametrize("name", ["tied", "mixtral", "gemma3_text", "gemma3"])
def test_answers_like_the_trained_model(models: Path, tmp_path: Path, name: str):
    with trained(models / name, zero_stage=0, precision=Precision.fp32) as engine, torch.no_grad():
        export(engine, AutoTokenizer.from_pretrained(models / name), tmp_path / "out", SHARD_BYTES)
        model = engine.module.model.eval()
        for weight in model.parameters():
            weight.copy_(weight.bfloat16())
        logits = model(input_ids=IDS).logits
        torch.testing.assert_close(load(tmp_path / "out", torch.float32)(input_ids=IDS).logits, logits)


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_adapters_of_fused_experts(models: Path, tmp_path: Path, zero_stage: int):
    """Compared with PEFT, which makes one adapter for all experts of a layer."""
    weights = exported(models, "mixtral", tmp_path / "out", train=LORA, zero_stage=zero_stage, precision=Precision.bf16)
    assert any("experts" in name for name in weights)
    base = AutoModelForCausalLM.from_pretrained(models / "mixtral", dtype=torch.bfloat16).float()
    adapted: Any = with_adapters(base, LORA)
    adapted.load_state_dict({name: weight.bfloat16() for name, weight in weights.items()}, strict=False)
    assert_equal(load(tmp_path / "out"), adapted.merge_and_unload().bfloat16().state_dict())


def test_carries_nothing_of_the_training(models: Path, tmp_path: Path):
    out = tmp_path / "out"
    AttentionInterface.register("sdx_test", AttentionInterface()["sdpa"])
    with trained(models / "gemma3", zero_stage=3, precision=Precision.fp32, activation_checkpointing=True) as engine:
        model = engine.module.model
        model.config.get_text_config()._attn_implementation = "sdx_test"
        text = model.model.language_model
        text.layers[0] = torch.compile(text.layers[0], backend="eager")
        text.layers[1].compile(backend="eager")
        text.register_buffer("kept", torch.ones(3))
        text.register_buffer("counted", torch.ones(3, dtype=torch.long))
        text.register_buffer("passing", torch.ones(3), persistent=False)
        export(engine, AutoTokenizer.from_pretrained(models / "gemma3"), out)
    assert not list(out.glob("*.index.json"))
    weights = load_file(out / "model.safetensors")
    dtypes = {name.rpartition(".")[2]: weight.dtype for name, weight in weights.items()}
    assert dtypes.pop("counted") == torch.int64
    assert set(dtypes.values()) == {torch.bfloat16}
    buffers = {name for name in weights if name.endswith(("kept", "counted"))}
    assert len(buffers) == 2
    assert weights.keys() - buffers == stored(models / "gemma3").keys()

    plain = AutoModelForCausalLM.from_pretrained(models / "gemma3", dtype=torch.bfloat16)
    plain.save_pretrained(tmp_path / "plain")
    for file in ("config.json", "generation_config.json"):
        assert (out / file).read_text() == (tmp_path / "plain" / file).read_text()
    ours, theirs = (AutoTokenizer.from_pretrained(path) for path in (out, models / "gemma3"))
    assert ours("Olá, mundo") == theirs("Olá, mundo")
    assert ours.chat_template == theirs.chat_template


def test_replaces_all_or_nothing(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    for folder in (out, partial):
        folder.mkdir()
        (folder / "old").touch()
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "save_file", full_disk)
        with pytest.raises(OSError, match="No space left"):
            exported(models, "tied", out, zero_stage=0)
    assert [path.name for path in out.iterdir()] == ["old"]
    exported(models, "tied", out, zero_stage=0)
    assert "old" not in [path.name for path in out.iterdir()]
    assert not partial.exists()
    load(out)


def full_disk(*_arguments: Any, **_options: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(scope="module")
def launched(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ranks")
    processes = Processes(out / "log", export_on_each_rank, models, out, ranks=2)
    assert processes.end(300) == [0, 0], processes.log.read_text()
    return out


@pytest.mark.parametrize("case", RANKS)
def test_two_ranks_write_the_trained_model(launched: Path, models: Path, case: str):
    model_dir, weights = models / RANKS[case]["name"], torch.load(launched / f"{case}.pt")
    assert_equal(load(launched / case), expected(model_dir, weights, RANKS[case]["precision"]))
    assert stored(launched / case).keys() == stored(model_dir).keys()
    assert len(list(launched.glob(f"{case}/*.safetensors"))) > 2


def test_no_rank_holds_more_than_a_module_and_a_shard(launched: Path):
    embedding = 400 * SHAPE["hidden_size"] * 4
    for one in (0, 1):
        held = json.loads((launched / f"held{one}.json").read_text())
        assert held["gathered"] == embedding < held["model"] / 4
        assert 0 < held["copied"] <= SHARD_BYTES < held["model"] / 4


def test_all_ranks_fail_together(launched: Path):
    errors = [json.loads((launched / f"failed{one}.json").read_text()) for one in (0, 1)]
    assert errors[0] == f"RuntimeError: rank 1 could not write: {errors[1]}"
    assert "No space left" in errors[1]
    assert not (launched / "failed").exists()


class Held:
    """Most bytes that a rank holds during the export, of whole weights and of copies."""

    def __init__(self, engine: deepspeed.DeepSpeedEngine) -> None:
        self.weights = list(engine.module.model.parameters())
        self.gathered = self.copied = self._alive = 0

    def __enter__(self) -> "Held":
        self._patch = pytest.MonkeyPatch()
        enter, copied = deepspeed.zero.GatheredParameters.__enter__, exporting._copied

        def noted_enter(context: Any) -> None:
            enter(context)
            available = [weight for weight in self.weights if weight.ds_status.name == "AVAILABLE"]
            self.gathered = max(self.gathered, sum(weight.nbytes for weight in available))

        def noted_copied(part: Any) -> Weights:
            copies = copied(part)
            for weight in copies.values():
                self._alive += weight.nbytes
                weakref.finalize(weight, self._gone, weight.nbytes)
            self.copied = max(self.copied, self._alive)
            return copies

        self._patch.setattr(deepspeed.zero.GatheredParameters, "__enter__", noted_enter)
        self._patch.setattr(exporting, "_copied", noted_copied)
        return self

    def _gone(self, size: int) -> None:
        self._alive -= size

    def __exit__(self, *_error: object) -> None:
        self._patch.undo()


def export_on_each_rank(models: Path, out: Path) -> None:
    """Exports the cases of `RANKS`; every rank notes what it held."""
    config = engines.deepspeed_config

    def all_sharded(*arguments: Any) -> dict[str, Any]:
        """DeepSpeed does not shard weights as small as these."""
        made = config(*arguments)
        made["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        return made

    engines.deepspeed_config = all_sharded
    for case, options in RANKS.items():
        weights = exported(models, out=out / case, **options)
        if is_main():
            torch.save(weights, out / f"{case}.pt")
    with trained(models / "untied", zero_stage=3, precision=Precision.fp32) as engine:
        tokenizer = AutoTokenizer.from_pretrained(models / "untied")
        with Held(engine) as held:
            export(engine, tokenizer, out / "held", SHARD_BYTES)
        noted = {"gathered": held.gathered, "copied": held.copied}
        noted["model"] = 4 * sum(weight.ds_numel for weight in held.weights)
        (out / f"held{rank()}.json").write_text(json.dumps(noted))
        if rank() == 1:
            exporting.save_file = full_disk
        try:
            export(engine, tokenizer, out / "failed", SHARD_BYTES)
        except Exception as error:
            (out / f"failed{rank()}.json").write_text(json.dumps(f"{type(error).__name__}: {error}"))
