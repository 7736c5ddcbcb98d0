"""The outcome of a run of a sweep, by the files that it left."""

import os
from pathlib import Path

import pytest

from sdx.config import Stages
from sdx.process.failure import ERROR
from sdx.sweeps import runs
from sdx.sweeps.runs import labels, set_outcome
from sdx.tracking.state import RunState
from tests.kit.sweep_run import planned


@pytest.mark.parametrize(
    ("state", "stages", "code", "ended"),
    [
        ("done", Stages.all, 0, RunState.done),
        ("done", Stages.all, None, RunState.done),
        ("done", Stages.all, -9, RunState.failed),
        ("prepared", Stages.prepare, 0, RunState.done),
        ("prepared", Stages.all, None, RunState.failed),
        ("interrupted", Stages.all, None, RunState.interrupted),
        ("running", Stages.all, os.EX_TEMPFAIL, RunState.interrupted),
        ("running", Stages.all, None, RunState.failed),
        (None, Stages.all, 1, RunState.failed),
    ],
)
def test_outcomes(tmp_path: Path, state: str | None, stages: Stages, code: int | None, ended: RunState):
    run = planned(tmp_path, state, stages)
    set_outcome(run, code)
    assert run.state is ended


def test_the_error_is_the_run_s_own_or_another_rank_s_or_what_slurm_knows(tmp_path: Path):
    run = planned(tmp_path, "failed", error="train.learning_rate=9 is too high")
    set_outcome(run, 2)
    assert run.error == "train.learning_rate=9 is too high"
    run = planned(tmp_path, "running")
    set_outcome(run, job_end="JobState=TIMEOUT")
    assert run.error == "ended without an error message (JobState=TIMEOUT)"
    set_outcome(run, job_end="JobState=CANCELLED Reason=None")
    assert run.state is RunState.interrupted
    set_outcome(run, job_end="JobState=CANCELLED Reason=DependencyNeverSatisfied")
    assert run.state is RunState.failed
    assert run.error.startswith("the job that makes its data ended without an error message")
    set_outcome(run, -9)
    assert run.error == "ended without an error message (exit code -9)"
    (tmp_path / ERROR).write_text("Traceback\nrank 3 on n17: OutOfMemoryError: CUDA\n")
    set_outcome(run)
    assert run.error == "rank 3 on n17: OutOfMemoryError: CUDA"
    run = planned(tmp_path / "other", None)
    (tmp_path / "other").mkdir()
    run = planned(tmp_path / "other", "prepared")
    set_outcome(run)
    assert run.error.startswith("its data are there, but the training left the queue before it began")


def test_runs_are_labelled_by_what_they_do_not_share(tmp_path: Path):
    both = [["lang=pt", f"seed={n}", "scale.epochs=2"] for n in range(2)]
    assert labels(both) == ["seed=0", "seed=1"]
    assert labels(both[:1]) == ["lang=pt seed=0 scale.epochs=2"]


def test_a_message_that_all_runs_log_appears_once(caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO", "sdx"):
        with runs._each_message_once():
            for _ in range(3):
                runs.log.info("translator   auto: %s", "English to Portuguese")
        runs.log.info("translator   auto: %s", "English to Portuguese")
    assert len(caplog.messages) == 2
