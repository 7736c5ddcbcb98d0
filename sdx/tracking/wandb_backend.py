"""Metrics to wandb: online with a key, offline without and where the server does not answer.

A cell has one wandb run, whose id lies in `tracking.json`. A process that goes on with the cell resumes it. Offline
each process writes a directory of its own; `wandb sync <run directory>/wandb` makes one run of them. wandb's own
steps count on from one process to the next, for a row with a step that was there before would be dropped.
"""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging import getLogger
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from sdx.config import Config
from sdx.process.secret import scrub
from sdx.store.files import read_intact, write_json
from sdx.tracking import wandb_log, wandb_start
from sdx.tracking.backend import Backend, Ending, Results

log = getLogger("sdx")

WRITTEN_TIMEOUT_S, POLL_S = 10.0, 0.2
STATE = "tracking.json"
KINDS = {"id": str, "step": int, "results": dict}
"""What it holds."""
RESUMED_AXES = ("step", "number")
"""Last names of the axes on which nothing is logged twice."""


class Wandb(Backend):
    """See the module's text."""

    name = "wandb"

    def __init__(self, config: Config, run_dir: Path) -> None:
        super().__init__(config, run_dir)
        self._run: Any = None
        self._step = 0
        self._last: dict[str, int] = {}
        self._axes: set[str] = set()

    def logged(self, axis: str) -> int:
        self._open()
        return self._last.get(axis, -1)

    def log(self, axis: str, step: int, values: Mapping[str, float]) -> None:
        run = self._open()
        if axis not in self._axes:
            run.define_metric(axis, hidden=True)
            run.define_metric(f"{axis.rpartition('/')[0]}/*", step_metric=axis)
            self._axes.add(axis)
        self._last[axis] = max(step, self._last.get(axis, -1))
        self._add({axis: step, **values})

    def _add(self, row: Mapping[str, Any]) -> None:
        self._run.log(row, step=self._step, commit=True)
        self._step += 1

    def has(self, results: Results) -> bool:
        return self._state().get("results") == results.lasting

    def finish(self, results: Results) -> None:
        import wandb

        run = self._open()
        run.summary.update(dict(results.summary))
        with _staged(self.run_dir):
            for name, rows in results.tables.items():
                columns = list(rows[0])
                data = [[scrub(v) if isinstance(v, str) else v for v in row.values()] for row in rows]
                self._add({f"tables/{name}": wandb.Table(columns, data, allow_mixed_types=True)})
            artifact = wandb.Artifact(f"report-{run.id}", "report")
            for path in results.reports:
                with artifact.new_file(path.name, encoding="utf-8") as file:
                    file.write(scrub(path.read_text(encoding="utf-8")))
            run.log_artifact(artifact)
        self.close(Ending.done, results.lasting)

    def close(self, ending: Ending, shown: Mapping[str, float] | None = None) -> None:
        if self._run is None:
            return
        run, self._run = self._run, None
        if ending is Ending.preempted:
            run.mark_preempting()
        offline = run.offline
        option = "" if offline else "--include-online "
        try:
            run.finish(exit_code=0 if ending is Ending.done else 1)
        except Exception as error:  # that is the server's trouble, or of wandb's own process
            why = " ".join(str(error).split())
            command = wandb_log.upload_command(self.run_dir, option)
            log.warning("%-12s ended before all was sent (%s); %s uploads what is on the disk", self.name, why, command)
            return
        _check_written(run)
        state = {"id": run.id, "step": self._step, **({"results": shown} if shown else {})}
        write_json(self.run_dir / STATE, state)
        if offline:
            log.info("%-12s offline; %s uploads it", self.name, wandb_log.upload_command(self.run_dir))

    def _state(self) -> dict[str, Any]:
        found = read_intact(self.run_dir / STATE)
        return {name: found[name] for name, kind in KINDS.items() if isinstance(found.get(name), kind)}

    def _open(self) -> Any:
        if self._run is None:
            state = {"id": secrets.token_hex(4), **self._state()}
            write_json(self.run_dir / STATE, state)
            paths = wandb_log.files(self.run_dir)
            wandb_log.repair(paths)
            before = wandb_log.logged(paths, RESUMED_AXES)
            self._last = before.axes | self._last
            self._run = wandb_start.begin(self.config, self.run_dir, state["id"])
            self._step = max(before.step + 1, state.get("step", 0), self._run.step)
        return self._run


def _check_written(run: Any) -> None:
    """Raises OSError if the end is not in the file soon after wandb said so."""
    if run.settings.mode == "disabled":
        return
    path, until = Path(run.settings.sync_file), monotonic() + WRITTEN_TIMEOUT_S
    while not wandb_log.ended(path):
        if monotonic() > until:
            raise OSError(f"{path} lacks what was logged last, as on a full disk")
        sleep(POLL_S)


@contextmanager
def _staged(run_dir: Path) -> Iterator[None]:
    """wandb copies what it uploads later; the copies belong with the run and not into the home directory."""
    name = "WANDB_DATA_DIR"
    before = os.environ.get(name)
    os.environ[name] = before or str((run_dir / "wandb/data").resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
