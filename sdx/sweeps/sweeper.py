"""The sweepers of `python -m sdx -m`: every combination of the values given, or a search with Optuna.

    python -m sdx -m hydra/sweeper=optuna method=sft lang=pt scale.validation_rows=40 \\
        'train.learning_rate=tag(log,interval(1e-5,1e-3))' 'scale.epochs=choice(1,2)' hydra.sweeper.trials=20

A trial of a search is an ordinary run. Trials come in batches of `jobs`, which the launcher runs. The same command
continues the same study: first interrupted trials, in their own run directories, then new trials until `trials` of them
have a value. Optuna is imported when a search begins.
"""

import importlib.util
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import II, DictConfig

from sdx import InputError
from sdx.options import fields
from sdx.process.disk import disk_full, full_disk_message, writing
from sdx.process.ranks import world_size
from sdx.store.files import write_json
from sdx.sweeps import objective as objectives
from sdx.sweeps.runs import Composed, SweepRun, compose
from sdx.tracking.state import RunState

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from sdx.sweeps.study import Study

MOST_RUNS = 100_000


class RunSweeper(Sweeper):
    """What the sweepers share."""

    hydra_context: HydraContext
    launcher: Launcher
    config: DictConfig

    def __init__(self, params: Mapping[str, str] | None) -> None:
        self.params = [f"{key}={value}" for key, value in (params or {}).items()]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def parsed(self, overrides: Sequence[str]) -> list[Override]:
        return OverridesParser.create(self.hydra_context.config_loader).parse_overrides(list(overrides))


@dataclass
class GridConfig:
    """Options of `hydra.sweeper`, the same as those of Hydra's own sweeper."""

    _target_: str = "hydra_plugins.sdx.GridSweeper"
    max_batch_size: int | None = fields.number(None, at_least=1, at_most=MOST_RUNS)
    """Runs that are checked and launched together; none is all of them."""
    params: dict[str, str] | None = None
    """An experiment's grid: values and sweeps by key, which the command line overrides."""


class GridSweeper(RunSweeper):
    """Launches all combinations. The arguments are those of `GridConfig`.

    Hydra's own sweeper would compose each run a second time; the launcher composes all of them anyway.
    """

    def __init__(self, max_batch_size: int | None, params: Mapping[str, str] | None) -> None:
        super().__init__(params)
        self.max_batch_size = max_batch_size

    def sweep(self, arguments: list[str]) -> None:
        """Launches all combinations. Raises InputError if there is none, or if there are more than `MOST_RUNS`."""
        overrides = self.parsed([*self.params, *arguments])
        values = {override.get_key_element(): _values(override) for override in overrides}  # the last of a key counts
        if math.prod(map(len, values.values())) > MOST_RUNS:
            raise InputError(f"the sweep has more than {MOST_RUNS} runs; vary less at once")
        runs = [list(run) for run in product(*values.values())]
        size = self.max_batch_size or len(runs)
        for first in range(0, len(runs), size):
            self.launcher.launch(runs[first : first + size], initial_job_idx=first)


def _values(override: Override) -> list[str]:
    """An override for each value of a sweep; at most one more than a sweep may have."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if not override.is_discrete_sweep():
        raise InputError(
            f"{override.input_line} names no values to try one after the other; give some, or search it with "
            "hydra/sweeper=optuna"
        )
    values = list(islice(override.sweep_string_iterator(), MOST_RUNS + 1))
    if not values:
        raise InputError(f"{override.input_line} gives no value, and the sweep has no run; give one or more")
    return [f"{override.get_key_element()}={value}" for value in values]


@dataclass
class OptunaConfig:
    """Options of `hydra.sweeper`."""

    _target_: str = "hydra_plugins.sdx.OptunaSweeper"
    objective: str = objectives.VALIDATION
    """What is maximised: `validation`, or a score as `score/belebele/pt/accuracy/after`, which is of a test set."""
    trials: int = fields.number(20, at_least=1, at_most=10**6)
    """Trials with a value that the study will have, over all starts. A failed trial counts in its own start only."""
    jobs: int = fields.number(1, at_least=1, at_most=10_000)
    """Trials drawn together; the next ones are drawn when all of them have ended. The launcher decides how many of them
    run at once."""
    study: str | None = fields.name(None)
    """The study's name; by default method, backbone, languages and a hash of the search."""
    storage: str = fields.path(II("runs_dir") + "/optuna")
    """Directory of the studies' journals and tables."""
    seed: int = fields.number(1, at_least=0, at_most=fields.SEED)
    """Of the draws (TPE, Bergstra et al. 2011)."""
    params: dict[str, str] | None = None
    """An experiment's space: values and sweeps by key, which the command line overrides."""


