"""What a run is doing, told to whoever shows it: the state file, the dashboards. Rank 0 alone tells."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reading:
    """How far a long stage has come."""

    stage: str
    """As the progress bar calls it."""
    done: int
    total: int
    unit: str
    """Of `done` and `total`: rows, steps, prompts, texts."""
    rate: float | None
    """Units a second in this process; none before the first."""
    eta_s: float | None
    """Seconds that the rest takes at this rate."""


class Watcher:
    """Overrides what it wants to hear. It must not raise: nobody fails because of what watches."""

    def step_awaited(self, name: str, key: str) -> None:
        """Another run makes a step of the store that this one needs."""

    def step_began(self, name: str, key: str, resumed: bool) -> None:
        """A step of the store is being made."""

    def step_done(self, name: str, key: str, manifest: Mapping[str, Any]) -> None:
        """It is published. Cached ones are not told."""

    def progressed(self, reading: Reading) -> None:
        """At most once a second, and when the stage ends."""

    def trained(self, row: Mapping[str, Any], stage: str = "") -> None:
        """A line of a training's log. After an interruption, lines told before may come again.

        Args:
            stage: which of a run's trainings it is, where there are several.
        """

    def finished(self, results: Mapping[str, Any]) -> None:
        """The run has its results, as in results.json, and all its other files."""


_watchers: list[Watcher] = []


@contextmanager
def watched(*watchers: Watcher) -> Iterator[None]:
    """While inside, they hear what happens."""
    _watchers.extend(watchers)
    try:
        yield
    finally:
        for watcher in watchers:
            _watchers.remove(watcher)


def step_awaited(name: str, key: str) -> None:
    for watcher in _watchers:
        watcher.step_awaited(name, key)


def step_began(name: str, key: str, resumed: bool) -> None:
    for watcher in _watchers:
        watcher.step_began(name, key, resumed)


def step_done(name: str, key: str, manifest: Mapping[str, Any]) -> None:
    for watcher in _watchers:
        watcher.step_done(name, key, manifest)


def progressed(reading: Reading) -> None:
    for watcher in _watchers:
        watcher.progressed(reading)


def trained(row: Mapping[str, Any], stage: str = "") -> None:
    for watcher in _watchers:
        watcher.trained(row, stage)


def finished(results: Mapping[str, Any]) -> None:
    for watcher in _watchers:
        watcher.finished(results)
