"""After `python -m sdx -m ...`: the runs of the sweep in one table, and what became of each.

Nothing heavy is imported here, as Hydra makes the callback before it runs anything.
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


class Compare(Callback):
    """Knows the sweep that runs; `hydra.callbacks.compare` in conf/config.yaml.

    Args:
        baseline: the run that the others are compared with, as in `python -m sdx.report --baseline`. An experiment
            sets `hydra.callbacks.compare.baseline`.
    """

    def __init__(self, baseline: str | None = None) -> None:
        self.baseline = baseline
        self.runs: list[SweepRun] = []

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        global _current
        if is_main():
            self.runs_dir = Path(config.runs_dir)
            _current = self


_current: Compare | None = None
"""The callback of the sweep that runs."""


def expect(runs: "Sequence[SweepRun]") -> None:
    """Tells the sweep which runs it has; a sweeper may tell several times."""
    if _current:
        _current.runs.extend(runs)


def conclude() -> int:
    """Prints the comparison of the sweep's finished runs, writes it into runs_dir, and says what became of the others.

    Returns:
        The exit code: 0 where all runs are done, 1 where one failed, else 75: the same command goes on.
    """
    sweep = _current
    if sweep is None or not sweep.runs:
        return 0
    runs = list({run.run_dir: run for run in sweep.runs}.values())
    found: dict[str, list[SweepRun]] = {}
    for run in runs:
        found.setdefault(run.state.value if run.state else "not ended", []).append(run)
    counts = ", ".join(f"{len(its)} {state}" for state, its in found.items())
    done = [run.run_dir for state in ("done", "skipped") for run in found.pop(state, [])]
    if finished := [run_dir for run_dir in done if (run_dir / RESULTS).exists()]:  # with stages=prepare it does not
        _compare(finished, sweep)
    print(f"sweep    {len(runs)} runs: {counts}")
    for state, its in found.items():
        for run in its:
            print(f"{state:<8} python -m sdx {shlex.join(run.overrides)}")
            for what in filter(None, (run.error, run.log and f"log: {run.log}")):
                print(f"         {escaped(str(what))}")
    if found:
        print(f"again    python -m sdx {shlex.join(sys.argv[1:])}  runs these and skips what is done")
    return 1 if "failed" in found else os.EX_TEMPFAIL if found else 0


def _compare(done: Sequence[Path], sweep: Compare) -> None:
    from sdx.reporting.compare import compared, publish
    from sdx.reporting.finished import read_runs

    finished, warnings = read_runs(done)
    try:
        found, more = compared(finished, sweep.baseline)
    except InputError as error:  # the baseline's run failed
        found, more = compared(finished, None)[0], [str(error)]
    try:
        if found:
            publish(found, sweep.runs_dir)
    except OSError as error:  # of the files beside the table
        more.append(f"{error.filename}: {error.strerror}")
    for warning in (*warnings, *more):
        print(f"sdx: warning: {warning}", file=sys.stderr)
