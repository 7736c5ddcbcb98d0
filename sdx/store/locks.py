"""File locks on a disk that several nodes may share, and how to wait on it.

A lock is `flock` on `<path>.lock`: the kernel, or the server of a network file system, frees it when its holder dies.
While it is held, a thread rewrites `<path>.holder` every `BEAT_S` seconds. The note names host and process to those who
wait, and gives away two holders at once: the sign of a file system whose locks hold within one node only.
"""

import errno
import fcntl
import json
import math
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from logging import getLogger
from pathlib import Path

from filelock import FileLock

from sdx import InputError
from sdx.process.preemption import leave_if_asked

log = getLogger("sdx")

FIRST_PAUSE_S, LONGEST_PAUSE_S, GROWTH = 0.2, 5.0, 1.1
BEAT_S = 10.0
BEATS_WATCHED = 2.5
"""How long a note of another host is watched before its writer is taken for dead."""
SILENT_S = 600.0
"""A holder that has not been heard of for this long is reported, again and again."""
NOTE = ".holder"
"""Suffix of the note."""
TAKEN = (errno.EAGAIN, errno.EACCES)
MOUNTS = Path("/proc/mounts")
LOCAL_LOCKS = ("nolock", "local_lock=all", "local_lock=flock", "localflock", "nobrl")
"""Mount options of NFS, Lustre and SMB that keep locks within a node."""


def wait_until(true: Callable[[], bool]) -> None:
    """Asks often at first and in the end every five seconds: ranks wait for hours, on a disk that all of them share."""
    pause_s = FIRST_PAUSE_S
    while not true():
        leave_if_asked()
        time.sleep(pause_s)
        pause_s = min(pause_s * GROWTH, LONGEST_PAUSE_S)


@cache
def check(directory: Path, origin: str) -> None:
    """Tries once whether locks work in a directory, and warns if they hold within one node only.

    Args:
        origin: option and value that say where the directory lies.

    Raises:
        InputError: they do not work.
        OSError: the directory cannot be written.
    """
    if fault := _fault(directory):
        raise InputError(
            f"{origin} has no file locks ({fault}); give a directory on a file system with flock, or mount this one "
            "with it"
        )
    if option := next((one for one in _mount_options(directory) if one in LOCAL_LOCKS), None):
        log.warning(
            "%-12s %s is mounted with %s: its locks hold within a node only, and two nodes may make the same data at "
            "once; mount it without, or make the data first, on one node: stages=prepare",
            "locks",
            origin,
            option,
        )


def _fault(directory: Path) -> str | None:
    """What is wrong with `flock` there: another open file must be refused while one has the lock."""
    trial = directory / f".flock-{platform.node()}-{os.getpid()}"
    with trial.open("wb") as first, trial.open("wb") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return f"flock: {error.strerror}"
        else:
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                return None if error.errno in TAKEN else f"flock: {error.strerror}"
            return "flock gives the same lock to two at once"
        finally:
            trial.unlink(missing_ok=True)


def _mount_options(directory: Path) -> list[str]:
    """Those of the file system that the directory lies on; none where they cannot be known."""
    path, found = directory.resolve(), (Path("/"), "")
    try:
        mounts = [line.split(" ") for line in MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return []
    for _, point, _, options, *_ in mounts:
        place = Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), point))
        if path.is_relative_to(place) and len(place.parts) >= len(found[0].parts):
            found = place, options
    return found[1].split(",")


@dataclass(frozen=True)
class Holder:
    """Who holds a lock."""

    host: str
    pid: int
    beat: float
    """When it was written, by the holder's clock: seconds since 1970."""
    reads: Sequence[str] = ()
    """What it needs while it has the lock: keys of steps."""

    @classmethod
    def this_process(cls, reads: Sequence[str] = ()) -> "Holder":
        return cls(platform.node(), os.getpid(), time.time(), reads)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@contextmanager
