"""Real signals to real trainings: each finishes its step, saves it and leaves, and the next resumes from there."""

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sdx.process.preemption import SIGNALS, Preempted, Preemption
from tests.kit.processes import go_on, interrupt
from tests.kit.training import assert_equal, checkpoints_of, steps_of

OPTIONS: dict[str, Any] = {"epochs": 2, "save_every_steps": 100}
STEPS = 4


def assert_same_model(out: Path, whole: Path) -> None:
    assert_equal(load_file(out / "model/model.safetensors"), load_file(whole / "model/model.safetensors"))
    assert steps_of(out) == list(range(1, STEPS + 1))
    assert not (out / "checkpoints").exists()


@pytest.fixture(scope="module")
def whole(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed training."""
    out = tmp_path_factory.mktemp("whole") / "run"
    go_on(model_dir, out, OPTIONS)
    return out


@pytest.mark.parametrize("number", SIGNALS)
def test_finishes_the_step_keeps_it_and_leaves(model_dir: Path, tmp_path: Path, whole: Path, number: signal.Signals):
    out = tmp_path / "run"
    said = interrupt(model_dir, out, "step 2", number, OPTIONS)
    assert f"stopped by {number.name}; the same command goes on from step 2" in said
    assert steps_of(out) == [1, 2]
    assert checkpoints_of(out) == ["step_2"]
    go_on(model_dir, out, OPTIONS)
    assert_same_model(out, whole)


def test_finishes_the_checkpoint_that_is_being_written_and_takes_no_other_step(
    model_dir: Path, tmp_path: Path, whole: Path
):
    out = tmp_path / "run"
    options = OPTIONS | {"save_every_steps": 2}
    assert "from step 2" in interrupt(model_dir, out, "save 2", signal.SIGTERM, options)
    assert steps_of(out) == [1, 2]
    assert checkpoints_of(out) == ["step_2"]
    go_on(model_dir, out, options)
    assert_same_model(out, whole)


def test_the_last_step_is_kept_too(model_dir: Path, tmp_path: Path, whole: Path):
    out = tmp_path / "run"
    assert f"from step {STEPS}" in interrupt(model_dir, out, f"step {STEPS}", signal.SIGUSR2, OPTIONS)
    assert checkpoints_of(out) == [f"step_{STEPS}"]
    assert not (out / "model").exists()
    go_on(model_dir, out, OPTIONS)
    assert_same_model(out, whole)


def test_finishes_the_export_and_trains_nothing_again(model_dir: Path, tmp_path: Path, whole: Path):
    out = tmp_path / "run"
    assert "from the trained model" in interrupt(model_dir, out, "export", signal.SIGTERM, OPTIONS)
    logged = (out / "log.jsonl").read_text()
    go_on(model_dir, out, OPTIONS)
    assert_same_model(out, whole)
    assert (out / "log.jsonl").read_text() == logged


def test_a_signal_to_one_rank_stops_both(model_dir: Path, tmp_path: Path, whole: Path):
    """If rank 1 has answered for the step before the signal, the ranks leave one step later."""
    out = tmp_path / "run"
    options = OPTIONS | {"zero_stage": 2}
    said = interrupt(model_dir, out, "step 2", signal.SIGUSR2, options, ranks=2, rank=1)
    (kept,) = checkpoints_of(out)
    assert kept in ("step_2", "step_3")
    assert said.count(f"stopped by SIGUSR2; the same command goes on from {kept.replace('_', ' ')}") == 2
    go_on(model_dir, out, OPTIONS)  # on one rank
    ours, theirs = (load_file(run / "model/model.safetensors") for run in (out, whole))
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=2**-7, atol=1e-5)  # the export rounds to bf16


def test_says_what_asked_and_leaves_signals_as_they_were():
    heard: list[int] = []
    previous = [signal.signal(number, lambda number, _frame: heard.append(number)) for number in SIGNALS]
    handlers = [signal.getsignal(number) for number in SIGNALS]
    try:
        with suppress(Preempted), Preemption() as preemption:
            assert not preemption.requested()
            signal.raise_signal(signal.SIGUSR2)
            signal.raise_signal(signal.SIGTERM)
            assert preemption.requested()
            left = preemption.leave("step 7")
            raise left
        assert str(left) == "stopped by SIGUSR2; the same command goes on from step 7"
        assert left.code == os.EX_TEMPFAIL
        assert not isinstance(left, Exception)
        assert [signal.getsignal(number) for number in SIGNALS] == handlers
        assert heard == []
        with Preemption():
            signal.raise_signal(signal.SIGTERM)  # after the last question
            assert heard == []
        assert heard == [signal.SIGTERM]
    finally:
        for number, handler in zip(SIGNALS, previous, strict=True):
            signal.signal(number, handler)


def test_outside_of_the_main_thread_nothing_is_touched():
    handlers = [signal.getsignal(number) for number in SIGNALS]
    seen: list[Any] = []

    def work() -> None:
        with Preemption() as preemption:
            seen.extend([signal.getsignal(number) for number in SIGNALS])
            seen.append(preemption.requested())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [*handlers, False]
