"""Whether the hub has what a run would fetch, before anything is fetched, and why not, in one line with the fix."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import Enum
from itertools import islice
from pathlib import Path, PurePosixPath
from queue import Empty, SimpleQueue
from textwrap import shorten
from threading import Thread

from sdx import InputError
from sdx.store.hub_source import HubSource

ANSWER_S = 10.0
"""How long one request waits for the hub."""
PATIENCE_S = 20.0
"""How long all requests wait for the next answer: a request's own limit does not cover the look-up of the address."""
RETRY_PAUSES_S = (1.0, 3.0)
"""Pauses before a busy hub is asked again."""


class Cause(str, Enum):
    """Why a source cannot be fetched."""

    gated = "gated"
    """The hub has the source and asks who wants it."""
    missing = "not there"
    """The hub answers that it does not have the source."""
    unreachable = "hub does not answer"
    busy = "hub is busy"
    failed = "cannot be fetched"
    """Anything else, such as a cache that cannot be written."""


class Unavailable(InputError):
    """A source cannot be fetched.

    Args:
        reason: the end of the message, with the fix.
        detail: the error of the hub or its client.
    """

    def __init__(self, source: HubSource, cause: Cause, reason: str, detail: str = "") -> None:
        super().__init__(f"{source.where} at {source.revision} {reason}")
        self.source, self.cause, self.detail = source, cause, detail


@dataclass(frozen=True)
class HubFile(HubSource):
    """A file of a dataset."""

    file: str = ""

    @property
    def where(self) -> str:
        return f"{self.group}.hub_id={self.hub_id} {self.group}.file={self.file}"

    def path(self) -> Path | None:
        """The file in the hub's local cache."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(**self.location)
        return Path(found) if isinstance(found, str) else None

    def cached(self) -> bool:
        return self.path() is not None

    def probe(self) -> None:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        get_hf_file_metadata(hf_hub_url(**self.location), timeout=ANSWER_S)

    def missing_reason(self) -> str:
        names = sorted(_siblings(self), key=lambda name: -SequenceMatcher(None, name, self.file).ratio())
        listed = shorten(", ".join(names), 400, placeholder=" and more")
        return (
            f"is not there; {f'there are {listed}; ' if names else ''}give one that is as {self.group}.file=..., or "
            f"another commit as {self.group}.revision=...; {self.alternative}"
        )

    @property
    def location(self) -> dict[str, str]:
        """The arguments by which the hub's client knows the file."""
        return {"repo_id": self.hub_id, "filename": self.file, "revision": self.revision, "repo_type": self.repo_type}


def check_available(sources: Iterable[HubSource]) -> None:
    """Raises InputError for the first unavailable source, with the names of the others."""
    if not (found := find_unavailable(sources)):
        return
    first, *others = found
    if not others:
        raise first
    named = [f"{other.source.where} ({other.cause.value})" for other in others if other.cause != Cause.unreachable][:3]
    more = f", {len(others)} in all" if len(others) > len(named) else ""
    raise InputError(f"{first}. Also unavailable: {', '.join(named) or 'other sources'}{more}")


def find_unavailable(sources: Iterable[HubSource]) -> list[Unavailable]:
    """Why sources that the hub's local cache lacks cannot be fetched, in their order. Nothing is fetched.

    Several sources are asked for at once. As soon as the hub is found unreachable, the others are not waited for.
    """
    wanted = [source for source in dict.fromkeys(sources) if not source.cached()]
    if not wanted:
        return []
    from huggingface_hub import is_offline_mode

    if is_offline_mode():
        return [_unreachable(source, "HF_HUB_OFFLINE is set") for source in wanted]
    queue: SimpleQueue[tuple[HubSource, Unavailable | None]] = SimpleQueue()
    waiting = iter(wanted)

    def probe_each() -> None:
        for source in waiting:  # shared by all threads
            queue.put((source, why_unavailable(source)))

    for _ in range(8):
        Thread(target=probe_each, daemon=True).start()  # a daemon because the look-up of an address may hang
    found: dict[HubSource, Unavailable | None] = {}
    reason = f"no answer within {PATIENCE_S:.0f} s"
    try:
        while len(found) < len(wanted):
            source, error = queue.get(timeout=PATIENCE_S)
            found[source] = error
            if error and error.cause is Cause.unreachable:
                reason = error.detail
                break
    except Empty:
        pass
    list(waiting)  # leaves nothing to the threads
    answers = [found[source] if source in found else _unreachable(source, reason) for source in wanted]
    return [error for error in answers if error]


