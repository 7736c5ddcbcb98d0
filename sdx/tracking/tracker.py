"""What a run says to a dashboard, whichever it is, and never a reason for a run to fail."""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from logging import getLogger
from pathlib import Path
from time import monotonic, time
from types import TracebackType
from typing import Any

from sdx.config import Config, TrackingConfig
from sdx.languages import language
from sdx.options.classes import import_class
from sdx.process.disk import disk_full
from sdx.process.events import Reading, Watcher
from sdx.process.ranks import is_main
from sdx.store.files import read_rows
from sdx.tracking.content import FILTER, Results, filter_counts, results_of
from sdx.tracking.state import RunState

log = getLogger("sdx")

CURVES = "tracking.jsonl"
READING_INTERVAL_S = 15.0
"""Between two points of the curve of a stage's rate."""
STEPS, TRAIN = "steps", "train"


@dataclass(frozen=True)
class Point:
    """The heights of several curves at one place of their axis."""

    axis: str
    """`train/step`; the curves have the same beginning, `train/loss`."""
    step: int
    """Where on the axis."""
    values: Mapping[str, float]
    """Curve -> height. A name carries its unit."""
    time_s: float
    """When it was shown, since 1970."""


class Curves:
    """All points that this process and those before it have shown of a run, in `tracking.jsonl` of its directory.

    So no point is shown twice, and a dashboard gets anew what a kill has cost it.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / CURVES
        self.points: list[Point] = []
        whole = 0
        with suppress(FileNotFoundError), self._path.open("rb") as lines:
            for line in lines:
                try:
                    point = Point(**json.loads(line))
                except (ValueError, TypeError):  # a kill tore it
                    break
                self.points.append(point)
                whole += len(line)
            os.truncate(self._path, whole)
        self.are_new = not self.points
        self._known = {(point.axis, point.step) for point in self.points}

    def last(self, axis: str) -> int:
        """The last step of an axis; -1 where nothing was shown."""
        return max((step for name, step in self._known if name == axis), default=-1)

    def add(self, axis: str, step: int, values: Mapping[str, float]) -> Point | None:
        """The point, which is on the disk; none if it was there before."""
        if (axis, step) in self._known:
            return None
        point = Point(axis, step, values, time())
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(point)) + "\n")
        self._known.add((axis, step))
        self.points.append(point)
        return point


class Backend(ABC):
    """One dashboard run per run directory, opened at the first thing to show. A new one is a class and a YAML.

    It may raise: `Tracker` guards it.

    Args:
        config: the run's.
        run_dir: its files go here.
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
        """Raises `InputError` if a package that it needs is not installed."""

    @abstractmethod
    def show(self, point: Point) -> None:
        """Shows a point, which is the last of `curves`."""

    def has(self, results: Results) -> bool:
        """Whether these are shown already."""
        return False

    @abstractmethod
    def finish(self, results: Results) -> None:
        """Shows the results and closes."""

    @abstractmethod
    def close(self, state: RunState) -> None:
        """Puts everything that was shown on the disk or the server, in bounded time.

        Args:
            state: how this process leaves the run.
        """


def check(config: TrackingConfig) -> None:
    """Raises `InputError` if the dashboard's package is not installed."""
    if config._target_:
        import_class(config._target_).check()


class Tracker(Watcher):
    """Hears what a run does and shows it. Around the work it is a context that closes the dashboard's run in any case.

    Only rank 0 shows anything. Whatever goes wrong with the dashboard is a warning, once, and the run goes on.

    Args:
        config: the run's.
        run_dir: the dashboard's files go here.
    """

    def __init__(self, config: Config, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._backend: Backend | None = None
        if config.tracking._target_ and is_main():
            self._backend = import_class(config.tracking._target_)(config, run_dir)
        self._shown: dict[str, tuple[float, int]] = {}
        """Of a stage, when it was shown last and how far it has come."""

    def trained(self, row: Mapping[str, Any], stage: str = "") -> None:
        """The line on its own step axis."""
        where = f"{TRAIN}/{stage}" if stage else TRAIN
        values = {f"{where}/{name}": value for name, value in row.items() if name != "step"}
        self._show(f"{where}/step", row["step"], values)

    def progressed(self, reading: Reading) -> None:
        """The rate of a stage, in the stage's units a second. Training has its own curves."""
        shown, before = self._shown.get(reading.stage, (-READING_INTERVAL_S, -1))
        last = reading.done == reading.total > before
        due = reading.done > before and monotonic() - shown >= READING_INTERVAL_S
        show = reading.stage != TRAIN and reading.rate and (due or last)
        self._shown[reading.stage] = monotonic() if show else shown, reading.done
        if show and reading.rate:
            where, rate = f"progress/{reading.stage}", round(reading.rate, 3)
            self._show(f"{where}/{reading.unit}", reading.done, {f"{where}/{reading.unit}_per_s": rate})

    def step_done(self, name: str, key: str, manifest: Mapping[str, Any]) -> None:
        """How long a step of the store took, and what a filter dropped."""

        def show(backend: Backend) -> None:
            number = backend.curves.last(f"{STEPS}/number") + 1
            self._show(f"{STEPS}/number", number, {f"{STEPS}/{name}_seconds": manifest["seconds"]})
            if name == FILTER:
                flores = manifest["config"].get("language")
                where = f"{FILTER}/{language(flores).code if flores else 'any'}"
                counts = filter_counts(manifest["counts"])
                self._show(f"{where}/number", number, {f"{where}/{what}": n for what, n in counts.items()})

        self._guarded(show)

    def finished(self, results: Mapping[str, Any]) -> None:
        """The results of the run, its samples and its report."""

        def show(backend: Backend) -> None:
            found = results_of(results, self.run_dir)
            if backend.has(found):
                return
            trainings = [step for step in results["steps"] if step["name"] == TRAIN]
            if len(trainings) == 1:  # made by another run, or before there was tracking: its curve belongs here, too
                for row in read_rows(Path(trainings[0]["path"]) / "log.jsonl"):
                    self.trained(row)
            backend.finish(found)

        self._guarded(show)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._guarded(lambda backend: backend.close(RunState.after(error)))
        self._backend = None

    def _show(self, axis: str, step: int, values: Mapping[str, float]) -> None:
        def show(backend: Backend) -> None:
            if point := backend.curves.add(axis, step, values):
                backend.show(point)

        self._guarded(show)

    def _guarded(self, action: Callable[[Backend], None]) -> None:
        """A dashboard's failures are many (network, keys, quotas, disk): warn once, go on without."""
        if self._backend is None:
            return
        try:
            action(self._backend)
        except Exception as error:
            text = " ".join(str(error).split()) or type(error).__name__
            why = f"no space left on the disk of {self.run_dir}" if disk_full(error) else text
            log.warning(
                "%-12s off for this run: %s; the run goes on, and log.jsonl and results.json have the figures",
                self._backend.name,
                why,
            )
            backend, self._backend = self._backend, None
            with suppress(Exception):
                backend.close(RunState.failed)
