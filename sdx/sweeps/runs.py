"""The runs of a sweep: composed, checked before the first of them starts, and judged by what each left behind."""

import copy
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from logging import LogRecord, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from sdx import InputError
from sdx.config import Stages
from sdx.models.precision import ANY_GPU, ResolvedConfig, resolve_for_plan
from sdx.options import conformity
from sdx.options.gate import STUMBLES, stumbled
from sdx.process.failure import ERROR
from sdx.tracking.state import STATE, RunState, read_state

if TYPE_CHECKING:
    from sdx.methods.base import RunPlan

log = getLogger("sdx")

T = TypeVar("T")
Kept = dict[tuple[str, ...], DictConfig]
"""Overrides that choose options -> what they make of the configuration."""
SAY_S = 5.0
"""Between two messages on how far a large sweep is."""
CANCELLED = "JobState=CANCELLED"
"""By `scancel`, as SLURM says it: a rank that waits for another cannot say so itself."""
UNPREPARED = "Reason=DependencyNeverSatisfied"
"""Cancelled by SLURM, because the job that makes its data failed."""
SWEEP_ALONE = ("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper", "hydra.sweep", "hydra.mode")
"""Overrides that say how to launch the runs, and not what a run is."""


@dataclass
class SweepRun:
    """One run of a sweep."""

    number: int
    overrides: list[str]
    """What follows `python -m sdx` when it is run alone."""
    given: list[str]
    """Those of them that the sweep chose."""
    config: DictConfig
    """Without hydra's own part."""
    run_dir: Path
    state: RunState | None = None
    """How it ended: done, skipped, failed or interrupted; none until then."""
    error: str = ""
    log: Path | None = None
    """What it prints, where that is not this terminal."""

    @property
    def name(self) -> str:
        return self.run_dir.name


def composed_by_hydra(
    context: HydraContext, config: DictConfig, overrides: Sequence[str], kept: Kept | None = None
) -> DictConfig:
    """The whole configuration of a run that these overrides of the sweep's configuration describe.

    Hydra takes 0.2 s to compose one, so it composes what options make of the configuration, and single values are set
    in a copy.

    Args:
        kept: what was composed for other runs of the sweep.

    Raises:
        InputError: it has a key or a value that no run can have.
    """
    kept = {} if kept is None else kept
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        values = [override for override in parsed if _sets_a_value(context, override)]
        options = tuple(override.input_line or "" for override in parsed if override not in values)
        if options not in kept:
            kept[options] = context.config_loader.load_sweep_config(config, list(options))
        composed = copy.deepcopy(kept[options])
        ConfigLoaderImpl._apply_overrides_to_config(values, composed)
        composed.hydra.overrides.task = [one.input_line for one in parsed if not one.is_hydra_override()]
    except (HydraException, InputError):
        raise
    except STUMBLES as error:
        raise stumbled(list(overrides), error) from error
    conformity.check(composed)
    return composed


def _sets_a_value(context: HydraContext, override: Override) -> bool:
    """Whether it has no part in which files are composed."""
    if override.is_hydra_override() or override.package is not None:
        return False
    loader: Any = context.config_loader
    return not loader.repository.group_exists(override.key_or_group)


def compose(
    context: HydraContext, config: DictConfig, overrides: Sequence[str], number: int, kept: Kept | None = None
) -> SweepRun:
    """The run that these overrides of the sweep's configuration describe."""
    composed = composed_by_hydra(context, config, overrides, kept)
    with open_dict(composed):
        composed.hydra.job.id = composed.hydra.job.num = number
    directories = composed.hydra.sweep
    run_dir = Path(directories.dir, directories.subdir).absolute()
    alike = _written(composed.hydra.run, "dir") == f"{_written(directories, 'dir')}/{_written(directories, 'subdir')}"
    if not alike and Path(composed.hydra.run.dir).absolute() != run_dir:  # where the run's own process works
        raise InputError(
            "hydra.run.dir and hydra.sweep.dir: a run's directory is named by what it is; set runs_dir=... for all of "
            "them"
        )
    own = [one for one in config.hydra.overrides.hydra if not one.lstrip("+~").startswith(SWEEP_ALONE)]
    own += _searched(config, own)
    with open_dict(composed):
        del composed["hydra"]
    return SweepRun(number, [*own, *overrides], list(overrides), composed, run_dir)


def _written(config: DictConfig, key: str) -> Any:
    """A value as it was given, with its interpolations: to resolve a run's name takes long in a large sweep."""
    return OmegaConf.to_container(config, resolve=False)[key]  # type: ignore[index, call-overload]


def compose_all(
    context: HydraContext, config: DictConfig, given: Sequence[Sequence[str]], first_number: int
) -> list[SweepRun]:
    """The runs of all these overrides.

    Raises:
        InputError: one of them has a key or a value that no run can have.
    """
    found: list[SweepRun] = []
    kept: Kept = {}
    for number, overrides in enumerate(_told(given, "composed")):
        try:
            found.append(compose(context, config, overrides, first_number + number, kept))
        except InputError as error:
            raise InputError(f"{error}{_which(_distinct(given)[number], len(given))}") from None
    return found


