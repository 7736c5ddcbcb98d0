"""After `python -m sdx -m ...`: the cells of the sweep in one table.

Hydra calls `on_multirun_end` only if every cell succeeded, so `sdx.main` calls `conclude` when the sweep is over.
Nothing heavy is imported here, as Hydra makes the callback before it runs anything.
"""

import sys
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from sdx.config import InputError
from sdx.ranks import is_main


class Compare(Callback):
    """Notes where the cells of a sweep lie; `hydra.callbacks.compare` in conf/config.yaml.

    Args:
        baseline: the cell that the others are compared with, as in `python -m sdx.report --baseline`. An experiment
            sets `hydra.callbacks.compare.baseline`.
    """

    def __init__(self, baseline: str | None = None) -> None:
        self.baseline = baseline
        self.finished: list[Path] = []
        self.failed: list[Path] = []

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        global _current
        if not config.plan and is_main():
            self.runs_dir = Path(config.runs_dir)
            _current = self

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """A launcher that sends cells elsewhere, as to SLURM, calls it there, and here nothing is known of them."""
        done = job_return.status is JobStatus.COMPLETED
        (self.finished if done else self.failed).append(Path(config.hydra.runtime.output_dir))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        if _current is self and not self.finished:
            print(f"next     python -m sdx.report {self.runs_dir}  compares the cells when they are done")


_current: Compare | None = None
"""The callback of the sweep that runs."""


def conclude() -> None:
    """Prints the comparison of the sweep's finished cells, writes it into runs_dir, and names the cells that failed."""
    sweep = _current
    if sweep is None:
        return
    if sweep.finished:
        from sdx.reporting.cells import find
        from sdx.reporting.compare import entries, publish

        cells, warnings = find(sweep.finished)
        try:
            found, more = entries(cells, sweep.baseline)
        except InputError as error:  # the baseline's cell failed
            found, more = entries(cells, None)[0], [str(error)]
        if found:
            publish(found, sweep.runs_dir)
        for warning in (*warnings, *more):
            _warn(warning)
    for directory in sweep.failed:
        _warn(f"{directory} failed and is not in the table")


def _warn(text: str) -> None:
    print(f"sdx: warning: {text}", file=sys.stderr)
