"""How a run of a sweep ended, by what it left."""

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sdx.config import Stages
from sdx.process.failure import ERROR
from sdx.sweeps import runs
from sdx.sweeps.runs import SweepRun, judge, named
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
def test_endings(tmp_path: Path, state: str | None, stages: Stages, code: int | None, ended: RunState):
    its = planned(tmp_path, state, stages)
    judge(its, code)
    assert its.state is ended


def test_the_error_is_the_run_s_own_or_another_rank_s_or_what_slurm_knows(tmp_path: Path):
    its = planned(tmp_path, "failed", error="train.learning_rate=9 is too high")
    judge(its, 2)
    assert its.error == "train.learning_rate=9 is too high"
    its = planned(tmp_path, "running")
    judge(its, known="JobState=TIMEOUT")
    assert its.error == "ended without a word (JobState=TIMEOUT)"
    judge(its, known="JobState=CANCELLED Reason=None")
    assert its.state is RunState.interrupted
    judge(its, known="JobState=CANCELLED Reason=DependencyNeverSatisfied")
    assert its.state is RunState.failed
    assert its.error.startswith("the job that makes its data ended without a word")
    judge(its, -9)
    assert its.error == "ended without a word (exit code -9)"
    (tmp_path / ERROR).write_text("Traceback\nrank 3 on n17: OutOfMemoryError: CUDA\n")
    judge(its)
    assert its.error == "rank 3 on n17: OutOfMemoryError: CUDA"
    its = planned(tmp_path / "other", None)
    (tmp_path / "other").mkdir()
    its = planned(tmp_path / "other", "prepared")
    judge(its)
    assert its.error.startswith("its data are there, but the training left the queue before it began")


def test_runs_are_named_by_what_they_do_not_share(tmp_path: Path):
    both = [SweepRun(n, [], ["lang=pt", f"seed={n}", "scale.epochs=2"], OmegaConf.create(), tmp_path) for n in range(2)]
    assert named(both) == ["seed=0", "seed=1"]
    assert named(both[:1]) == ["lang=pt seed=0 scale.epochs=2"]


def test_a_large_sweep_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(runs, "SAY_S", 0.0)
    with caplog.at_level("INFO", "sdx"):
        assert list(runs._told("abc", "checked")) == ["a", "b", "c"]
    assert caplog.messages[-1] == "sweep        2 of 3 runs checked"


def test_what_all_runs_say_is_said_once(caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO", "sdx"):
        with runs._each_message_once():
            for _ in range(3):
                runs.log.info("translator   auto: %s", "English to Portuguese")
        runs.log.info("translator   auto: %s", "English to Portuguese")
    assert len(caplog.messages) == 2
