"""The cells of a sweep: composed, checked before the first of them starts, and judged by what each left behind."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from logging import LogRecord, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from sdx import InputError
from sdx.config import Stages
from sdx.models.precision import ANY_GPU, Settled, planned
from sdx.options import conformity
from sdx.options.gate import STUMBLES, stumbled
from sdx.process.failure import ERROR
from sdx.tracking.state import STATE, State, read_state

if TYPE_CHECKING:
    from sdx.methods.base import Work

log = getLogger("sdx")

T = TypeVar("T")
SAY_S = 5.0
"""Between two words on how far a large sweep is."""
CANCELLED = "JobState=CANCELLED"
"""By `scancel`, as SLURM says it: a rank that waits for another cannot say so itself."""
UNPREPARED = "Reason=DependencyNeverSatisfied"
"""Cancelled by SLURM, since the job that makes its data failed."""
SWEEP_ALONE = ("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweeper", "hydra.sweep", "hydra.mode")
"""Overrides that say how to launch the cells, and not what a cell is."""


class Ending(str, Enum):
    """How a cell of the sweep ended."""

    done = "done"
    skipped = "skipped"
    """It was done before."""
    failed = "failed"
    interrupted = "interrupted"
    """It left when it was asked to, and nothing starts it again."""


@dataclass
class SweepCell:
    """One cell of a sweep."""

    number: int
    overrides: list[str]
    """What follows `python -m sdx` when it is run alone."""
    given: list[str]
    """Those of them that the sweep chose."""
    config: DictConfig
    """Without hydra's own part."""
    run_dir: Path
    ending: Ending | None = None
    """None until it has ended."""
    error: str = ""
    log: Path | None = None
    """What it prints, where that is not this terminal."""

    @property
    def name(self) -> str:
        return self.run_dir.name


class CellReturn(JobReturn):
    """What Hydra hears of a cell. A failed one has no value, and the sweep goes on."""

    ending: Ending | None = None

    @property
    def return_value(self) -> Any:
        return None

    @return_value.setter
    def return_value(self, value: Any) -> None:
        """There is none."""


