"""The runs of a sweep: composed, checked before the first of them starts, and at the end judged by their files."""

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from logging import LogRecord, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from sdx.options import schema
from sdx.options.checks import UNFORESEEN, not_composable
from sdx.process.failure import ERROR
from sdx.process.progress import Progress
from sdx.store.files import read_json
from sdx.store.run_dir import RESULTS
from sdx.tracking.state import STATE, RunState, read_state

if TYPE_CHECKING:
    from sdx.methods.base import RunPlan

log = getLogger("sdx")

Composed = dict[tuple[str, ...], DictConfig]
"""Overrides that choose options -> the configuration that they compose."""
UNPREPARED = "Reason=DependencyNeverSatisfied"
"""SLURM cancelled the job because the job that makes its data failed."""
LAUNCH_OPTIONS = ("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper", "hydra.sweep", "hydra.mode")
"""Options of a sweep that its runs do not have."""


@dataclass
class SweepRun:
    """One run of a sweep."""

    number: int
    overrides: list[str]
    """What follows `python -m sdx` to start this run alone."""
    given: list[str]
    """The overrides that the sweep gives this run."""
    config: DictConfig
    """Without hydra's own part."""
    run_dir: Path
    state: RunState | None = None
    """Done, skipped, failed or interrupted; none until the run has ended."""
    error: str = ""
    log: Path | None = None
    """The file with the run's output, if that is not this terminal."""

    @property
    def name(self) -> str:
        return self.run_dir.name


def compose(
    context: HydraContext, config: DictConfig, overrides: Sequence[str], number: int, composed: Composed
) -> SweepRun:
    """The run with these overrides of the sweep's configuration. Reads and extends what was composed for other runs.

    Raises InputError for a key or a value that no run can have.
    """
    cfg = _compose(context, config, overrides, composed)
    with open_dict(cfg):
        cfg.hydra.job.id = cfg.hydra.job.num = number
    sweep = cfg.hydra.sweep
    run_dir = Path(sweep.dir, sweep.subdir).absolute()
    raw: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg.hydra, ["run", "sweep"]))  # resolving names takes long
    same = raw["run"]["dir"] == f"{raw['sweep']['dir']}/{raw['sweep']['subdir']}"
    if not same and Path(cfg.hydra.run.dir).absolute() != run_dir:  # where the run's own process would work
        raise InputError(
            "hydra.run.dir and hydra.sweep.dir: a run's directory is named by what it is; set runs_dir=... for all of "
            "them"
        )
    own = [text for text in config.hydra.overrides.hydra if not text.lstrip("+~").startswith(LAUNCH_OPTIONS)]
    paths = [source.path for source in config.hydra.runtime.config_sources if source.provider == "command-line"]
    if paths and not any("hydra.searchpath" in text for text in own):  # the directory of --config-dir
        own.append(f"hydra.searchpath=[file://{','.join(paths)}]")
    with open_dict(cfg):
        del cfg["hydra"]
    return SweepRun(number, [*own, *overrides], list(overrides), cfg, run_dir)


def _compose(context: HydraContext, config: DictConfig, overrides: Sequence[str], composed: Composed) -> DictConfig:
    """Hydra takes 0.2 s to compose a configuration, so it only composes options; values are set in a copy."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        values = [override for override in parsed if _sets_a_value(context, override)]
        options = tuple(override.input_line or "" for override in parsed if override not in values)
        if options not in composed:
            composed[options] = context.config_loader.load_sweep_config(config, list(options))
        cfg = copy.deepcopy(composed[options])
        ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
        cfg.hydra.overrides.task = [override.input_line for override in parsed if not override.is_hydra_override()]
    except (HydraException, InputError):
        raise
    except UNFORESEEN as error:
        raise not_composable(list(overrides), error) from error
    schema.check(cfg)
    return cfg


def _sets_a_value(context: HydraContext, override: Override) -> bool:
    """Whether the override does not choose files to compose."""
    if override.is_hydra_override() or override.package is not None:
        return False
    loader: Any = context.config_loader
    return not loader.repository.group_exists(override.key_or_group)


def compose_all(
    context: HydraContext, config: DictConfig, given: Sequence[Sequence[str]], first_number: int
) -> list[SweepRun]:
    """The runs with these overrides. Raises InputError for a key or a value that no run can have."""
    runs: list[SweepRun] = []
    composed: Composed = {}
    with Progress("sweep", len(given), "runs composed", delay_s=5.0) as bar:
        for overrides, label in zip(given, labels(given), strict=True):
            with _errors_name(label, len(given)):
                runs.append(compose(context, config, overrides, first_number + len(runs), composed))
            bar.update()
    return runs


def check_alone(context: HydraContext, run: SweepRun) -> None:
    """Raises InputError if the run's own process could not compose what the sweep did."""
    try:
        context.config_loader.load_configuration("config", list(run.overrides), RunMode.RUN)
    except (HydraException, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"a run of the sweep cannot be composed by itself ({reason}); an experiment with options of "
            "hydra.launcher or hydra.sweeper has to choose it, too: `override /hydra/launcher: slurm` in its defaults"
        ) from None