def why_unavailable(source: HubSource) -> Unavailable | None:
    """Why the hub does not give a source; None if it does."""
    for pause in (*RETRY_PAUSES_S, None):
        try:
            source.probe()
            return None
        except Exception as error:  # the client has a class for each reason, its HTTP library others
            found = explain(source, error)
        if found.cause is not Cause.busy or pause is None:
            return found
        time.sleep(pause)
    return None


def explain(source: HubSource, error: Exception) -> Unavailable:
    """An error of the hub's client in words that help the user."""
    from huggingface_hub import errors

    if isinstance(error, Unavailable):
        return error
    detail = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.LocalEntryNotFoundError):
        cause = error.__cause__
        return explain(source, cause) if isinstance(cause, Exception) else _unreachable(source, detail)
    if isinstance(error, errors.GatedRepoError):
        return gated(source, detail)
    if isinstance(error, errors.RevisionNotFoundError):
        reason = f"is not there: {source.hub_id} has no such commit; give one of {_page(source)}/commits/main as "
        return Unavailable(source, Cause.missing, f"{reason}{source.group}.revision=...", detail)
    if isinstance(error, errors.EntryNotFoundError):
        return Unavailable(source, Cause.missing, source.missing_reason(), detail)
    if isinstance(error, errors.RepositoryNotFoundError):
        reason = f"is not there: the hub has no {source.repo_type} {source.hub_id}, or it is private; give another "
        reason += f"{source.group}.hub_id=..., or read it with {_account()}; {source.alternative}"
        return Unavailable(source, Cause.missing, reason, detail)
    if status in (401, 403):
        reason = f"may not be read ({detail}); read it with {_account()}; {source.alternative}"
        return Unavailable(source, Cause.gated, reason, detail)
    if status and (status >= 500 or status in (408, 425, 429)):
        reason = f"is not in the local cache, and the hub is busy (status {status}); {source.alternative}"
        return Unavailable(source, Cause.busy, reason, detail)
    if status is None and _is_network(error):
        return _unreachable(source, detail)
    return Unavailable(source, Cause.failed, f"cannot be fetched ({detail}); {source.alternative}", detail)


def gated(source: HubSource, detail: str = "") -> Unavailable:
    """The error for a source with a licence that the user has to accept."""
    reason = f"is gated: accept its licence at {_page(source)} with {_account()}; {source.alternative}"
    return Unavailable(source, Cause.gated, reason, detail)


def _unreachable(source: HubSource, detail: str) -> Unavailable:
    reason = f"is not in the local cache, and the hub does not answer ({detail}); {source.alternative}"
    return Unavailable(source, Cause.unreachable, reason, detail)


def _page(source: HubSource) -> str:
    """The address of a source for people."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{'datasets/' if source.repo_type == 'dataset' else ''}{source.hub_id}"


def _account() -> str:
    from huggingface_hub import get_token

    return "the account of your HF_TOKEN" if get_token() else "an account, and set HF_TOKEN to a token of it"


def _is_network(error: Exception) -> bool:
    if type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "requests"):
        return True
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return True
    return isinstance(error, OSError) and error.errno in (None, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN)


def _siblings(source: HubFile) -> list[str]:
    """The entries of the folder where a file should be, or of the nearest folder above that exists."""
    from huggingface_hub import HfApi, errors

    for folder in PurePosixPath(source.file).parents:
        at = None if str(folder) == "." else str(folder)
        try:
            tree = HfApi().list_repo_tree(source.hub_id, at, revision=source.revision, repo_type=source.repo_type)
            return [entry.path for entry in islice(tree, 5000)]
        except errors.EntryNotFoundError:
            continue
        except Exception:  # the file is missing, whatever the hub says about others
            break
    return []
