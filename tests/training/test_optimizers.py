"""AdamW in fp32 and with 8-bit moments, on what DeepSpeed hands it."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from sdx import InputError
from sdx.config import Optimizer, TrainConfig
from sdx.training import optimizers
from tests.kit.training import fit

TRAIN = TrainConfig(batch_size=8, learning_rate=1e-3, weight_decay=0.1)
EIGHT_BIT = TrainConfig(batch_size=8, learning_rate=1e-3, weight_decay=0.1, optimizer=Optimizer.adamw_8bit)
needs_extra = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs the extra 8bit: bitsandbytes")


def walked(train: TrainConfig, steps: int = 30) -> tuple[torch.Tensor, torch.optim.Optimizer]:
    """5,000 weights, a number that no block divides, on their way to 0."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(5000))
    optimizer = optimizers.optimizer([weight], train)
    for _ in range(steps):
        weight.grad = weight.detach() + 0.1 * torch.randn(5000)
        optimizer.step()
    return weight.detach(), optimizer


def test_without_the_extra_8_bits_are_refused_before_anything_is_imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(optimizers, "find_spec", lambda _: None)
    optimizers.check(TRAIN)
    with pytest.raises(InputError, match=r"train.optimizer=adamw_8bit needs bitsandbytes; install it with pip install"):
        optimizers.check(EIGHT_BIT)
    with pytest.raises(InputError, match="needs bitsandbytes"):
        optimizers.check_device(EIGHT_BIT, torch.device("cpu"))


def test_a_device_without_kernels_is_refused(monkeypatch: pytest.MonkeyPatch):
    class Unsupported:
        def step(self) -> None:
            raise RuntimeError("no kernel image\nfor this device")

    monkeypatch.setattr(optimizers, "find_spec", lambda _: True)
    monkeypatch.setattr(optimizers, "optimizer", lambda *_: Unsupported())
    with pytest.raises(InputError, match=r"adamw_8bit does not run on cpu: no kernel image; take"):
        optimizers.check_device(EIGHT_BIT, torch.device("cpu"))
    optimizers.check_device(TRAIN, torch.device("cpu"))


@needs_extra
def test_8_bit_moments_take_a_byte_each_and_walk_with_fp32():
    optimizers.check_device(EIGHT_BIT, torch.device("cpu"))
    (weight, optimizer), (reference, _) = walked(EIGHT_BIT), walked(TRAIN)
    [state] = optimizer.state.values()
    assert [(state[name].dtype, state[name].shape) for name in ("state1", "state2")] == [(torch.uint8, (5000,))] * 2
    start, _ = walked(TRAIN, steps=0)
    moved = (reference - start).abs().mean()
    assert (weight - reference).abs().mean() < 0.05 * moved
    assert not torch.equal(weight, reference)


@needs_extra
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_8_bits_train_like_fp32_at_every_stage(model_dir: Path, tmp_path: Path, stage: int):
    def losses(optimizer: Optimizer) -> list[float]:
        out = tmp_path / optimizer.value
        fit(model_dir, out, zero_stage=stage, optimizer=optimizer, learning_rate=2e-3, epochs=4)
        return [json.loads(line)["loss"] for line in (out / "log.jsonl").open()]

    plain, eight_bit = losses(Optimizer.adamw), losses(Optimizer.adamw_8bit)
    assert plain[-1] < 0.8 * plain[0]
    assert eight_bit == pytest.approx(plain, rel=5e-3)
    assert eight_bit != plain
