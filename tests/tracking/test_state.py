"""state.json of a run: its content during the run, and after each way to end."""

import errno
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timezone
from logging import FileHandler, getLogger
from pathlib import Path
from typing import Any

import pytest

from sdx import InputError
from sdx.process import events
from sdx.process.failure import ERROR
from sdx.process.preemption import Preempted
from sdx.process.progress import Progress
from sdx.store.store import Store
from sdx.tracking import state
from sdx.tracking.state import STATE, Record, RunState, StateFile, describe, read_state
from tests.kit.plain_step import PlainStep


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(state, "PROGRESS_S", 0.01)


def until(run_dir: Path, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Waits for a state that `holds`, because a thread writes the file."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found = read_state(run_dir)
        if found and holds(found):
            return found
        time.sleep(0.01)
    raise AssertionError(found)


def test_a_run_writes_its_step_and_its_progress(tmp_path: Path, fast: None):
    with StateFile(tmp_path) as run:
        run.set_total(3)
        began = until(tmp_path, lambda found: found["steps_total"] == 3)
        assert (began["state"], began["steps_done"], began["steps_total"]) == (RunState.running, 0, 3)
        assert (began["pid"], began["job"], began["restarts"], began["error"]) == (os.getpid(), None, 0, None)
        run.step_finished()  # found in the cache
        events.step_awaited("translate", "0123")
        until(tmp_path, lambda found: found["stage"] == "translate: another run makes it" and found["key"] == "0123")
        events.step_began("translate", "0123", False)
        found = until(tmp_path, lambda found: found["stage"] == "translate")
        assert (found["key"], found["steps_done"], found["done"]) == ("0123", 1, None)
        events.progressed(events.Reading("to pt", 120, 600, "rows", 3.0, 160.0))
        found = until(tmp_path, lambda found: found["done"] == 120)
        assert found["stage"] == "translate: to pt"
        assert [found[name] for name in ("total", "unit", "rate", "eta_s")] == [600, "rows", 3.0, 160.0]
        events.step_done("translate", "0123", {})
        run.step_finished()
        found = until(tmp_path, lambda found: found["steps_done"] == 2)
        assert (found["stage"], found["key"], found["done"], found["rate"]) == (None, None, None, None)
        events.step_began("train", "4567", False)
        events.progressed(events.Reading("train", 1, 5, "steps", None, None))
        until(tmp_path, lambda found: found["stage"] == "train")
    ended = read_state(tmp_path)
    assert (ended["state"], ended["stage"], ended["error"]) == (RunState.done, None, None)
    assert [path.name for path in tmp_path.iterdir()] == [STATE]
    events.step_began("train", "4567", False)  # after the block, nothing is written
    assert read_state(tmp_path) == ended


def test_real_steps_and_bars_are_written(tmp_path: Path, fast: None):
    def run(workspace):
        with Progress("answers", 4, "rows") as bar:
            bar.update(4)
        seen.append(until(tmp_path, lambda found: found["done"] == 4))

    seen: list[dict[str, Any]] = []
    step = PlainStep("generate", run)
    with StateFile(tmp_path):
        Store(tmp_path / "cache").realise(step)
    assert (seen[0]["stage"], seen[0]["key"]) == ("generate: answers", step.key)


def test_a_silent_stage_has_a_heartbeat(tmp_path: Path, fast: None):
    with StateFile(tmp_path):
        first = read_state(tmp_path)["beat"]
        until(tmp_path, lambda found: found["beat"] >= first + 2)


def test_progress_is_written_at_most_every_two_seconds(tmp_path: Path):
    with StateFile(tmp_path):
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            events.progressed(events.Reading("to pt", 1, 2, "rows", None, None))
            time.sleep(0.001)
        assert read_state(tmp_path)["beat"] <= 2
    assert read_state(tmp_path)["state"] is RunState.done  # the end does not wait


@pytest.mark.parametrize(
    ("error", "ended", "line"),
    [
        (ValueError("bad\n  thing"), RunState.failed, "ValueError: bad thing"),
        (MemoryError(), RunState.failed, "MemoryError"),
        (InputError("seed=x is bad; give a number"), RunState.failed, "seed=x is bad; give a number"),
        (SystemExit(3), RunState.failed, "SystemExit: 3"),
        (SystemExit(0), RunState.failed, "SystemExit: 0"),
        (Preempted(10, "step 4"), RunState.interrupted, "stopped by SIGUSR1; the same command goes on from step 4"),
        (KeyboardInterrupt(), RunState.interrupted, "Ctrl-C"),
    ],
)
def test_each_way_to_end(tmp_path: Path, error: BaseException, ended: RunState, line: str):
    def train() -> None:
        with StateFile(tmp_path):
            events.step_began("train", "4567", False)
            raise error

    with pytest.raises(type(error)):
        train()
    found = read_state(tmp_path)
    assert (found["state"], found["error"]) == (ended, line)
    assert (found["stage"], found["steps_done"]) == ("train", 0)  # the step that failed
    assert (tmp_path / ERROR).exists() == (ended is RunState.failed)


def test_the_traceback_stays_until_the_run_starts_again(tmp_path: Path):
    with pytest.raises(ValueError, match="bad"), StateFile(tmp_path):
        raise ValueError("bad")
    assert "Traceback" in (tmp_path / ERROR).read_text()
    assert "test_state.py" in (tmp_path / ERROR).read_text()
    (tmp_path / f".{STATE}.999").write_text("torn")
    with StateFile(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [STATE]
        assert read_state(tmp_path)["error"] is None


def test_a_directory_that_is_gone_stops_nothing(tmp_path: Path, fast: None, caplog: pytest.LogCaptureFixture):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    with StateFile(run_dir) as run:
        (run_dir / STATE).unlink()
        for torn in run_dir.iterdir():
            torn.unlink()
        run_dir.rename(tmp_path / "away")
        for _ in range(5):
            run.step_finished()
            time.sleep(0.05)
    assert not run_dir.exists()
    assert len([record for record in caplog.records if "cannot be written" in record.message]) == 1


def test_a_full_disk_stops_nothing_and_the_end_is_written(
    tmp_path: Path, fast: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def full(path, value):
        raise OSError(errno.ENOSPC, "No space left on device")

    def run() -> None:
        with StateFile(tmp_path) as run:
            events.step_began("train", "4567" * 999, False)  # longer than the last state
            until(tmp_path, lambda found: found["stage"] == "train")
            monkeypatch.setattr(state, "write_json", full)
            run.step_finished()
            time.sleep(0.2)
            assert read_state(tmp_path)["steps_done"] == 0  # the old state, whole
            full(None, None)

    with pytest.raises(OSError, match="No space"):
        run()
    found = read_state(tmp_path)
    assert (found["state"], found["steps_done"]) == (RunState.failed, 1)
    assert found["error"] == "OSError: [Errno 28] No space left on device"
    assert len([record for record in caplog.records if "cannot be written" in record.message]) == 1


def test_the_error_of_the_run_is_the_one_that_leaves(tmp_path: Path):
    """Neither file can be written; nothing hides what happened."""
    with pytest.raises(ValueError, match="the real one"), StateFile(tmp_path / "nowhere"):
        raise ValueError("the real one")


def test_other_ranks_write_nothing_but_their_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    with StateFile(tmp_path) as run:
        run.step_finished()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="bad"), StateFile(tmp_path):
        raise ValueError("bad")
    assert [path.name for path in tmp_path.iterdir()] == [ERROR]


@pytest.mark.parametrize(
    ("environment", "job", "restarts"),
    [
        ({"SLURM_JOB_ID": "17"}, "17", 0),
        (
            {
                "SLURM_JOB_ID": "20",
                "SLURM_ARRAY_JOB_ID": "17",
                "SLURM_ARRAY_TASK_ID": "3",
                "SLURM_RESTART_COUNT": "2",
            },
            "17_3",
            2,
        ),
    ],
)
def test_the_job_of_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], job: str, restarts: int
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with StateFile(tmp_path):
        pass
    found = read_state(tmp_path)
    assert (found["job"], found["restarts"]) == (job, restarts)


def test_the_log_file_is_named(tmp_path: Path):
    handler = FileHandler(tmp_path / "sdx.log")
    getLogger().addHandler(handler)
    try:
        with StateFile(tmp_path):
            assert read_state(tmp_path)["log"] == str(tmp_path / "sdx.log")
    finally:
        getLogger().removeHandler(handler)
        handler.close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"state": "runn',
        "[]",
        "{}",
        '{"state": "asleep"}',
        '{"state": ["running"]}',
        '{"state": "running", "pid": "me"}',
        '{"state": "running", "done": "many"}',
        "\udcff",
    ],
)
def test_a_foreign_file_is_none(tmp_path: Path, text: str):
    (tmp_path / STATE).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert read_state(tmp_path) is None


