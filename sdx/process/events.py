"""What a run is doing, reported to listeners such as the state file and the dashboards. Only rank 0 reports."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec

P = ParamSpec("P")


@dataclass(frozen=True)
class Reading:
    """The progress of a long stage."""

    stage: str
    """As the progress bar calls it."""
    done: int
    total: int
    unit: str
    """Of `done` and `total`: rows, steps, prompts, texts."""
    rate: float | None
    """Units per second in this process; none before the first unit."""
    eta_s: float | None
    """Seconds until the stage is done at this rate."""


class Listener:
    """Overrides the events that it handles. No method may raise: a listener must not end a run."""

    def step_awaited(self, name: str, key: str) -> None:
        """Another run is making a step of the store that this run needs."""

    def step_began(self, name: str, key: str, resumed: bool) -> None:
        """A step of the store is being made."""

    def step_done(self, name: str, key: str, manifest: Mapping[str, Any]) -> None:
        """The step is published. Steps found in the cache are not reported."""

    def progressed(self, reading: Reading) -> None:
        """At most once a second, and at the end of the stage."""

    def trained(self, row: Mapping[str, Any], stage: str = "") -> None:
        """A line of a training's log; `stage` names the training if a run has several. After an interruption, earlier
        lines may come again.
        """

    def finished(self, results: Mapping[str, Any]) -> None:
        """The run has its results, as in results.json, and all its other files."""


_listeners: list[Listener] = []


@contextmanager
def subscribed(listener: Listener) -> Iterator[None]:
    """Inside the block, events are reported to the listener."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def _reporting(event: Callable[Concatenate[Listener, P], None]) -> Callable[P, None]:
    """The function that reports an event to all listeners."""

    def report(*args: P.args, **kwargs: P.kwargs) -> None:
        for listener in _listeners:
            getattr(listener, event.__name__)(*args, **kwargs)

    return report


step_awaited = _reporting(Listener.step_awaited)
step_began = _reporting(Listener.step_began)
step_done = _reporting(Listener.step_done)
progressed = _reporting(Listener.progressed)
trained = _reporting(Listener.trained)
finished = _reporting(Listener.finished)
