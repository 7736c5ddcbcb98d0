"""How a cell of a sweep ended, by what it left."""

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sdx.config import Stages
from sdx.process.failure import ERROR
from sdx.sweeps import cells
from sdx.sweeps.cells import Ending, SweepCell, judge, named
from tests.kit.sweep_cell import cell


@pytest.mark.parametrize(
    ("state", "stages", "code", "ending"),
    [
        ("done", Stages.all, 0, Ending.done),
        ("done", Stages.all, None, Ending.done),
        ("done", Stages.all, -9, Ending.failed),
        ("prepared", Stages.prepare, 0, Ending.done),
        ("prepared", Stages.all, None, Ending.failed),
        ("interrupted", Stages.all, None, Ending.interrupted),
        ("running", Stages.all, os.EX_TEMPFAIL, Ending.interrupted),
        ("running", Stages.all, None, Ending.failed),
        (None, Stages.all, 1, Ending.failed),
    ],
)
def test_endings(tmp_path: Path, state: str | None, stages: Stages, code: int | None, ending: Ending):
    its = cell(tmp_path, state, stages)
    judge(its, code)
    assert its.ending is ending


def test_the_error_is_the_cell_s_own_or_another_rank_s_or_what_slurm_knows(tmp_path: Path):
    its = cell(tmp_path, "failed", error="train.learning_rate=9 is too high")
    judge(its, 2)
    assert its.error == "train.learning_rate=9 is too high"
    its = cell(tmp_path, "running")
    judge(its, known="JobState=TIMEOUT")
    assert its.error == "ended without a word (JobState=TIMEOUT)"
    judge(its, known="JobState=CANCELLED Reason=None")
    assert its.ending is Ending.interrupted
    judge(its, known="JobState=CANCELLED Reason=DependencyNeverSatisfied")
    assert its.ending is Ending.failed
    assert its.error.startswith("the job that makes its data ended without a word")
    judge(its, -9)
    assert its.error == "ended without a word (exit code -9)"
    (tmp_path / ERROR).write_text("Traceback\nrank 3 on n17: OutOfMemoryError: CUDA\n")
    judge(its)
    assert its.error == "rank 3 on n17: OutOfMemoryError: CUDA"
    its = cell(tmp_path / "other", None)
    (tmp_path / "other").mkdir()
    its = cell(tmp_path / "other", "prepared")
    judge(its)
    assert its.error.startswith("its data are there, but the training left the queue before it began")


def test_cells_are_named_by_what_they_do_not_share(tmp_path: Path):
    both = [
        SweepCell(n, [], ["lang=pt", f"seed={n}", "scale.epochs=2"], OmegaConf.create(), tmp_path) for n in range(2)
    ]
    assert named(both) == ["seed=0", "seed=1"]
    assert named(both[:1]) == ["lang=pt seed=0 scale.epochs=2"]


def test_a_large_sweep_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(cells, "SAY_S", 0.0)
    with caplog.at_level("INFO", "sdx"):
        assert list(cells._told("abc", "checked")) == ["a", "b", "c"]
    assert caplog.messages[-1] == "sweep        2 of 3 cells checked"


def test_what_all_cells_say_is_said_once(caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO", "sdx"):
        with cells._each_message_once():
            for _ in range(3):
                cells.log.info("translator   auto: %s", "English to Portuguese")
        cells.log.info("translator   auto: %s", "English to Portuguese")
    assert len(caplog.messages) == 2