def test_no_file_is_none_and_an_older_file_gets_defaults(tmp_path: Path):
    assert read_state(tmp_path) is None
    assert read_state(tmp_path / "nowhere") is None
    (tmp_path / STATE).write_text('{"state": "failed", "of_a_newer_sdx": 1}')
    assert read_state(tmp_path) == asdict(Record(RunState.failed))


def test_what_is_written_is_what_is_read(tmp_path: Path):
    with StateFile(tmp_path):
        pass
    written = json.loads((tmp_path / STATE).read_text())
    assert written == read_state(tmp_path)
    assert set(written) == set(Record.__dataclass_fields__)
    now = datetime.now(timezone.utc)
    for name in ("started", "updated"):
        assert abs((now - datetime.fromisoformat(written[name])).total_seconds()) < 60


def test_in_words():
    record = Record(
        RunState.running, stage="translate: to pt", done=1204, total=5000, unit="rows", rate=3.14, eta_s=1209.0,
        steps_done=4, steps_total=11,
    )  # fmt: skip
    assert describe(asdict(record), 4.0) == {
        "stage": "translate: to pt",
        "steps": "4/11",
        "progress": "1,204/5,000 rows",
        "rate": "3.1/s",
        "ETA": "20 min",
        "updated": "4 s",
    }
    silent = describe(asdict(Record(RunState.running)), None)
    assert [silent[name] for name in ("stage", "progress", "rate", "ETA", "updated")] == ["", "", "", "", "?"]
    assert describe(asdict(record), -3600.0)["updated"] == "?"  # a clock jumped
    assert describe(asdict(record), 0.0)["updated"] == "1 s"
