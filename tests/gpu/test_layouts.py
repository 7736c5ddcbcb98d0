"""Every layout of a training, at a 1B shape on a GPU: the losses are equal, the memory is what was planned and comes
back."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from sdx.config import Adapter, Optimizer
from tests.kit.gpu.machine import needs_cuda
from tests.kit.gpu.training import LEFT_BYTES, OPTIONS, STEPS, Trained, train_and_forget

pytestmark = pytest.mark.gpu

OFFLOAD = {"offload_optimizer": True}
CHECKPOINTING = {"activation_checkpointing": True}
LORA = {"adapter": Adapter.lora, "learning_rate": 10 * OPTIONS["learning_rate"]}
EIGHT_BIT = {"optimizer": Optimizer.adamw_8bit}
LAYOUTS: dict[str, dict[str, Any]] = {
    "zero0": {"zero_stage": 0},
    "zero1": {"zero_stage": 1},
    "zero2": {"zero_stage": 2},
    "zero3": {"zero_stage": 3},
    "checkpointing": {"zero_stage": 0, **CHECKPOINTING},
    "zero2_offload": {"zero_stage": 2, **OFFLOAD, **CHECKPOINTING},
    "zero3_offload": {"zero_stage": 3, **OFFLOAD, **CHECKPOINTING},
    "lora": {"zero_stage": 0, **LORA},
    "lora_zero3": {"zero_stage": 3, **LORA, **CHECKPOINTING},
    "8bit": {"zero_stage": 0, **EIGHT_BIT},
    "8bit_zero2": {"zero_stage": 2, **EIGHT_BIT},
}
ROUNDING = 0.002
"""Relative difference of a loss: bf16 rounds a micro-batch's gradients, and a GPU adds them up in any order."""
LEARNED = 0.003
"""Share of its loss that a training loses at least, or layouts could not be told apart."""
EIGHT_BIT_ROUNDING = 0.01
"""Of 8-bit moments to fp32 ones, after a few steps."""

every_layout = pytest.mark.parametrize("name", LAYOUTS)


@pytest.fixture(scope="module")
def trained(llama: Path, space: Path, figures: dict[str, float]) -> Callable[[str], Trained]:
    """Each layout is trained once."""
    done: dict[str, Trained] = {}

    def of(name: str) -> Trained:
        if LAYOUTS[name].get("optimizer") and not find_spec("bitsandbytes"):
            pytest.skip("needs the extra 8bit: bitsandbytes")
        if name not in done:
            done[name] = train_and_forget(llama, space / name, **LAYOUTS[name])
            figures[f"{name}_peak_bytes"] = done[name].peak_bytes
            figures[f"{name}_estimate_bytes"] = done[name].estimate_bytes
        return done[name]

    return of


@every_layout
def test_losses_are_those_of_the_plain_layout(trained: Callable[[str], Trained], name: str):
    plain = trained("lora" if "lora" in name else "zero0").losses
    assert len(plain) == STEPS
    assert plain[-1] < plain[0] * (1 - LEARNED), "it learned too little"
    tolerance = EIGHT_BIT_ROUNDING if "8bit" in name else ROUNDING
    assert trained(name).losses == pytest.approx(plain, rel=tolerance)


@needs_cuda
@every_layout
def test_the_peak_is_at_most_the_estimate(trained: Callable[[str], Trained], name: str):
    result = trained(name)
    assert result.peak_bytes <= result.estimate_bytes


@needs_cuda
@every_layout
def test_the_memory_comes_back(trained: Callable[[str], Trained], name: str):
    assert trained(name).left_bytes <= LEFT_BYTES
