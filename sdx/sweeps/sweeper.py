"""`hydra/sweeper=optuna`: a search over a space of overrides, each trial a cell like any other.

    python -m sdx -m hydra/sweeper=optuna method=sft lang=pt scale.validation_rows=40 \\
        'train.learning_rate=tag(log,interval(1e-5,1e-3))' 'scale.epochs=choice(1,2)' hydra.sweeper.trials=20

Trials come in batches of `jobs`, which the launcher runs. The same command again goes on with the same study: what
was interrupted first, in its own run directories, then new trials until `trials` of them have a value.
Optuna is imported when a search begins.
"""

import importlib.util
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import II, DictConfig, OmegaConf, open_dict

from sdx import InputError
from sdx.options import fields
from sdx.process.disk import disk_full, no_room, writing
from sdx.process.ranks import world_size
from sdx.sweeps import objective as objectives
from sdx.sweeps import space as spaces
from sdx.sweeps.cells import CellReturn, Ending, composed_by_hydra

if TYPE_CHECKING:
    from sdx.sweeps.study import Study, Trial

Point = tuple[str, ...]
"""Of the space, as overrides."""


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


class OptunaSweeper(Sweeper):
    """Searches with Optuna. The arguments are those of `OptunaConfig`."""

    def __init__(
        self,
        objective: str,
        trials: int,
        jobs: int,
        study: str | None,
        storage: str,
        seed: int,
        params: Mapping[str, str] | None,
    ) -> None:
        self.objective = objective
        self.trials = trials
        self.jobs = jobs
        self.study = study
        self.storage = Path(storage)
        self.seed = seed
        self.params = params or {}
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None
        self.hydra_context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        """Searches until there are enough trials, and prints the best.

        Raises:
            InputError: a search that cannot work, before a cell is started.
        """
        self._check()
        from sdx.sweeps.study import Search, opened

        assert self.hydra_context
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides(arguments)
        named = {override.get_key_element() for override in overrides}
        more = parser.parse_overrides([f"{key}={value}" for key, value in self.params.items()])
        overrides += [override for override in more if override.get_key_element() not in named]
        self.fixed, self.space = spaces.split(overrides)
        search = Search(self.objective, spaces.written(self.space), spaces.deciding(overrides))
        prefix = self._cell(spaces.corner(self.space)).rpartition("-")[0]
        self.name = self.study or f"{prefix}-{sha256(repr(search).encode()).hexdigest()[:8]}"
        self.launched = 0
        if self.objective != objectives.VALIDATION:
            _warn(f"{objectives.KEY}={self.objective} is of a test set: what it chooses is fitted to that test")
        try:
            with writing(self.storage), opened(self.storage, self.name, search, self.space, self.seed) as study:
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
                "hydra/launcher start the ranks of a cell"
            )
        if self.config and self.config.plan:
            raise InputError("plan=true plans cells that are known; give it without hydra/sweeper=optuna")

    def _search(self, study: "Study") -> None:
        waiting = study.interrupted()
        done = sum(trial.value is not None for trial in study.trials())
        missing = self.trials - done - len(waiting)
        print(f"study    {self.storage / self.name}.journal: {done} of {self.trials} trials done", flush=True)
        while waiting or missing > 0:
            batch, waiting = waiting[: self.jobs], waiting[self.jobs :]
            while len(batch) < self.jobs and missing > 0:
                batch.append(study.start(self._cell(study.ask()[1])))
                missing -= 1
            self._run(study, batch)
            self._publish(study)
        self._publish(study)
        self._conclude(study)

    def _cell(self, values: dict[str, Any]) -> str:
        """The name of the cell's run directory.

        Raises:
            InputError: it will not have the objective.
        """
        assert self.config
        assert self.hydra_context
        overrides = [*self.fixed, *spaces.assigned(self.space, values)]
        cfg = composed_by_hydra(self.hydra_context, self.config, overrides)
        from sdx.run import typed

        name = str(OmegaConf.select(cfg, "hydra.sweep.subdir"))
        with open_dict(cfg):
            del cfg["hydra"]
        objectives.check(self.objective, typed(cfg))
        return name

    def _run(self, study: "Study", batch: Sequence["Trial"]) -> None:
        """Each point once: what has a value already is told it, and of two that are the same one is launched."""
        known: dict[Point, float | None] = {
            self._point(trial): trial.value for trial in study.trials() if trial.value is not None
        }
        new = list(dict.fromkeys(point for trial in batch if (point := self._point(trial)) not in known))
        assert self.launcher
        if new:
            returns = self.launcher.launch([[*self.fixed, *point] for point in new], initial_job_idx=self.launched)
            self.launched += len(new)
            ended = ((point, one) for point, one in zip(new, returns, strict=True) if not _interrupted(one))
            known |= {point: self._value(one) for point, one in ended}
        for trial in batch:
            point = self._point(trial)
            if point in known:
                study.tell(trial, known[point])
            shown = "interrupted" if point not in known else "failed" if known[point] is None else f"{known[point]:.6g}"
            print(f"trial    {trial.number}: {self.objective} {shown}  {' '.join(point)}", flush=True)

    def _point(self, trial: "Trial") -> Point:
        return tuple(spaces.assigned(self.space, trial.values))

    def _value(self, returned: JobReturn) -> float | None:
        """The objective; none where the cell failed."""
        if returned.status is not JobStatus.COMPLETED:
            return None
        found = objectives.value(_directory(returned), self.objective)
        return found if math.isfinite(found) else None

    def _publish(self, study: "Study") -> None:
        from sdx.sweeps.study import publish

        trials = [(trial, [*self.fixed, *self._point(trial)]) for trial in study.trials()]
        publish(self.storage / f"{self.name}.json", self.name, self.objective, trials)

    def _conclude(self, study: "Study") -> None:
        from sdx.sweeps.study import best

        found = best(study.trials())
        if not found:
            print(f"best     none: no trial of {self.name} has a value", flush=True)
            return
        command = shlex.join(["python", "-m", "sdx", *self.fixed, *self._point(found)])
        print(f"best     trial {found.number}: {self.objective} {found.value:.6g}, cell {found.cell}")
        print(f"command  {command}")
        print(f"trials   {self.storage / self.name}.json", flush=True)


def _directory(returned: JobReturn) -> Path:
    assert returned.hydra_cfg is not None
    return Path(returned.hydra_cfg.hydra.runtime.output_dir)


def _interrupted(returned: JobReturn) -> bool:
    """Whether the cell was asked to leave: it goes on when the search is started again."""
    return isinstance(returned, CellReturn) and returned.ending is Ending.interrupted


def _warn(text: str) -> None:
    print(f"sdx: warning: {text}", file=sys.stderr)
