"""The sweepers of `python -m sdx -m`: every combination of the values given, or a search with Optuna.

    python -m sdx -m hydra/sweeper=optuna method=sft lang=pt scale.validation_rows=40 \\
        'train.learning_rate=tag(log,interval(1e-5,1e-3))' 'scale.epochs=choice(1,2)' hydra.sweeper.trials=20

A trial of a search is a run like any other. Trials come in batches of `jobs`, which the launcher runs. The same command
again goes on with the same study: what was interrupted first, in its own run directories, then new trials until
`trials` of them have a value. Optuna is imported when a search begins.
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
from omegaconf import II, DictConfig, OmegaConf, open_dict

from sdx import InputError
from sdx.options import fields
from sdx.process.disk import disk_full, no_room, writing
from sdx.process.ranks import world_size
from sdx.store.files import write_json
from sdx.sweeps import objective as objectives
from sdx.sweeps import space as spaces
from sdx.sweeps.runs import Kept, SweepRun, composed_by_hydra
from sdx.tracking.state import RunState

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from sdx.sweeps.study import Study

MOST_RUNS = 100_000
Point = tuple[str, ...]
"""Of the space, as overrides."""


class RunSweeper(Sweeper):
    """What the sweepers share.

    Args:
        params: what is varied or fixed beside the command line, which goes before it.
    """

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
    """Runs that are checked and launched at once; none is all of them."""
    params: dict[str, str] | None = None
    """What is varied or fixed beside the command line, which goes before it; an experiment's grid."""


class GridSweeper(RunSweeper):
    """Launches all combinations. The arguments are those of `GridConfig`.

    Hydra's own composes each run once more than the launcher does, which checks all of them before one starts.
    """

    def __init__(self, max_batch_size: int | None, params: Mapping[str, str] | None) -> None:
        super().__init__(params)
        self.max_batch_size = max_batch_size

    def sweep(self, arguments: list[str]) -> None:
        """Launches them.

        Raises:
            InputError: there are none, or more than anybody waits for.
        """
        overrides = self.parsed([*self.params, *arguments])
        values = {override.get_key_element(): _values(override) for override in overrides}  # the last one holds
        if math.prod(map(len, values.values())) > MOST_RUNS:
            raise InputError(f"the sweep has more than {MOST_RUNS} runs; vary less at once")
        runs = [list(run) for run in product(*values.values())]
        size = self.max_batch_size or len(runs)
        for first in range(0, len(runs), size):
            self.launcher.launch(runs[first : first + size], initial_job_idx=first)


def _values(override: Override) -> list[str]:
    """An override for each value that it gives its key; no more than a sweep may have."""
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
    """How many with a value there are to be in the study, over all starts. One that failed counts in its start only."""
    jobs: int = fields.number(1, at_least=1, at_most=10_000)
    """Trials drawn at once; the next ones when all of them have ended. How many run at once is the launcher's."""
    study: str | None = fields.name(None)
    """The study's name; none makes one of method, backbone, languages and a hash of what is searched."""
    storage: str = fields.path(II("runs_dir") + "/optuna")
    """Directory of the studies' stores and tables."""
    seed: int = fields.number(1, at_least=0, at_most=fields.SEED)
    """Of the draws (TPE, Bergstra et al. 2011)."""
    params: dict[str, str] | None = None
    """What is searched or fixed beside the command line, which goes before it; an experiment's grid."""


