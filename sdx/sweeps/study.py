"""The store of a search: which points were tried and what came of them. What is running when a search dies goes on.

One journal file a study, to which Optuna appends a line for every change and puts it on the disk: unlike SQLite it
works where a file system locks badly, as NFS does. A process that searches holds a lock on the study, so that what is
running in the store without one has been interrupted.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from sdx import InputError
from sdx.store import locks
from sdx.store.files import read_rows
from sdx.sweeps.space import Space

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

KEY = "hydra.sweeper.study"
RUN = "cell"
"""Of a trial: the name of its run directory. Noted last, when all else is there. Studies of earlier versions have this
name, too."""
SEARCH = "search"
"""Of a study: what it searches."""


@dataclass(frozen=True)
class Search:
    """What must stay as it is for trials to be comparable."""

    objective: str
    space: dict[str, Any]
    """As `space.written`."""
    fixed: list[str]
    """What all runs share, as `space.deciding`."""


class Study:
    """A study in its store. `opened` makes it."""

    def __init__(self, study: "optuna.Study", space: Space, seed: int) -> None:
        self._study = study
        self._space = space
        self._seed = seed
        self.tell = study.tell

    def start(self, run: Callable[[dict[str, Any]], str]) -> "FrozenTrial":
        """The next point to try.

        It depends on the seed, its number and the results so far: a search that was interrupted goes on as it would
        have. A sampler that lives as long as its process would begin with the same draws again.

        Args:
            run: names the run directory of a point.
        """
        from optuna.samplers import TPESampler

        number = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = TPESampler(seed=Random(f"trial {self._seed} {number}").getrandbits(32))
        trial = self._study.ask(dict(self._space))
        trial.set_user_attr(RUN, run(dict(trial.params)))
        return self.trials()[-1]

    def trials(self) -> "list[FrozenTrial]":
        """All that were started, in order. What is RUNNING when a study is opened was interrupted."""
        return [one for one in self._study.get_trials(deepcopy=False) if RUN in one.user_attrs]

    def drop_unstarted(self) -> None:
        """Ends trials of which the last search died before they were drawn whole."""
        from optuna.trial import TrialState

        for one in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if RUN not in one.user_attrs:
                self._study.tell(one.number, state=TrialState.FAIL)


@contextmanager
def opened(directory: Path, name: str, search: Search, space: Space, seed: int) -> Iterator[Study]:
    """The study of that name, made if it is not there; nobody else has it open.

    Raises:
        InputError: another process has, or it is of another search.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directory.mkdir(parents=True, exist_ok=True)
    locks.check(directory, f"hydra.sweeper.storage={directory}")
    journal = directory / f"{name}.journal"
    lock = FileLock(directory / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        raise InputError(
            f"{KEY}={name} is being searched by another process, which holds {lock.lock_file}; wait for it, or give "
            f"another {KEY}=..."
        ) from None
    try:
        _mend(journal)
        storage = JournalStorage(JournalFileBackend(str(journal), JournalFileOpenLock(str(journal))))
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        _check(study, name, search)
        found = Study(study, space, seed)
        found.drop_unstarted()
        yield found
    finally:
        lock.release()


def _mend(journal: Path) -> None:
    """Removes what a process left that died while it wrote: a torn last line, and Optuna's own lock on the file.

    Raises:
        InputError: a line is damaged.
    """
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if journal.exists():
        with journal.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
        try:
            read_rows(journal)
        except InputError as error:
            raise InputError(f"{error}, or give another {KEY}=...") from None


def _check(study: "optuna.Study", name: str, search: Search) -> None:
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
        return " ".join(f"{key}={_range(one)}" for key, one in part.items())
    return (" ".join(part) if isinstance(part, list) else str(part)) or "none"


def _range(distribution: Mapping[str, Any]) -> str:
    given = distribution["attributes"]
    if "choices" in given:
        return f"choice({','.join(given['choices'])})"
    ends = f"{given['low']}..{given['high']}"
    return f"{ends} in steps of {given['step']}" if given["step"] else f"{ends} (log)" if given["log"] else ends