class OptunaSweeper(RunSweeper):
    """Searches with Optuna. The arguments are those of `OptunaConfig`."""

    def __init__(self, params: Mapping[str, str] | None, storage: str, **options: Any) -> None:
        super().__init__(params)
        self.options = OptunaConfig(**options)
        self.storage = Path(storage)
        self.launched = 0
        self.composed: Composed = {}

    def sweep(self, arguments: list[str]) -> None:
        """Searches until there are enough trials, and prints the best.

        Raises InputError if the search cannot work, before a run is started.
        """
        if importlib.util.find_spec("optuna") is None:
            raise InputError("hydra/sweeper=optuna needs Optuna, which is not installed; pip install 'sdx[optuna]'")
        if world_size() > 1:
            raise InputError(
                "hydra/sweeper=optuna draws the trials in one process; start it without torchrun, and let "
                "hydra/launcher start the ranks of a run"
            )
        if self.config.plan:
            raise InputError("plan=true plans runs that are known; give it without hydra/sweeper=optuna")
        from sdx.sweeps import space as spaces
        from sdx.sweeps.study import Search, opened

        overrides = self.parsed(arguments)
        given = {override.get_key_element() for override in overrides}
        overrides += [override for override in self.parsed(self.params) if override.get_key_element() not in given]
        self.fixed, space = spaces.split(overrides)
        objective = self.options.objective
        search = Search(objective, spaces.as_json(space), spaces.deciding(overrides))
        prefix = self._run_name(spaces.first_point(space)).rpartition("-")[0]
        self.name = self.options.study or f"{prefix}-{sha256(repr(search).encode()).hexdigest()[:8]}"
        if objective != objectives.VALIDATION:
            warning = f"{objectives.KEY}={objective} is of a test set: what it chooses is fitted to that test"
            print(f"sdx: warning: {warning}", file=sys.stderr)
        try:
            with writing(self.storage), opened(self.storage, self.name, search, space, self.options.seed) as study:
                self._search(study)
        except OSError as error:
            if not disk_full(error):
                raise
            full = full_disk_message(error, {"hydra.sweeper.storage": self.storage})
            raise InputError(f"{full}; free some, and the same command goes on from there") from None

    def _search(self, study: "Study") -> None:
        interrupted = [trial for trial in study.trials() if trial.state.name == "RUNNING"]
        done = sum(trial.value is not None for trial in study.trials())
        missing, jobs = self.options.trials - done - len(interrupted), self.options.jobs
        print(f"study    {self.storage / self.name}.journal: {done} of {self.options.trials} trials done", flush=True)
        while interrupted or missing > 0:
            batch, interrupted = interrupted[:jobs], interrupted[jobs:]
            while len(batch) < jobs and missing > 0:
                batch.append(study.start(self._run_name))
                missing -= 1
            self._run(study, batch)
            self._write_table(study)
        best = self._write_table(study)
        if not best:
            print(f"best     none: no trial of {self.name} has a value", flush=True)
            return
        print(f"best     trial {best['number']}: {self.options.objective} {best['value']:.6g}, run {best['run']}")
        print(f"command  {shlex.join(['python', '-m', 'sdx', *best['overrides']])}")
        print(f"trials   {self.storage / self.name}.json", flush=True)

    def _run_name(self, point: Sequence[str]) -> str:
        """The name of a point's run directory. Raises InputError if the run cannot have the objective."""
        from sdx.run import typed

        run = compose(self.hydra_context, self.config, [*self.fixed, *point], 0, self.composed)
        objectives.check(self.options.objective, typed(run.config))
        return run.name

    def _run(self, study: "Study", batch: "Sequence[FrozenTrial]") -> None:
        """Launches each point once: equal trials share a run, and a point with a value is not launched again."""
        known = [trial for trial in study.trials() if trial.value is not None]
        values: dict[tuple[str, ...], float | None] = {study.point(trial): trial.value for trial in known}
        new = [point for point in dict.fromkeys(map(study.point, batch)) if point not in values]
        if new:
            returned = self.launcher.launch([[*self.fixed, *point] for point in new], initial_job_idx=self.launched)
            self.launched += len(new)
            for point, result in zip(new, returned, strict=True):
                if result.return_value.state is not RunState.interrupted:
                    values[point] = self._value(result.return_value)
        for trial in batch:
            shown, point = "interrupted", study.point(trial)  # the next start continues this trial
            if point in values:
                value = values[point]
                study.finish(trial, value)
                shown = "failed" if value is None else f"{value:.6g}"
            print(f"trial    {trial.number}: {self.options.objective} {shown}  {' '.join(point)}", flush=True)

    def _value(self, run: SweepRun) -> float | None:
        """The objective; none if the run failed or the objective is not finite."""
        if run.state is RunState.failed:
            return None
        found = objectives.value(run.run_dir, self.options.objective)
        return found if math.isfinite(found) else None

    def _write_table(self, study: "Study") -> dict[str, Any] | None:
        """Writes all trials and the best one: the first with the highest value. Returns the best one."""
        from sdx.sweeps.study import RUN

        rows = [
            {
                "number": trial.number,
                "value": trial.value,
                "state": trial.state.name,
                "overrides": [*self.fixed, *study.point(trial)],
                "run": trial.user_attrs[RUN],
            }
            for trial in study.trials()
        ]
        best = max((row for row in rows if row["value"] is not None), key=lambda row: float(row["value"]), default=None)
        table = {"study": self.name, "objective": self.options.objective, "best": best, "trials": rows}
        write_json(self.storage / f"{self.name}.json", table)
        return best
