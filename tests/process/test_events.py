"""What progress bars and steps report to listeners."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdx.process import progress
from sdx.process.events import Listener, Reading, subscribed
from sdx.process.progress import Progress
from sdx.store.step import Workspace
from sdx.store.store import Store
from tests.kit.plain_step import PlainStep


class Notes(Listener):
    """Notes the events that are reported."""

    def __init__(self) -> None:
        self.events: list[tuple] = []
        self.readings: list[Reading] = []

    def step_awaited(self, name, key):
        self.events.append(("awaited", name, key))

    def step_began(self, name, key, resumed):
        self.events.append(("began", name, key, resumed))

    def step_done(self, name, key, manifest):
        self.events.append(("done", name, key, manifest["counts"]))

    def progressed(self, reading):
        self.readings.append(reading)


@pytest.fixture
def notes() -> Iterator[Notes]:
    notes = Notes()
    with subscribed(notes):
        yield notes


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REPORT_INTERVAL_S", 0.0)


def test_a_bar_reports_its_progress(notes: Notes, at_once: None):
    with Progress("answers", 10, "rows", done=4) as bar:
        time.sleep(0.05)
        bar.update(3)
    first, second, last = notes.readings
    assert first == Reading("answers", 4, 10, "rows", None, None)
    assert (second.done, last.done, last.total) == (7, 7, 10)
    assert 0 < second.rate <= 3 / 0.05  # the rows found at the start do not count
    assert second.eta_s == pytest.approx(3 / second.rate)


def test_a_quick_bar_reports_its_start_and_its_end(notes: Notes):
    with Progress("to pt", 500, "rows") as bar:
        for _ in range(500):
            bar.update()
    assert [reading.done for reading in notes.readings] == [0, 500]
    assert notes.readings[-1].eta_s == 0


def test_a_bar_that_is_closed_twice_reports_once(notes: Notes, at_once: None):
    bar = Progress("train", 2, "steps")
    bar.update(2)
    bar.close()
    reported = len(notes.readings)
    bar.close()
    del bar
    assert len(notes.readings) == reported == 3


def test_other_ranks_report_nothing(notes: Notes, at_once: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    with Progress("answers", 2, "rows") as bar:
        bar.update(2)
    assert notes.readings == []


def test_a_step_that_is_made_is_reported_and_a_cached_one_is_not(notes: Notes, tmp_path: Path):
    def write(workspace: Workspace) -> None:
        (workspace.dir / "out").write_text("x")
        workspace.counts["rows"] = 3

    step = PlainStep("generate", write)
    Store(tmp_path).realise(step)
    Store(tmp_path).realise(step)
    assert notes.events == [("began", "generate", step.key, False), ("done", "generate", step.key, {"rows": 3})]


def test_a_step_that_another_run_makes_is_awaited(notes: Notes, tmp_path: Path):
    begun, go_on = threading.Event(), threading.Event()

    def slow(workspace: Workspace) -> None:
        begun.set()
        go_on.wait(20)

    step = PlainStep("mix", slow)
    other = threading.Thread(target=Store(tmp_path).realise, args=(step,))
    other.start()
    begun.wait(20)
    threading.Timer(0.2, go_on.set).start()
    Store(tmp_path).realise(step)
    other.join()
    assert [event[0] for event in notes.events] == ["began", "awaited", "done"]


def test_a_step_that_fails_is_not_reported_as_done_and_begins_again_as_resumed(notes: Notes, tmp_path: Path):
    def fail(workspace: Workspace) -> None:
        raise RuntimeError("broken")

    step = PlainStep("generate", fail)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            Store(tmp_path).realise(step)
    assert notes.events == [("began", "generate", step.key, False), ("began", "generate", step.key, True)]


def test_after_the_block_nothing_is_reported(at_once: None):
    left, other = Notes(), Notes()
    with subscribed(other):
        with pytest.raises(ValueError, match="x"), subscribed(left):
            raise ValueError("x")
        Progress("answers", 1, "rows").close()
    assert left.readings == []
    assert other.readings
