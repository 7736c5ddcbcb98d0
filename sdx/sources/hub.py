"""What a run fetches from the hub: asked for before anything is fetched, and what is wrong with it in one line.

A licence is spoken of where the hub refuses access, near names where it lacks a file, the network where no answer came.
"""

from __future__ import annotations

import errno
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import Enum
from itertools import islice
from pathlib import Path, PurePosixPath
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread

from sdx import InputError

ANSWER_S = 10.0
"""How long one request waits for the hub."""
PATIENCE_S = 20.0
"""How long all of them wait for the next answer: a request's own limit leaves out the look-up of the hub's address."""
AT_ONCE = 8
AGAIN_S = (1.0, 3.0)
"""Pauses before a hub that is busy is asked again."""
BUSY = (408, 425, 429)
NAMED_CHARACTERS = 400
"""Of names of files that are there instead, in a message."""
NAMED_SOURCES = 3
LISTED = 5000
"""Entries of a folder that are looked through."""
NETWORK = {
    getattr(errno, name)
    for name in ("ECONNREFUSED", "ECONNRESET", "EHOSTUNREACH", "ENETUNREACH", "ENETDOWN", "ETIMEDOUT", "EPIPE")
}


class State(str, Enum):
    """What keeps a source from being fetched."""

    gated = "gated"
    """The hub has it, and asks who wants it."""
    missing = "not there"
    """The hub answers that it does not have it."""
    silent = "hub does not answer"
    broken = "cannot be fetched"
    """Anything else, such as a cache that cannot be written."""


@dataclass(frozen=True)
class Refusal:
    """Why a source cannot be fetched."""

    source: HubSource
    state: State
    reason: str
    """In one line, with the fix but without the name of the source."""
    said: str = ""
    """By the hub or its client."""
    is_final: bool = True
    """Whether asking again would not help."""

    @property
    def message(self) -> str:
        return f"{self.source.where} at {self.source.revision} {self.reason}"


class Refused(Exception):
    """A source that cannot be had, as `HubSource.ask` found."""

    def __init__(self, state: State, reason: str) -> None:
        super().__init__(reason)
        self.state = state


@dataclass(frozen=True)
class HubSource(ABC):
    """Something at a commit of a repository on the hub."""

    group: str
    """What its keys begin with: `corpus`, `task.xnli.test`."""
    hub_id: str
    revision: str
    instead: str
    """What the user can do without the hub."""

    repo_type = "dataset"

    @property
    def where(self) -> str:
        """As messages name it."""
        return f"{self.group}.hub_id={self.hub_id}"

    @abstractmethod
    def cached(self) -> bool:
        """Whether the hub's local cache has it. Asks no network."""

    @abstractmethod
    def ask(self) -> None:
        """Asks the hub for it without fetching it; raises `Refused`, or an error of its client, if it cannot be had."""

    @abstractmethod
    def absent(self) -> str:
        """What to say where the repository and the commit are there, and it is not: a reason with the fix."""

    @property
    def page(self) -> str:
        """Its address for people."""
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/{'datasets/' if self.repo_type == 'dataset' else ''}{self.hub_id}"

    @property
    def gated(self) -> str:
        """What to say where its licence has to be accepted."""
        return f"is gated: accept its licence at {self.page} with {_account()}; {self.instead}"


@dataclass(frozen=True)
class HubFile(HubSource):
    """A file of a dataset."""

    file: str = ""

    @property
    def where(self) -> str:
        return f"{self.group}.hub_id={self.hub_id} {self.group}.file={self.file}"

    def path(self) -> Path | None:
        """Where the hub's local cache has it."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(**self.location)
        return Path(found) if isinstance(found, str) else None

    def cached(self) -> bool:
        return self.path() is not None

    def ask(self) -> None:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        get_hf_file_metadata(hf_hub_url(**self.location), timeout=ANSWER_S)

    def absent(self) -> str:
        listed = _listed(sorted(_beside(self), key=lambda name: -SequenceMatcher(None, name, self.file).ratio()))
        return (
            f"is not there; {listed}give one that is as {self.group}.file=..., or another commit as "
            f"{self.group}.revision=...; {self.instead}"
        )

    @property
    def location(self) -> dict[str, str]:
        """The arguments by which the hub's client knows it."""
        return {"repo_id": self.hub_id, "filename": self.file, "revision": self.revision, "repo_type": self.repo_type}


def refusals(sources: Iterable[HubSource]) -> list[Refusal]:
    """What is wrong with sources that the hub's local cache lacks, in their order. Nothing is fetched.

    Several are asked for at once. If no answer comes to one of them, the others are not waited for.
    """
    wanted = [source for source in dict.fromkeys(sources) if not source.cached()]
    if not wanted:
        return []
    from huggingface_hub import is_offline_mode

    if is_offline_mode():
        return [_silent(source, "HF_HUB_OFFLINE is set") for source in wanted]
    answered: dict[HubSource, Refusal | None] = {}
    reason = f"no answer within {PATIENCE_S:.0f} s"
    for source, refusal in _answers(wanted):
        answered[source] = refusal
        if refusal and refusal.state is State.silent and refusal.is_final:
            reason = refusal.said
            break
    found = [answered[source] if source in answered else _silent(source, reason) for source in wanted]
    return [refusal for refusal in found if refusal]