def labels(given: Sequence[Sequence[str]]) -> list[str]:
    """A label for each run, by its overrides: those that not all runs share."""
    shared = set.intersection(*map(set, given)) if len(given) > 1 else set()
    return [" ".join(text for text in overrides if text not in shared) for overrides in given]


@contextmanager
def _errors_name(label: str, count: int) -> Iterator[None]:
    """Inside the block, an InputError gets the label of the run that it is about."""
    try:
        yield
    except InputError as error:
        which = f" (the run {label}, one of {count}; none was started)" if label and count > 1 else ""
        raise InputError(f"{error}{which}") from None


def check(runs: Sequence[SweepRun]) -> "list[tuple[ResolvedConfig, RunPlan]]":
    """The typed configuration and the steps of each run; marks runs that are done as skipped.

    The precision of a run is that of its first start, or with plan=true of the hardware that the plan assumes. Raises
    InputError if a run cannot work.
    """
    from sdx.planning.hardware import suited_to
    from sdx.run import prepare, typed

    checked = []
    with _each_message_once(), Progress("sweep", len(runs), "runs checked", delay_s=5.0) as bar:
        for run, label in zip(runs, labels([run.given for run in runs]), strict=True):
            with _errors_name(label, len(runs)):
                config = typed(run.config)
                resolved = resolve_for_plan(config, run.run_dir, suited_to(config.backbone) if config.plan else ANY_GPU)
                plan = prepare(resolved.config, run.run_dir)
            if is_done(run.run_dir, {step.key for step in plan.ends}):
                run.state = RunState.skipped
            checked.append((resolved, plan))
            bar.update()
    return checked


@contextmanager
def _each_message_once() -> Iterator[None]:
    """Drops repeated log messages: runs have much in common, such as which engine translates."""
    logged: set[str] = set()

    def is_new(record: LogRecord) -> bool:
        before = len(logged)
        logged.add(record.getMessage())
        return len(logged) > before

    log.addFilter(is_new)
    try:
        yield
    finally:
        log.removeFilter(is_new)


def is_done(run_dir: Path, keys: set[str]) -> bool:
    """Whether the run has results of these steps; another version of sdx may have left results of other steps."""
    try:
        return keys <= {step["key"] for step in read_json(run_dir / RESULTS)["steps"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False


def clear_outcome(run_dir: Path) -> None:
    """Deletes the state and the error of an earlier start."""
    for name in (STATE, ERROR):
        (run_dir / name).unlink(missing_ok=True)


def set_outcome(run: SweepRun, exit_code: int | None = None, job_end: str = "") -> None:
    """Sets state and error of a run that has ended, by the files that it left.

    Args:
        exit_code: of its process, negative for a signal; none if unknown.
        job_end: what SLURM says about its job, `JobState=... Reason=... ExitCode=...`.
    """
    record = read_state(run.run_dir) or {}
    state, error = record.get("state"), record.get("error") or ""
    finished = RunState.prepared if run.config.stages is Stages.prepare else RunState.done
    # a rank that waits for another cannot write that it was cancelled by scancel
    cancelled = "JobState=CANCELLED" in job_end and UNPREPARED not in job_end
    if state is finished and not exit_code:
        run.state = RunState.done
    elif state is RunState.interrupted or exit_code == os.EX_TEMPFAIL or cancelled:
        run.state, run.error = RunState.interrupted, error or job_end
    else:
        run.state = RunState.failed
        run.error = error if state is RunState.failed else _unwritten_error(run, state, exit_code, job_end)


def _unwritten_error(run: SweepRun, state: RunState | None, exit_code: int | None, job_end: str) -> str:
    """Why a run failed whose rank 0 did not write it."""
    with suppress(OSError, IndexError):
        return (run.run_dir / ERROR).read_text(encoding="utf-8", errors="replace").splitlines()[-1]  # another rank's
    what = "ended without an error message"
    if state is RunState.prepared:
        what = "its data are there, but the training left the queue before it began"
    elif UNPREPARED in job_end:
        what = "the job that makes its data ended without an error message"
    known = job_end or ("" if exit_code is None else f"exit code {exit_code}")
    return f"{what} ({known or 'killed: out of memory, or by somebody'})"


def returned(run: SweepRun) -> JobReturn:
    """The run as Hydra's launchers return it. COMPLETED even if it failed, which would end Hydra's sweep."""
    result = JobReturn(overrides=run.given, task_name="sdx", status=JobStatus.COMPLETED)
    result.return_value = run
    return result