def composed_by_hydra(context: HydraContext, config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The whole configuration of a cell that these overrides of the sweep's configuration describe.

    Raises:
        InputError: it has a key or a value that no cell can have.
    """
    try:
        composed = context.config_loader.load_sweep_config(config, list(overrides))
    except (HydraException, InputError):
        raise
    except STUMBLES as error:
        raise stumbled(list(overrides), error) from error
    conformity.check(composed)
    return composed


def compose(context: HydraContext, config: DictConfig, overrides: Sequence[str], number: int) -> SweepCell:
    """The cell that these overrides of the sweep's configuration describe."""
    composed = composed_by_hydra(context, config, overrides)
    with open_dict(composed):
        composed.hydra.job.id = composed.hydra.job.num = number
    directories = composed.hydra.sweep
    run_dir = Path(directories.dir, directories.subdir).absolute()
    alike = _written(composed.hydra.run, "dir") == f"{_written(directories, 'dir')}/{_written(directories, 'subdir')}"
    if not alike and Path(composed.hydra.run.dir).absolute() != run_dir:  # where the cell's own process works
        raise InputError(
            "hydra.run.dir and hydra.sweep.dir: a cell's directory is named by what it is; set runs_dir=... for all of "
            "them"
        )
    own = [one for one in config.hydra.overrides.hydra if not one.lstrip("+~").startswith(SWEEP_ALONE)]
    own += _searched(config, own)
    with open_dict(composed):
        del composed["hydra"]
    return SweepCell(number, [*own, *overrides], list(overrides), composed, run_dir)


def _written(config: DictConfig, key: str) -> Any:
    """A value as it was given, with its interpolations: to resolve a cell's name takes long in a large sweep."""
    return OmegaConf.to_container(config, resolve=False)[key]  # type: ignore[index, call-overload]


def compose_all(
    context: HydraContext, config: DictConfig, given: Sequence[Sequence[str]], first_number: int
) -> list[SweepCell]:
    """The cells of all these overrides.

    Raises:
        InputError: one of them has a key or a value that no cell can have.
    """
    found = []
    for number, overrides in enumerate(_told(given, "composed")):
        try:
            found.append(compose(context, config, overrides, first_number + number))
        except InputError as error:
            raise InputError(f"{error}{_which(_distinct(given)[number], len(given))}") from None
    return found


def _searched(config: DictConfig, own: Sequence[str]) -> list[str]:
    """The directory given as --config-dir, as an override for the cells' processes."""
    sources = config.hydra.runtime.config_sources
    found = [source.path for source in sources if source.provider == "command-line"]
    if not found or any("hydra.searchpath" in one for one in own):
        return []
    return [f"hydra.searchpath=[file://{','.join(found)}]"]


def check_alone(context: HydraContext, cell: SweepCell) -> None:
    """Raises InputError for a cell whose own process could not compose what the sweep did."""
    try:
        context.config_loader.load_configuration("config", list(cell.overrides), RunMode.RUN)
    except (HydraException, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"a cell of the sweep cannot be composed by itself ({reason}); an experiment with options of "
            "hydra.launcher or hydra.sweeper has to choose it, too: `override /hydra/launcher: slurm` in its defaults"
        ) from None


def named(cells: Sequence[SweepCell]) -> list[str]:
    """What each of them has that not all have."""
    return _distinct([cell.given for cell in cells])


def _distinct(given: Sequence[Sequence[str]]) -> list[str]:
    shared = set.intersection(*map(set, given)) if len(given) > 1 else set()
    return [" ".join(one for one in its if one not in shared) for its in given]


def _which(name: str, count: int) -> str:
    """Names the cell that an error is about."""
    return f" (the cell {name}, one of {count}; none was started)" if name and count > 1 else ""


def check(cells: Sequence[SweepCell]) -> "list[tuple[Settled, Work]]":
    """The typed configuration and the steps of each cell; notes which of them are done.

    What a cell will compute in where it runs is known here if it has begun, and in a plan.

    Raises:
        InputError: one of them cannot work.
    """
    from sdx.planning.hardware import suited_to
    from sdx.run import prepare, typed

    found = []
    with _each_message_once():  # the cells have much in common, such as which engine translates
        for cell, name in zip(_told(cells, "checked"), named(cells), strict=True):
            try:
                config = typed(cell.config)
                settled = planned(config, cell.run_dir, suited_to(config.backbone) if config.plan else ANY_GPU)
                work = prepare(settled.config, cell.run_dir)
            except InputError as error:
                raise InputError(f"{error}{_which(name, len(cells))}") from None
            if is_done(cell.run_dir, {step.key for step in work.ends}):
                cell.ending = Ending.skipped
            found.append((settled, work))
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
            log.info("%-12s %d of %d cells %s", "sweep", number, len(what), done)
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


def judge(cell: SweepCell, exit_code: int | None = None, known: str = "") -> None:
    """Says how a cell ended that runs no more, by the files it left.

    Args:
        exit_code: of its process, negative for a signal; none where it is not known.
        known: what else is known of its end.
    """
    left = read_state(cell.run_dir) or {}
    state, error = left.get("state"), left.get("error") or ""
    wanted = State.prepared if cell.config.stages is Stages.prepare else State.done
    if state == wanted and not exit_code:
        cell.ending = Ending.done
    elif state == State.interrupted or exit_code == os.EX_TEMPFAIL or (CANCELLED in known and UNPREPARED not in known):
        cell.ending, cell.error = Ending.interrupted, error or known
    else:
        cell.ending = Ending.failed
        cell.error = error if state == State.failed else _last_words(cell, state == State.prepared, exit_code, known)


def _last_words(cell: SweepCell, prepared: bool, exit_code: int | None, known: str) -> str:
    try:
        return (cell.run_dir / ERROR).read_text(encoding="utf-8", errors="replace").splitlines()[-1]  # of another rank
    except (OSError, IndexError):
        pass
    what = "ended without a word"
    if prepared:
        what = "its data are there, but the training left the queue before it began"
    elif UNPREPARED in known:
        what = "the job that makes its data ended without a word"
    known = known or ("" if exit_code is None else f"exit code {exit_code}")
    return f"{what} ({known or 'killed: out of memory, or by somebody'})"


def returns(cells: Sequence[SweepCell]) -> list[JobReturn]:
    """For Hydra's sweepers."""
    return [_return(cell) for cell in cells]


def _return(cell: SweepCell) -> JobReturn:
    done = cell.ending in (Ending.done, Ending.skipped)
    its = OmegaConf.create({"hydra": {"runtime": {"output_dir": str(cell.run_dir)}}})
    status = JobStatus.COMPLETED if done else JobStatus.FAILED
    returned = CellReturn(overrides=cell.given, hydra_cfg=its, task_name="sdx", status=status)
    returned.ending = cell.ending
    return returned