def refused(found: Sequence[Refusal]) -> InputError:
    """The error that tells of the first refusal, and which others there are."""
    first, *others = found
    if not others:
        return InputError(first.message)
    told = [f"{one.source.where} ({one.state.value})" for one in others if one.state is not State.silent]
    named = ", ".join(told[:NAMED_SOURCES]) or "others"
    more = f": {len(others)} in all" if len(others) > len(told[:NAMED_SOURCES]) else ""
    return InputError(f"{first.message}. So with {named}{more}")


def _answers(sources: Sequence[HubSource]) -> Iterator[tuple[HubSource, Refusal | None]]:
    """As they come; ends early where none comes any more."""
    queue: SimpleQueue[tuple[HubSource, Refusal | None]] = SimpleQueue()
    waiting, lock, left = iter(sources), Lock(), Event()

    def work() -> None:
        while not left.is_set():
            with lock:
                source = next(waiting, None)
            if source is None:
                return
            queue.put((source, refusal_of(source)))

    for _ in range(min(AT_ONCE, len(sources))):
        Thread(target=work, daemon=True).start()  # a daemon, for the look-up of an address may hang
    try:
        for _ in sources:
            yield queue.get(timeout=PATIENCE_S)
    except Empty:
        return
    finally:
        left.set()


def refusal_of(source: HubSource) -> Refusal | None:
    """What the hub says of a source; nothing if it can be fetched."""
    for pause in (*AGAIN_S, None):
        try:
            source.ask()
            return None
        except Exception as error:  # the client has a class for each reason, its HTTP library others
            refusal = explained(source, error)
        if refusal.is_final or pause is None:
            return refusal
        time.sleep(pause)
    return None


def explained(source: HubSource, error: Exception) -> Refusal:
    """An error of the hub's client in the words of the user."""
    from huggingface_hub import errors

    said = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, Refused):
        return Refusal(source, error.state, str(error), said)
    if isinstance(error, errors.LocalEntryNotFoundError):
        cause = error.__cause__
        return explained(source, cause) if isinstance(cause, Exception) else _silent(source, said)
    if isinstance(error, errors.GatedRepoError):
        return Refusal(source, State.gated, source.gated, said)
    if isinstance(error, errors.RevisionNotFoundError):
        reason = f"is not there: {source.hub_id} has no such commit; give one of {source.page}/commits/main as "
        return Refusal(source, State.missing, f"{reason}{source.group}.revision=...", said)
    if isinstance(error, errors.EntryNotFoundError):
        return Refusal(source, State.missing, source.absent(), said)
    if isinstance(error, errors.RepositoryNotFoundError):
        reason = f"is not there: the hub has no {source.repo_type} {source.hub_id}, or it is private; give another "
        reason += f"{source.group}.hub_id=..., or read it with {_account()}; {source.instead}"
        return Refusal(source, State.missing, reason, said)
    if status in (401, 403):
        return Refusal(
            source, State.gated, f"may not be read ({said}); read it with {_account()}; {source.instead}", said
        )
    if status and (status >= 500 or status in BUSY):
        return _silent(source, f"status {status}", is_final=False)
    if status is None and _is_network(error):
        return _silent(source, said)
    return Refusal(source, State.broken, f"cannot be fetched ({said}); {source.instead}", said)


def _account() -> str:
    from huggingface_hub import get_token

    return "the account of your HF_TOKEN" if get_token() else "an account, and set HF_TOKEN to a token of it"


def _silent(source: HubSource, reason: str, is_final: bool = True) -> Refusal:
    text = f"is not in the local cache, and the hub does not answer ({reason}); {source.instead}"
    return Refusal(source, State.silent, text, reason, is_final)


def _is_network(error: Exception) -> bool:
    if type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "requests"):
        return True
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return True
    return isinstance(error, OSError) and (error.errno is None or error.errno in NETWORK)


def _listed(names: Sequence[str]) -> str:
    """As many of the names as a message holds."""
    few: list[str] = []
    for name in names:
        if few and len(", ".join((*few, name))) > NAMED_CHARACTERS:
            break
        few.append(name)
    more = f" and {len(names) - len(few)} more" if len(names) > len(few) else ""
    return f"there are {', '.join(few)}{more}; " if few else ""


def _beside(source: HubFile) -> list[str]:
    """What is in the folder where a file should be, or in the nearest one above it that is there."""
    from huggingface_hub import HfApi, errors

    for folder in PurePosixPath(source.file).parents:
        at = None if str(folder) == "." else str(folder)
        try:
            tree = HfApi().list_repo_tree(source.hub_id, at, revision=source.revision, repo_type=source.repo_type)
            return [entry.path for entry in islice(tree, LISTED)]
        except errors.EntryNotFoundError:
            continue
        except Exception:  # the file is missing, whatever the hub says of others
            break
    return []
