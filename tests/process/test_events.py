"""What bars and steps tell to whoever watches."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdx.process import progress
from sdx.process.events import Reading, Watcher, watched
from sdx.process.progress import Progress
from sdx.store.step import Workspace
from sdx.store.store import Store
from tests.kit.plain_step import PlainStep


class Ear(Watcher):
    """Notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple] = []
        self.readings: list[Reading] = []

    def step_awaited(self, name, key):
        self.heard.append(("awaited", name, key))

    def step_began(self, name, key, resumed):
        self.heard.append(("began", name, key, resumed))

    def step_done(self, name, key, manifest):
        self.heard.append(("done", name, key, manifest["counts"]))

    def progressed(self, reading):
        self.readings.append(reading)


@pytest.fixture
def ear() -> Iterator[Ear]:
    ear = Ear()
    with watched(ear):
        yield ear


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "TELL_INTERVAL_S", 0.0)


def test_a_bar_tells_how_far_it_is(ear: Ear, at_once: None):
    with Progress("answers", 10, "rows", done=4) as bar:
        time.sleep(0.05)
        bar.update(3)
    first, second, last = ear.readings
    assert first == Reading("answers", 4, 10, "rows", None, None)
    assert (second.done, last.done, last.total) == (7, 7, 10)
    assert 0 < second.rate <= 3 / 0.05  # what was found is not counted
    assert second.eta_s == pytest.approx(3 / second.rate)


def test_a_quick_bar_tells_its_begin_and_its_end(ear: Ear):
    with Progress("to pt", 500, "rows") as bar:
        for _ in range(500):
            bar.update()
    assert [reading.done for reading in ear.readings] == [0, 500]
    assert ear.readings[-1].eta_s == 0


def test_a_bar_that_is_closed_twice_tells_once(ear: Ear, at_once: None):
    bar = Progress("train", 2, "steps")
    bar.update(2)
    bar.close()
    told = len(ear.readings)
    bar.close()
    del bar
    assert len(ear.readings) == told == 3


def test_other_ranks_tell_nothing(ear: Ear, at_once: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    with Progress("answers", 2, "rows") as bar:
        bar.update(2)
    assert ear.readings == []


def test_a_step_tells_that_it_is_made_and_a_cached_one_nothing(ear: Ear, tmp_path: Path):
    def write(workspace: Workspace) -> None:
        (workspace.dir / "out").write_text("x")
        workspace.counts["rows"] = 3

    step = PlainStep("generate", write)
    Store(tmp_path).realise(step)
    Store(tmp_path).realise(step)
    assert ear.heard == [("began", "generate", step.key, False), ("done", "generate", step.key, {"rows": 3})]


def test_a_step_that_another_run_makes_is_awaited(ear: Ear, tmp_path: Path):
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
    assert [words[0] for words in ear.heard] == ["began", "awaited", "done"]


def test_a_step_that_fails_is_not_told_done_and_comes_again_as_resumed(ear: Ear, tmp_path: Path):
    def fail(workspace: Workspace) -> None:
        raise RuntimeError("broken")

    step = PlainStep("generate", fail)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            Store(tmp_path).realise(step)
    assert ear.heard == [("began", "generate", step.key, False), ("began", "generate", step.key, True)]


def test_who_left_hears_nothing_more(at_once: None):
    ear, other = Ear(), Ear()
    with watched(other):
        with pytest.raises(ValueError, match="x"), watched(ear):
            raise ValueError("x")
        Progress("answers", 1, "rows").close()
    assert ear.readings == []
    assert other.readings
