"""The end of `python -m sdx -m ...`: a table that compares the runs of the sweep, and the state of each.

Imports nothing heavy, because Hydra creates the callback before anything runs.
"""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from sdx import InputError
from sdx.process.printable import escaped
from sdx.process.ranks import is_main
from sdx.store.run_dir import RESULTS

if TYPE_CHECKING:
    from sdx.sweeps.runs import SweepRun


class SweepSummary(Callback):
    """`hydra.callbacks.compare` in conf/config.yaml. Its `baseline`, which an experiment may set, is the run that the
    others are compared with, as in `python -m sdx.report --baseline`.
    """

    def __init__(self, baseline: str | None = None) -> None:
        self.baseline = baseline
        self.runs: list[SweepRun] = []

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        global _current
        if is_main():
            self.runs_dir = Path(config.runs_dir)
            _current = self


_current: SweepSummary | None = None
"""Of the sweep in this process."""


def add_runs(runs: "Sequence[SweepRun]") -> None:
    """Adds runs to the sweep's summary; a search adds them batch by batch."""
    if _current:
        _current.runs.extend(runs)


def print_summary() -> int:
    """Prints the comparison of the sweep's finished runs, writes it into runs_dir, and lists the other runs.

    Returns the exit code: 0 if all runs are done, 1 if one failed, else 75: the same command goes on.
    """
    sweep = _current
    if sweep is None or not sweep.runs:
        return 0
    runs = list({run.run_dir: run for run in sweep.runs}.values())
    by_state: dict[str, list[SweepRun]] = {}
    for run in runs:
        by_state.setdefault(run.state.value if run.state else "not ended", []).append(run)
    counts = ", ".join(f"{len(some)} {state}" for state, some in by_state.items())
    done = [run.run_dir for state in ("done", "skipped") for run in by_state.pop(state, [])]
    if finished := [run_dir for run_dir in done if (run_dir / RESULTS).exists()]:  # stages=prepare has no results
        _compare(finished, sweep)
    print(f"sweep    {len(runs)} runs: {counts}")
    for state, some in by_state.items():
        for run in some:
            print(f"{state:<8} python -m sdx {shlex.join(run.overrides)}")
            for line in filter(None, (run.error, f"log: {run.log}" if run.log else "")):
                print(f"         {escaped(line)}")
    if by_state:
        print(f"again    python -m sdx {shlex.join(sys.argv[1:])}  runs these and skips what is done")
    return 1 if "failed" in by_state else os.EX_TEMPFAIL if by_state else 0


def _compare(run_dirs: Sequence[Path], sweep: SweepSummary) -> None:
    from sdx.reporting.compare import compared, publish
    from sdx.reporting.finished import read_runs

    finished, warnings = read_runs(run_dirs)
    try:
        found, more = compared(finished, sweep.baseline)
    except InputError as error:  # the run of the baseline has failed
        found, more = compared(finished, None)[0], [str(error)]
    try:
        if found:
            publish(found, sweep.runs_dir)
    except OSError as error:  # the table is printed, its files are not written
        more.append(f"{error.filename}: {error.strerror}")
    for warning in (*warnings, *more):
        print(f"sdx: warning: {warning}", file=sys.stderr)