def _searched(config: DictConfig, own: Sequence[str]) -> list[str]:
    """The directory given as --config-dir, as an override for the runs' processes."""
    sources = config.hydra.runtime.config_sources
    found = [source.path for source in sources if source.provider == "command-line"]
    if not found or any("hydra.searchpath" in one for one in own):
        return []
    return [f"hydra.searchpath=[file://{','.join(found)}]"]


def check_alone(context: HydraContext, run: SweepRun) -> None:
    """Raises InputError for a run whose own process could not compose what the sweep did."""
    try:
        context.config_loader.load_configuration("config", list(run.overrides), RunMode.RUN)
    except (HydraException, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"a run of the sweep cannot be composed by itself ({reason}); an experiment with options of "
            "hydra.launcher or hydra.sweeper has to choose it, too: `override /hydra/launcher: slurm` in its defaults"
        ) from None


def named(runs: Sequence[SweepRun]) -> list[str]:
    """What each of them has that not all have."""
    return _distinct([run.given for run in runs])


def _distinct(given: Sequence[Sequence[str]]) -> list[str]:
    shared = set.intersection(*map(set, given)) if len(given) > 1 else set()
    return [" ".join(one for one in its if one not in shared) for its in given]


def _which(name: str, count: int) -> str:
    """Names the run that an error is about."""
    return f" (the run {name}, one of {count}; none was started)" if name and count > 1 else ""


def check(runs: Sequence[SweepRun]) -> "list[tuple[ResolvedConfig, RunPlan]]":
    """The typed configuration and the steps of each run; notes which of them are done.

    What a run will compute in where it runs is known here if it has begun, and in a plan.

    Raises:
        InputError: one of them cannot work.
    """
    from sdx.planning.hardware import suited_to
    from sdx.run import prepare, typed

    found = []
    with _each_message_once():  # the runs have much in common, such as which engine translates
        for run, name in zip(_told(runs, "checked"), named(runs), strict=True):
            try:
                config = typed(run.config)
                resolved = resolve_for_plan(config, run.run_dir, suited_to(config.backbone) if config.plan else ANY_GPU)
                work = prepare(resolved.config, run.run_dir)
            except InputError as error:
                raise InputError(f"{error}{_which(name, len(runs))}") from None
            if is_done(run.run_dir, {step.key for step in work.ends}):
                run.state = RunState.skipped
            found.append((resolved, work))
    return found


@contextmanager
def _each_message_once() -> Iterator[None]:
    said: set[str] = set()

    def is_new(record: LogRecord) -> bool:
        before = len(said)
        said.add(record.getMessage())
        return len(said) > before

    log.addFilter(is_new)
    try:
        yield
    finally:
        log.removeFilter(is_new)


def _told(what: Sequence[T], done: str) -> Iterator[T]:
    """All of them; where they take long, the log says how far it is."""
    said = time.monotonic()
    for number, one in enumerate(what):
        if time.monotonic() - said > SAY_S:
            said = time.monotonic()
            log.info("%-12s %d of %d runs %s", "sweep", number, len(what), done)
        yield one


def is_done(run_dir: Path, keys: set[str]) -> bool:
    """Whether a report on these steps is there: one by an sdx with other steps does not count."""
    from sdx.store.files import read_json

    try:
        steps = read_json(run_dir / "results.json")["steps"]
        return keys <= {step["key"] for step in steps}
    except (OSError, ValueError, KeyError, TypeError):
        return False


def forget(run_dir: Path) -> None:
    """What an earlier attempt said of itself."""
    for name in (STATE, ERROR):
        (run_dir / name).unlink(missing_ok=True)


def judge(run: SweepRun, exit_code: int | None = None, known: str = "") -> None:
    """Says how a run ended, by the files it left.

    Args:
        exit_code: of its process, negative for a signal; none where it is not known.
        known: what else is known of its end.
    """
    left = read_state(run.run_dir) or {}
    state, error = left.get("state"), left.get("error") or ""
    wanted = RunState.prepared if run.config.stages is Stages.prepare else RunState.done
    if state is wanted and not exit_code:
        run.state = RunState.done
    elif (
        state is RunState.interrupted or exit_code == os.EX_TEMPFAIL or (CANCELLED in known and UNPREPARED not in known)
    ):
        run.state, run.error = RunState.interrupted, error or known
    else:
        run.state = RunState.failed
        run.error = error if state is RunState.failed else _last_words(run, state, exit_code, known)


def _last_words(run: SweepRun, state: RunState | None, exit_code: int | None, known: str) -> str:
    with suppress(OSError, IndexError):
        return (run.run_dir / ERROR).read_text(encoding="utf-8", errors="replace").splitlines()[-1]  # of another rank
    what = "ended without a word"
    if state is RunState.prepared:
        what = "its data are there, but the training left the queue before it began"
    elif UNPREPARED in known:
        what = "the job that makes its data ended without a word"
    known = known or ("" if exit_code is None else f"exit code {exit_code}")
    return f"{what} ({known or 'killed: out of memory, or by somebody'})"


def returned(run: SweepRun) -> JobReturn:
    """The run for sdx's sweepers, in the form that Hydra's launchers have. That a run failed does not end the sweep."""
    found = JobReturn(overrides=run.given, task_name="sdx", status=JobStatus.COMPLETED)
    found.return_value = run
    return found