def held(path: Path, origin: str, name: str, waits: Callable[[], None], reads: Sequence[str] = ()) -> Iterator[None]:
    """Holds the lock of `path`, and waits for it where another process has it.

    Args:
        origin: option and value that say where the path lies.
        name: what is made under the lock, for the log.
        waits: called once before it waits.
        reads: see `Holder`.

    Raises:
        InputError: another node holds it, too.
    """
    lock, note = FileLock(f"{path}.lock"), Path(f"{path}{NOTE}")
    if not _took(lock):
        waits()
        _wait(lock, note, name)
    try:
        if other := _rival(note, name):
            raise InputError(
                f"{other} and {Holder.this_process()} hold {path}.lock at once: locks hold within a node only on the "
                f"file system of {origin}; mount it with locks (NFS without nolock and local_lock, Lustre with flock) "
                "or give another"
            )
        with _noted(note, reads):
            yield
    finally:
        lock.release()


@contextmanager
def free(path: Path) -> Iterator[bool]:
    """Whether no process has the lock of `path`; then nobody gets it while inside."""
    lock = FileLock(f"{path}.lock")
    took = _took(lock)
    try:
        yield took
    finally:
        lock.release()


def holders(directory: Path) -> Iterator[Holder]:
    """Those who hold a lock of something in a directory now, as far as they say so."""
    for note in directory.glob(f"*{NOTE}"):
        found = _read(note)
        with free(note.with_suffix("")) as nobody:
            if found and not nobody:
                yield found


def _took(lock: FileLock) -> bool:
    """Whether the lock is now this process'."""
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        return False
    return True


def _wait(lock: FileLock, note: Path, name: str) -> None:
    """Waits for the lock. The log says for whom, and warns where that process has not been heard of for long."""
    holder = _read(note)
    heard = time.monotonic()  # an older note may be of a holder that is gone
    who = f"{holder}, heard of {_ago(max(0.0, time.time() - holder.beat))} ago" if holder else "another process"
    log.info("%-12s waiting for %s, which has %s", name, who, lock.lock_file)
    due_s = SILENT_S

    def free() -> bool:
        nonlocal holder, heard, due_s
        if _took(lock):
            return True
        if (found := _read(note)) and found != holder:
            holder, heard, due_s = found, time.monotonic(), SILENT_S
        if (silent_s := time.monotonic() - heard) >= due_s:
            due_s = silent_s + SILENT_S
            log.warning(
                "%-12s %s, which has the lock, has not been heard of for %s; if it is dead, delete %s",
                name,
                holder or "another process",
                _ago(silent_s),
                lock.lock_file,
            )
        return False

    wait_until(free)


def _rival(note: Path, name: str) -> Holder | None:
    """Who still rewrites the note on another host, while this process has the lock.

    A note that stays as it is was left by a holder that was killed. One of this host was, too: `flock` holds here.
    """
    left = _read(note)
    if left is None or left.host == platform.node():
        return None
    watched_s = BEAT_S * BEATS_WATCHED
    log.info("%-12s looking for %.0f s whether %s, which left %s, is still at work", name, watched_s, left, note)
    time.sleep(watched_s)
    found = _read(note)
    return found if found and found != left else None


@contextmanager
def _noted(note: Path, reads: Sequence[str]) -> Iterator[None]:
    """Keeps the note while inside. A disk that takes nothing stops nobody."""
    over = threading.Event()

    def keep() -> None:
        while not over.wait(BEAT_S):
            _write(note, reads)

    _write(note, reads)
    thread = threading.Thread(target=keep, name="sdx lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(OSError):
            note.unlink(missing_ok=True)


def _write(note: Path, reads: Sequence[str]) -> None:
    with suppress(OSError):
        note.write_text(json.dumps(asdict(Holder.this_process(reads))), encoding="utf-8")


def _read(note: Path) -> Holder | None:
    """What a note says; none without one, or with one that says something else."""
    try:
        found = Holder(**json.loads(note.read_text(encoding="utf-8")))
        told = math.isfinite(found.beat) and isinstance(found.reads, (list, tuple))
    except (OSError, ValueError, TypeError, OverflowError, RecursionError):
        return None
    return found if told else None


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
