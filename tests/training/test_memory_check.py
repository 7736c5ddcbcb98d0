"""A micro-batch that does not fit the memory is halved, and the result is that of an undisturbed training.

A CPU does not raise an error when its memory is full: a forward pass raises CUDA's instead.
"""

import time
from contextlib import contextmanager

import pytest
import torch

from sdx import InputError
from sdx.config import Adapter, Precision
from sdx.process.ranks import rank
from sdx.training import checkpoints, loop, memory_check
from sdx.training.engine import Trained
from sdx.training.memory import Layout
from sdx.training.memory_check import halved, largest_batch
from tests.kit.processes import Processes
from tests.kit.training import alive, assert_close, examples, fit, losses, rows_of

LAYOUTS = [
    {"zero_stage": 0},
    {"zero_stage": 1, "precision": Precision.bf16, "adapter": Adapter.lora, "lora_dropout": 0.1},
    {"zero_stage": 2, "offload_optimizer": True},
    {"zero_stage": 3, "activation_checkpointing": True},
]
ROOM = 45
"""Tokens that fit the pretended memory; the longest example has 24."""


@contextmanager
def memory(most: float, device: str = "cpu", from_step: int = 0):
    """A device on which a forward pass over more tokens fails.

    Args:
        from_step: number of micro-batches that succeed, whatever their size.
    """
    forward, kinds = Trained.forward, memory_check.CAN_RUN_OUT
    passes = []

    def limited(self, compute, batch):
        passes.append(1)
        if torch.is_grad_enabled() and len(passes) > from_step and batch["inputs"]["input_ids"].numel() > most:
            raise torch.OutOfMemoryError("stands for a full GPU")
        return forward(self, compute, batch)

    Trained.forward, memory_check.CAN_RUN_OUT = limited, {device}
    try:
        yield
    finally:
        Trained.forward, memory_check.CAN_RUN_OUT = forward, kinds


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_check_leaves_no_trace(model_dir, tmp_path, layout):
    plain, _ = fit(model_dir, tmp_path / "plain", **layout)
    with memory(most=1000):
        checked, _ = fit(model_dir, tmp_path / "checked", **layout)
    assert_close(checked, plain, 0.0)
    assert losses(tmp_path / "checked") == losses(tmp_path / "plain")


def test_a_micro_batch_that_does_not_fit_is_halved(model_dir, tmp_path, caplog, monkeypatch):
    def build_and_see(*given):
        engines.append(alive()[0])
        return build(*given)

    engines: list[int] = []
    build = loop.build
    plain, _ = fit(model_dir, tmp_path / "plain", micro_batch_tokens=ROOM)
    monkeypatch.setattr(loop, "build", build_and_see)
    with memory(ROOM):
        ours, _ = fit(model_dir, tmp_path / "halved", micro_batch_tokens=4 * ROOM)
    assert [line for line in caplog.messages if "do not fit" in line] == [
        "engine       packs of 180 tokens do not fit the GPU's memory; going on with 90",
        "engine       packs of 90 tokens do not fit the GPU's memory; going on with 45",
    ]
    assert engines == [0, 0, 0]  # the engine before is freed
    assert_close(ours, plain, 0.0)


def test_memory_that_runs_out_later_costs_the_steps_since_the_last_checkpoint(model_dir, tmp_path):
    plain, _ = fit(model_dir, tmp_path / "plain", micro_batch_tokens=ROOM)
    with memory(ROOM, device="none", from_step=6):  # three passes to try packs, one of the objective, 2 micro-batches
        ours, summary = fit(model_dir, tmp_path / "later", micro_batch_tokens=2 * ROOM, save_every_steps=1)
    assert summary["steps"] == 4
    assert [row["step"] for row in rows_of(tmp_path / "later")] == [1, 2, 3, 4]
    assert_close(ours, plain, 1e-6)


def test_an_example_that_does_not_fit_by_itself_is_an_error_with_fixes(model_dir, tmp_path):
    with (
        memory(10),
        pytest.raises(InputError, match=r"longest training example, 24 tokens, .* scale.max_length_tokens"),
    ):
        fit(model_dir, tmp_path, micro_batch_tokens=40)


def test_a_model_that_does_not_fit_is_an_error_that_does_not_speak_of_examples(model_dir, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("stands for a full GPU")

    monkeypatch.setattr(checkpoints, "restore", full)
    with pytest.raises(InputError, match=r"the model and its optimizer do not fit .* engine.zero_stage=0 .*lora"):
        fit(model_dir, tmp_path)


def on_two_ranks(model_dir, out, most, stage):
    with memory(most[rank()]):
        fit(model_dir, out, zero_stage=stage, micro_batch_tokens=2 * ROOM)


def test_the_memory_of_one_rank_halves_the_micro_batch_of_all(model_dir, tmp_path):
    processes = Processes(tmp_path / "log", on_two_ranks, model_dir, tmp_path / "run", (1000, ROOM), 1, ranks=2)
    assert processes.end() == [0, 0], processes.log.read_text()
    fit(model_dir, tmp_path / "plain")
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)


def test_ranks_that_share_weights_are_told_what_fits(model_dir, tmp_path):
    processes = Processes(tmp_path / "log", on_two_ranks, model_dir, tmp_path / "run", (10, 10), 3, ranks=2)
    assert 0 not in processes.end()
    assert "ran out of GPU memory with packs of 90 tokens; with engine.micro_batch_tokens=45" in (
        processes.log.read_text()
    )


def stuck_on_two_ranks(model_dir, out):
    """Rank 0 has enough memory, and waits for rank 1 as in a collective of stage 3."""
    memory_check.STUCK_S = 0.5
    forward = Trained.forward
    if rank() == 0:
        Trained.forward = lambda *given: (torch.is_grad_enabled() and time.sleep(2), forward(*given))[1]
    with memory(ROOM if rank() == 1 else 1000):
        fit(model_dir, out, zero_stage=1, micro_batch_tokens=2 * ROOM)


def test_a_rank_does_not_wait_for_others_that_wait_for_it(model_dir, tmp_path):
    processes = Processes(tmp_path / "log", stuck_on_two_ranks, model_dir, tmp_path / "run", ranks=2)
    assert 0 not in processes.end()
    assert "rank 1 ran out of GPU memory with packs of 90 tokens; with engine.micro_batch_tokens=45" in (
        processes.log.read_text()
    )


def test_the_largest_micro_batch_has_the_longest_examples():
    assert largest_batch([5, 9, 3, 7], 16, packed=True) == [1, 3]
    assert largest_batch([5, 9, 3, 7], 15, packed=True) == [1, 0]  # no space for 7
    assert largest_batch([5, 9, 3, 7], 4, packed=True) == [1]
    assert largest_batch([5, 9, 3, 7], 18, packed=False) == [1, 3]
    assert largest_batch([5, 9, 3, 7], 15, packed=False) == [3, 0]  # 2 x 7 and not 1 x 9
    assert largest_batch([5, 9, 3, 7], 4, packed=False) == [1]
    assert largest_batch([5, 9], 100, packed=True) == [1, 0]
    lengths = [len(one.input_ids) for one in examples()]
    assert max(lengths) == 24


def test_half_a_micro_batch_still_holds_the_longest_example():
    assert halved(Layout(micro_batch_tokens=100), 20).micro_batch_tokens == 50
    assert halved(Layout(micro_batch_tokens=100), 70).micro_batch_tokens == 70
    with pytest.raises(InputError, match="70 tokens"):
        halved(Layout(micro_batch_tokens=1), 70)
