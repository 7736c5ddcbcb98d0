"""Several learning rates in one training: parameter groups at every stage of DeepSpeed, and in checkpoints."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from sdx.config import Optimizer, TrainConfig
from sdx.process.ranks import is_main
from sdx.training.trainable import TrainableLM
from tests.kit.processes import Processes
from tests.kit.training import Weights, assert_close, assert_equal, fit, whole_and_resumed

FAST, RATE = ".mlp.", 10.0
needs_extra = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs the extra 8bit: bitsandbytes")
LAYOUTS: dict[str, dict[str, Any]] = {
    **{f"zero{stage}": {"zero_stage": stage} for stage in range(4)},
    "zero2_offload": {"zero_stage": 2, "offload_optimizer": True},
    "zero3_offload": {"zero_stage": 3, "offload_optimizer": True},
}
EIGHT_BIT = {"zero_stage": 1, "optimizer": Optimizer.adamw_8bit}
ALONE = [
    *(pytest.param(LAYOUTS[name], id=name) for name in ("zero0", "zero2_offload", "zero3")),
    pytest.param(EIGHT_BIT, id="zero1_8bit", marks=needs_extra),
]
"""On one rank; two ranks have all layouts."""


class TwoRates(TrainableLM):
    """The MLPs learn faster, the embedding not at all."""

    def __init__(self, model_dir: Path, fast: float = RATE) -> None:
        super().__init__(model_dir, AutoTokenizer.from_pretrained(model_dir))
        self.fast = fast

    def load(self, dtype: torch.dtype, train: TrainConfig) -> nn.Module:
        model: Any = super().load(dtype, train)
        model.get_input_embeddings().requires_grad_(False)
        return model

    def rate(self, name: str) -> float:
        return self.fast if FAST in name else 1.0


def moved(model_dir: Path, weights: Weights) -> Weights:
    base = AutoModelForCausalLM.from_pretrained(model_dir).state_dict()
    return {name: weight - base[name] for name, weight in weights.items()}


@pytest.mark.parametrize("options", ALONE)
def test_ten_times_the_rate_is_ten_times_the_first_step(model_dir: Path, tmp_path: Path, options: dict[str, Any]):
    options = options | {"epochs": 1, "batch_size": 11}
    one, _ = fit(model_dir, tmp_path / "one", trainable=TwoRates(model_dir, fast=1.0), **options)
    two, _ = fit(model_dir, tmp_path / "two", trainable=TwoRates(model_dir), **options)
    assert "model.embed_tokens.weight" not in two
    slow, fast = (moved(model_dir, weights) for weights in (one, two))
    for name, step in fast.items():
        expected = slow[name] * (RATE if FAST in name else 1.0)
        torch.testing.assert_close(step, expected, rtol=0, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")
        assert expected.abs().max() > 1e-4
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "two/model").state_dict()
    base = AutoModelForCausalLM.from_pretrained(model_dir).state_dict()["model.embed_tokens.weight"]
    assert torch.equal(exported["model.embed_tokens.weight"], base.to(exported["model.embed_tokens.weight"].dtype))


@pytest.mark.parametrize("options", ALONE)
def test_two_groups_go_on_bit_for_bit(model_dir: Path, tmp_path: Path, options: dict[str, Any]):
    whole, resumed = whole_and_resumed(model_dir, tmp_path, trainable=TwoRates(model_dir), **options)
    assert_equal(resumed, whole)


def through_two_ranks(model_dir: Path, out: Path) -> None:
    for name, options in LAYOUTS.items():
        rest = options | {"trainable": TwoRates(model_dir), "micro_batch_tokens": 1}
        whole_resumed = whole_and_resumed(model_dir, out / name, **rest)
        if is_main():
            torch.save(whole_resumed, out / f"{name}.pt")


@pytest.fixture(scope="module")
def two_ranks(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ranks")
    processes = Processes(out / "log", through_two_ranks, model_dir, out, ranks=2)
    assert processes.end(timeout_s=200) == [0, 0], processes.log.read_text()
    return out


@pytest.mark.parametrize("name", LAYOUTS)
def test_two_ranks_do_too_and_end_like_one(two_ranks: Path, model_dir: Path, tmp_path: Path, name: str):
    whole, resumed = torch.load(two_ranks / f"{name}.pt")
    assert_equal(resumed, whole)
    alone, _ = fit(model_dir, tmp_path, trainable=TwoRates(model_dir))
    assert_close(whole, alone, 1e-4)
