"""What a cell says to a dashboard, whichever it is, and never a reason for a run to fail."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from logging import getLogger
from os import EX_TEMPFAIL
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any

from sdx.config import Config, TrackingConfig
from sdx.languages import language
from sdx.options.targets import target
from sdx.process.disk import disk_full
from sdx.process.events import Reading, Watcher
from sdx.process.ranks import is_main
from sdx.store.files import read_rows
from sdx.tracking.backend import Backend, Ending
from sdx.tracking.content import FILTER, filter_counts, results_of

log = getLogger("sdx")

READING_INTERVAL_S = 15.0
"""Between two points of the curve of a stage's rate."""
STEPS, TRAIN = "steps", "train"


def check(config: TrackingConfig) -> None:
    """Raises `InputError` if the dashboard's package is not installed."""
    if config._target_:
        target(config._target_).check()


class Tracker(Watcher):
    """Hears what a cell does and shows it. Around the work it is a context that closes the dashboard's run in any case.

    Only rank 0 shows anything. Whatever goes wrong with the dashboard is a warning, once, and the cell goes on.

    Args:
        config: the cell.
        run_dir: the dashboard's files go here.
    """

    def __init__(self, config: Config, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._backend: Backend | None = None
        if config.tracking._target_ and is_main():
            self._backend = target(config.tracking._target_)(config, run_dir)
        self._shown: dict[str, tuple[float, int]] = {}
        """Of a stage, when it was shown last and how far it has come."""

    def trained(self, row: Mapping[str, Any], stage: str = "") -> None:
        """The line on its own step axis. A line that was logged before is skipped."""
        where = f"{TRAIN}/{stage}" if stage else TRAIN
        axis, values = f"{where}/step", {f"{where}/{name}": value for name, value in row.items() if name != "step"}

        def show(backend: Backend) -> None:
            if row["step"] > backend.logged(axis):
                backend.log(axis, row["step"], values)

        self._guarded(show)

    def progressed(self, reading: Reading) -> None:
        """The rate of a stage, in the stage's units a second. Training has its own curves."""
        shown, before = self._shown.get(reading.stage, (-READING_INTERVAL_S, -1))
        last = reading.done == reading.total > before
        due = reading.done > before and monotonic() - shown >= READING_INTERVAL_S
        show = reading.stage != TRAIN and reading.rate and (due or last)
        self._shown[reading.stage] = monotonic() if show else shown, reading.done
        if not show or not reading.rate:
            return
        where, rate = f"progress/{reading.stage}", round(reading.rate, 3)
        values = {f"{where}/{reading.unit}_per_s": rate}
        self._guarded(lambda backend: backend.log(f"{where}/{reading.unit}", reading.done, values))

    def step_done(self, name: str, key: str, manifest: Mapping[str, Any]) -> None:
        """How long a step of the store took, and what a filter dropped."""
        axis = f"{STEPS}/number"

        def show(backend: Backend) -> None:
            number = backend.logged(axis) + 1
            backend.log(axis, number, {f"{STEPS}/{name}_seconds": manifest["seconds"]})
            if name == FILTER:
                flores = manifest["config"].get("language")
                where = f"{FILTER}/{language(flores).code if flores else 'any'}"
                counts = filter_counts(manifest["counts"])
                backend.log(f"{where}/number", number, {f"{where}/{what}": n for what, n in counts.items()})

        self._guarded(show)

    def finished(self, results: Mapping[str, Any]) -> None:
        """The results of the cell, its samples and its report."""

        def show(backend: Backend) -> None:
            found = results_of(results, self.run_dir)
            if backend.has(found):
                return
            trainings = [step for step in results["steps"] if step["name"] == TRAIN]
            if len(trainings) == 1:  # made by another cell, or before there was tracking: its curve belongs here, too
                for row in read_rows(Path(trainings[0]["path"]) / "log.jsonl"):
                    self.trained(row)
            backend.finish(found)

        self._guarded(show)

    def close(self, ending: Ending) -> None:
        """Nothing more comes from this process."""
        self._guarded(lambda backend: backend.close(ending))
        self._backend = None

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        preempted = isinstance(error, SystemExit) and error.code == EX_TEMPFAIL
        self.close(Ending.preempted if preempted else Ending.failed if error else Ending.done)

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
                backend.close(Ending.failed)
