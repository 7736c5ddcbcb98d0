"""What a run reports to its dashboard. A dashboard never makes a run fail."""

import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from logging import getLogger
from pathlib import Path
from time import monotonic, time
from typing import Any

from sdx.config import Config, TrackingConfig
from sdx.languages import language
from sdx.options.classes import import_class
from sdx.process.disk import disk_full
from sdx.process.events import Listener, Reading
from sdx.process.ranks import is_main
from sdx.store.files import read_rows
from sdx.tracking.content import FILTER, Results, filter_counts, results_of
from sdx.tracking.state import RunState

log = getLogger("sdx")

READING_INTERVAL_S = 15.0
"""Between two points of the curve of a stage's rate."""
STEPS, TRAIN = "steps", "train"


@dataclass(frozen=True)
class Point:
    """The values of several curves at one step of their axis."""

    axis: str
    """`train/step`; its curves have the same prefix, `train/loss`."""
    step: int
    values: Mapping[str, float]
    """By name of the curve, which contains the unit."""
    time_s: float
    """When the point was shown, in seconds since 1970."""


class Curves:
    """All points of a run that this process and earlier ones have shown, in `tracking.jsonl` of its directory.

    So no point is shown twice, and points that a dashboard has lost by a kill are shown again.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / "tracking.jsonl"
        self.points: list[Point] = []
        whole = 0
        with suppress(FileNotFoundError), self._path.open("rb") as lines:
            for line in lines:
                try:
                    point = Point(**json.loads(line))
                except (ValueError, TypeError):  # torn by a kill
                    break
                self.points.append(point)
                whole += len(line)
            os.truncate(self._path, whole)
        self.are_new = not self.points
        self._known = {(point.axis, point.step) for point in self.points}

    def last(self, axis: str) -> int:
        """The last step of an axis; -1 if it has no points."""
        return max((step for name, step in self._known if name == axis), default=-1)

    def add(self, axis: str, step: int, values: Mapping[str, float]) -> Point | None:
        """Writes a point to the disk and returns it; none if the axis already has that step."""
        if (axis, step) in self._known:
            return None
        point = Point(axis, step, values, time())
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(point)) + "\n")
        self._known.add((axis, step))
        self.points.append(point)
        return point


class Backend(ABC):
    """The one dashboard run of a run directory, opened at the first point. A new kind is a class and a YAML file.

    Methods may raise: `Tracker` handles that.
    """

    name: str
    """In messages."""

    def __init__(self, config: Config, run_dir: Path) -> None:
        self.config = config
        self.run_dir = run_dir

    @cached_property
    def curves(self) -> Curves:
        return Curves(self.run_dir)

    @classmethod
    def check(cls) -> None:
        """Raises `InputError` if a package that the dashboard needs is not installed."""

    @abstractmethod
    def show(self, point: Point) -> None:
        """Shows a point, the last one of `curves`."""

    def has(self, results: Results) -> bool:
        """Whether the dashboard shows these results already."""
        return False

    @abstractmethod
    def finish(self, results: Results) -> None:
        """Shows the results and closes."""

    @abstractmethod
    def close(self, state: RunState) -> None:
        """Puts everything that was shown on the disk or the server, in bounded time, with the state of the run."""


def check(config: TrackingConfig) -> None:
    """Raises `InputError` if the dashboard's package is not installed."""
    if config._target_:
        import_class(config._target_).check()


class Tracker(Listener):
    """Shows the events of a run on its dashboard. A context manager, which closes the dashboard's run in any case.

    Only rank 0 shows anything. The first failure of the dashboard is a warning and ends tracking; the run goes on.
    """

    def __init__(self, config: Config, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._backend: Backend | None = None
        if config.tracking._target_ and is_main():
            self._backend = import_class(config.tracking._target_)(config, run_dir)
        self._shown_s: dict[str, float] = {}
        """Stage -> when its rate was last shown, by the monotonic clock."""

    def trained(self, row: Mapping[str, Any], stage: str = "") -> None:
        """Each training has an axis of its steps."""
        prefix = f"{TRAIN}/{stage}" if stage else TRAIN
        values = {f"{prefix}/{name}": value for name, value in row.items() if name != "step"}
        self._show(f"{prefix}/step", row["step"], values)

    def progressed(self, reading: Reading) -> None:
        """The rate of a stage, in units per second. A training has its own curves."""
        shown_s = self._shown_s.get(reading.stage, -math.inf)
        due = reading.done == reading.total or monotonic() - shown_s >= READING_INTERVAL_S
        if reading.rate and due and reading.stage != TRAIN:
            self._shown_s[reading.stage] = monotonic()
            axis = f"progress/{reading.stage}/{reading.unit}"
            self._show(axis, reading.done, {f"{axis}_per_s": round(reading.rate, 3)})

    def step_done(self, name: str, key: str, manifest: Mapping[str, Any]) -> None:
        """How long a step of the store took, and what a filter dropped."""

        def show(backend: Backend) -> None:
            number = backend.curves.last(f"{STEPS}/number") + 1
            self._show(f"{STEPS}/number", number, {f"{STEPS}/{name}_seconds": manifest["seconds"]})
            if name == FILTER:
                flores = manifest["config"].get("language")
                prefix = f"{FILTER}/{language(flores).code if flores else 'any'}"
                counts = filter_counts(manifest["counts"])
                self._show(f"{prefix}/number", number, {f"{prefix}/{what}": n for what, n in counts.items()})

        self._guarded(show)

    def finished(self, results: Mapping[str, Any]) -> None:
        """The results of the run, its samples and its report."""

        def show(backend: Backend) -> None:
            found = results_of(results, self.run_dir)
            if backend.has(found):
                return
            trainings = [step for step in results["steps"] if step["name"] == TRAIN]
            if len(trainings) == 1:  # also shown if another run trained, or this run did before it was tracked
                for row in read_rows(Path(trainings[0]["path"]) / "log.jsonl"):
                    self.trained(row)
            backend.finish(found)

        self._guarded(show)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._guarded(lambda backend: backend.close(RunState.after(error)))
        self._backend = None

    def _show(self, axis: str, step: int, values: Mapping[str, float]) -> None:
        def show(backend: Backend) -> None:
            if point := backend.curves.add(axis, step, values):
                backend.show(point)

        self._guarded(show)

    def _guarded(self, action: Callable[[Backend], None]) -> None:
        """A dashboard fails in many ways (network, keys, quotas, disk): warns once and goes on without it."""
        backend = self._backend
        if backend is None:
            return
        try:
            action(backend)
        except Exception as error:
            if self._backend is None:  # a nested action has failed before
                return
            self._backend = None
            why = " ".join(str(error).split()) or type(error).__name__
            if disk_full(error):
                why = f"no space left on the disk of {self.run_dir}"
            figures = "the run goes on, and log.jsonl and results.json have the figures"
            log.warning("%-12s off for this run: %s; %s", backend.name, why, figures)
            with suppress(Exception):
                backend.close(RunState.failed)
