"""The store of a search: the points that were tried and their values. A search continues trials that it left running.

Each study is a journal file, to which Optuna appends a line for every change and flushes it to the disk: unlike SQLite,
this works on file systems with weak locks, such as NFS. A searching process holds a lock on the study, so a trial that
is running in a study without a lock was interrupted.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from sdx import InputError
from sdx.store import locks
from sdx.store.files import read_rows
from sdx.sweeps.space import Space, to_overrides

KEY = "hydra.sweeper.study"
RUN = "cell"
"""Attribute of a trial: the name of its run directory, set last. Studies of earlier versions use this key, too."""
SEARCH = "search"
"""Attribute of a study: its `Search`."""


@dataclass(frozen=True)
class Search:
    """What must stay the same, so that the trials of a study are comparable."""

    objective: str
    space: dict[str, Any]
    """As `space.as_json`."""
    fixed: list[str]
    """As `space.deciding`."""


@dataclass(frozen=True)
class Study:
    """A study that `opened` has opened."""

    study: optuna.Study
    space: Space
    seed: int

    def start(self, run_name: Callable[[Sequence[str]], str]) -> FrozenTrial:
        """Draws the next point to try.

        The draw depends on the seed, the trial's number and the results so far, so an interrupted search continues as
        if it had not been interrupted. A sampler with the lifetime of a process would repeat its first draws.
        `run_name` names the run directory of a point.
        """
        number = len(self.study.get_trials(deepcopy=False))
        self.study.sampler = TPESampler(seed=Random(f"trial {self.seed} {number}").getrandbits(32))
        trial = self.study.ask(dict(self.space))
        trial.set_user_attr(RUN, run_name(to_overrides(self.space, trial.params)))
        return self.trials()[-1]

    def trials(self) -> list[FrozenTrial]:
        """All trials with a run, in order. Those that are RUNNING when a study is opened were interrupted."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if RUN in trial.user_attrs]

    def point(self, trial: FrozenTrial) -> tuple[str, ...]:
        """The point of a trial as overrides."""
        return to_overrides(self.space, trial.params)

    def finish(self, trial: FrozenTrial, value: float | None) -> None:
        """Stores the value of a trial; none if its run failed."""
        self.study.tell(trial.number, value, TrialState.FAIL if value is None else TrialState.COMPLETE)


@contextmanager
def opened(directory: Path, name: str, search: Search, space: Space, seed: int) -> Iterator[Study]:
    """Opens the study of that name for this process alone, and creates it if necessary.

    Raises InputError if another process has it open, or if it has trials of another search.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directory.mkdir(parents=True, exist_ok=True)
    locks.check(directory, f"hydra.sweeper.storage={directory}")
    journal = directory / f"{name}.journal"
    with locks.free(directory / name) as nobody:
        if not nobody:
            raise InputError(
                f"{KEY}={name} is being searched by another process, which holds {directory / name}.lock; wait for it, "
                f"or give another {KEY}=..."
            )
        _mend(journal)
        storage = JournalStorage(JournalFileBackend(str(journal), JournalFileOpenLock(str(journal))))
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        _check(study, name, search)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if RUN not in trial.user_attrs:  # the last search died while it drew the trial
                study.tell(trial.number, state=TrialState.FAIL)
        yield Study(study, space, seed)


def _mend(journal: Path) -> None:
    """Removes what a killed process may leave: a torn last line, and Optuna's own lock on the file.

    Raises InputError if another line is damaged.
    """
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if journal.exists():
        with journal.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
        try:
            read_rows(journal)
        except InputError as error:
            raise InputError(f"{error}, or give another {KEY}=...") from None


def _check(study: optuna.Study, name: str, search: Search) -> None:
    wanted = asdict(search)
    stored = study.user_attrs.get(SEARCH)
    if stored is None:
        study.set_user_attr(SEARCH, wanted)
        return
    for what, now in wanted.items():
        if (before := stored[what]) != now:
            raise InputError(
                f"{KEY}={name} has trials of another search, {what} {_shown(before)} and not {_shown(now)}; give "
                f"another {KEY}=..., or the same again"
            )


def _shown(part: Any) -> str:
    if isinstance(part, dict):
        return " ".join(f"{key}={_range(distribution)}" for key, distribution in part.items())
    return (" ".join(part) if isinstance(part, list) else str(part)) or "none"


def _range(distribution: Mapping[str, Any]) -> str:
    given = distribution["attributes"]
    if "choices" in given:
        return f"choice({','.join(given['choices'])})"
    ends = f"{given['low']}..{given['high']}"
    return f"{ends} in steps of {given['step']}" if given["step"] else f"{ends} (log)" if given["log"] else ends
