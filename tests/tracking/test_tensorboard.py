"""TensorBoard files, read back."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sdx import InputError
from sdx.process.events import Reading
from sdx.store.files import read_rows
from sdx.tracking import Tracker, check
from tests.kit.forks import ROOT
from tests.kit.tracked import config, results, row

GIVEN = "tracking=tensorboard"


def read(directory: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(directory), size_guidance={"tensors": 0})
    found.Reload()
    return found


def test_a_requeued_run_shows_every_step_once(tmp_path: Path):
    for first, last in ((1, 5), (1, 7), (8, 9)):  # after a restart, the loop reports earlier lines again
        with Tracker(config(tmp_path, GIVEN), tmp_path) as tracker:
            for step in range(first, last + 1):
                tracker.trained(row(step))
            tracker.progressed(Reading("answers", last, 10, "rows", 2.5, None))
            tracker.step_done("mix", "k", {"seconds": last, "counts": {}, "config": {}})
    training = read(tmp_path / "tensorboard/train")
    assert set(training.Tags()["scalars"]) == {"train/loss", "train/useful_tokens_per_s"}
    losses = training.Scalars("train/loss")
    assert [point.step for point in losses] == list(range(1, 10))
    assert losses[4].value == 5.0
    rates = read(tmp_path / "tensorboard/progress/answers").Scalars("progress/answers/rows_per_s")
    assert [point.step for point in rates] == [5, 7, 9]
    steps = read(tmp_path / "tensorboard/steps").Scalars("steps/mix_seconds")
    assert [(point.step, point.value) for point in steps] == [(0, 5.0), (1, 7.0), (2, 9.0)]


def test_results_and_tables(tmp_path: Path):
    for score in (40.0, 41.0):
        with Tracker(config(tmp_path, GIVEN), tmp_path) as tracker:
            tracker.finished(results(tmp_path, score=score))
    found = read(tmp_path / "tensorboard/results")
    [point] = found.Scalars("score/t/pt/accuracy/before")
    assert point.value == 41.0
    texts = {tag: found.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in found.Tags()["tensors"]}
    assert {"tables/evaluation/text_summary", "report.md/text_summary", "config/text_summary"} <= set(texts)
    assert "| t |" in texts["tables/evaluation/text_summary"]


def test_a_missing_package_shows_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sdx.tracking.tensorboard.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"tracking=tensorboard .* pip install 'sdx\[tensorboard\]'"):
        check(config(tmp_path, GIVEN).tracking)


def test_no_tracker_loads_wandb_or_torch_before_it_has_to():
    program = (
        "import sys, sdx.tracking, sdx.cli.dashboard; assert not {'wandb', 'torch', 'tensorboard'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=60)


def test_none_shows_nothing(tmp_path: Path):
    with Tracker(config(tmp_path, "tracking=none"), tmp_path) as tracker:
        tracker.trained(row(1))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with Tracker(config(tmp_path, GIVEN), tmp_path) as tracker:
        (tmp_path / "tensorboard").write_text("in the way")
        for step in (1, 2):
            tracker.trained(row(step))
    [warning] = caplog.messages
    assert "tensorboard  off for this run" in warning
    assert "the run goes on" in warning


def test_a_kill_costs_no_point_and_points_keep_their_time(tmp_path: Path):
    tracker = Tracker(config(tmp_path, GIVEN), tmp_path)
    for step in (1, 2, 3):
        tracker.trained(row(step))  # not closed: TensorBoard writes every ten seconds
    with (tmp_path / "tracking.jsonl").open("a") as file:
        file.write('{"axis": "train/step", "st')
    with Tracker(config(tmp_path, GIVEN), tmp_path) as tracker:
        tracker.trained(row(4))
    points = read(tmp_path / "tensorboard/train").Scalars("train/loss")
    assert [point.step for point in points] == [1, 2, 3, 4]
    kept = read_rows(tmp_path / "tracking.jsonl")
    assert [point.wall_time for point in points] == pytest.approx([one["time_s"] for one in kept])