class OptunaSweeper(RunSweeper):
    """Searches with Optuna. The arguments are those of `OptunaConfig`."""

    def __init__(self, params: Mapping[str, str] | None, storage: str, **options: Any) -> None:
        super().__init__(params)
        self.options = OptunaConfig(**options)
        self.storage = Path(storage)
        self.launched = 0
        self.kept: Kept = {}

    def sweep(self, arguments: list[str]) -> None:
        """Searches until there are enough trials, and prints the best.

        Raises:
            InputError: a search that cannot work, before a run is started.
        """
        self._check()
        from sdx.sweeps.study import Search, opened

        overrides = self.parsed(arguments)
        named = {override.get_key_element() for override in overrides}
        overrides += [one for one in self.parsed(self.params) if one.get_key_element() not in named]
        self.fixed, self.space = spaces.split(overrides)
        search = Search(self.options.objective, spaces.written(self.space), spaces.deciding(overrides))
        prefix = self._run_name(spaces.corner(self.space)).rpartition("-")[0]
        self.name = self.options.study or f"{prefix}-{sha256(repr(search).encode()).hexdigest()[:8]}"
        if self.options.objective != objectives.VALIDATION:
            test = f"{objectives.KEY}={self.options.objective} is of a test set"
            print(f"sdx: warning: {test}: what it chooses is fitted to that test", file=sys.stderr)
        try:
            with writing(self.storage), opened(self.storage, self.name, search, self.space, self.options.seed) as study:
                self._search(study)
        except OSError as error:
            if not disk_full(error):
                raise
            full = no_room(error, {"hydra.sweeper.storage": self.storage})
            raise InputError(f"{full}; free some, and the same command goes on from there") from None

    def _check(self) -> None:
        if importlib.util.find_spec("optuna") is None:
            raise InputError("hydra/sweeper=optuna needs Optuna, which is not installed; pip install 'sdx[optuna]'")
        if world_size() > 1:
            raise InputError(
                "hydra/sweeper=optuna draws the trials in one process; start it without torchrun, and let "
                "hydra/launcher start the ranks of a run"
            )
        if self.config.plan:
            raise InputError("plan=true plans runs that are known; give it without hydra/sweeper=optuna")

    def _search(self, study: "Study") -> None:
        waiting = [trial for trial in study.trials() if trial.state.name == "RUNNING"]
        done = sum(trial.value is not None for trial in study.trials())
        missing, jobs = self.options.trials - done - len(waiting), self.options.jobs
        print(f"study    {self.storage / self.name}.journal: {done} of {self.options.trials} trials done", flush=True)
        while waiting or missing > 0:
            batch, waiting = waiting[:jobs], waiting[jobs:]
            while len(batch) < jobs and missing > 0:
                batch.append(study.start(self._run_name))
                missing -= 1
            self._run(study, batch)
            self._publish(study)
        self._conclude(self._publish(study))

    def _run_name(self, values: dict[str, Any]) -> str:
        """The name of the run directory.

        Raises:
            InputError: it will not have the objective.
        """
        from sdx.run import typed

        overrides = [*self.fixed, *spaces.assigned(self.space, values)]
        cfg = composed_by_hydra(self.hydra_context, self.config, overrides, self.kept)
        name = str(OmegaConf.select(cfg, "hydra.sweep.subdir"))
        with open_dict(cfg):
            del cfg["hydra"]
        objectives.check(self.options.objective, typed(cfg))
        return name

    def _run(self, study: "Study", batch: "Sequence[FrozenTrial]") -> None:
        """Each point once: what has a value already is told it, and of two that are the same one is launched."""
        from optuna.trial import TrialState

        known: dict[Point, float | None] = {
            self._point(trial): trial.value for trial in study.trials() if trial.value is not None
        }
        new = list(dict.fromkeys(point for trial in batch if (point := self._point(trial)) not in known))
        if new:
            returned = self.launcher.launch([[*self.fixed, *point] for point in new], initial_job_idx=self.launched)
            self.launched += len(new)
            runs: list[SweepRun] = [one.return_value for one in returned]
            ended = ((point, run) for point, run in zip(new, runs, strict=True) if run.state != RunState.interrupted)
            known |= {point: self._value(run) for point, run in ended}
        for trial in batch:
            shown, point = "interrupted", self._point(trial)  # it goes on when the search is started again
            if point in known:
                value = known[point]
                study.tell(trial.number, value, TrialState.FAIL if value is None else TrialState.COMPLETE)
                shown = "failed" if value is None else f"{value:.6g}"
            print(f"trial    {trial.number}: {self.options.objective} {shown}  {' '.join(point)}", flush=True)

    def _point(self, trial: "FrozenTrial") -> Point:
        return tuple(spaces.assigned(self.space, trial.params))

    def _value(self, run: SweepRun) -> float | None:
        """The objective; none where the run failed."""
        if run.state is RunState.failed:
            return None
        found = objectives.value(run.run_dir, self.options.objective)
        return found if math.isfinite(found) else None

    def _publish(self, study: "Study") -> dict[str, Any]:
        """Writes all trials and the best one, which is the first of those with the highest value."""
        from sdx.sweeps.study import RUN

        rows = [
            {
                "number": trial.number,
                "value": trial.value,
                "state": trial.state.name,
                "overrides": [*self.fixed, *self._point(trial)],
                "run": trial.user_attrs[RUN],
            }
            for trial in study.trials()
        ]
        best = max((row for row in rows if row["value"] is not None), key=lambda row: float(row["value"]), default=None)
        table = {"study": self.name, "objective": self.options.objective, "best": best, "trials": rows}
        write_json(self.storage / f"{self.name}.json", table)
        return table

    def _conclude(self, table: Mapping[str, Any]) -> None:
        if not (best := table["best"]):
            print(f"best     none: no trial of {self.name} has a value", flush=True)
            return
        number, objective = best["number"], table["objective"]
        print(f"best     trial {number}: {objective} {best['value']:.6g}, run {best['run']}")
        print(f"command  {shlex.join(['python', '-m', 'sdx', *best['overrides']])}")
        print(f"trials   {self.storage / self.name}.json", flush=True)
