"""File locks on a disk that several nodes may share, and how to wait for one.

A lock is `flock` on `<path>.lock`: the kernel, or the server of a network file system, frees it when its holder dies.
While a process holds the lock, a thread rewrites `<path>.holder` every `BEAT_S` seconds. The note names host and
process to those who wait. Two holders at once show that the file system's locks hold within one node only.
"""

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
from sdx.process.console import duration
from sdx.process.preemption import leave_if_asked

log = getLogger("sdx")

BEAT_S = 10.0
SILENT_S = 600.0
"""A holder whose note has not changed for this long is reported, again and again."""
NOTE = ".holder"
MOUNTS = Path("/proc/mounts")
LOCAL_LOCKS = ("nolock", "local_lock=all", "local_lock=flock", "localflock", "nobrl")
"""Mount options of NFS, Lustre and SMB that keep locks within a node."""


def wait_until(true: Callable[[], bool]) -> None:
    """Asks often at first, in the end every five seconds: ranks wait for hours, on a disk that all of them share."""
    pause_s = 0.2
    while not true():
        leave_if_asked()
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.1, 5.0)


@cache
def check(directory: Path, origin: str) -> None:
    """Tries once whether locks work in a directory, and warns if they hold within one node only.

    `origin` is the option and value that say where the directory lies. Raises InputError if locks do not work, and
    OSError if the directory cannot be written.
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
    """What is wrong with `flock` there: it must refuse a lock that another open file has."""
    trial = directory / f".flock-{platform.node()}-{os.getpid()}"
    with trial.open("wb") as first, trial.open("wb") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                return None
            return "flock gives the same lock to two at once"
        except OSError as error:
            return f"flock: {error.strerror}"
        finally:
            trial.unlink(missing_ok=True)


def _mount_options(directory: Path) -> list[str]:
    """Options of the file system that the directory lies on; none if they cannot be known."""
    directory, deepest, found = directory.resolve(), Path("/"), ""
    try:
        mounts = [line.split(" ") for line in MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return []
    for _, escaped, _, options, *_ in mounts:
        point = Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), escaped))
        if directory.is_relative_to(point) and point.is_relative_to(deepest):
            deepest, found = point, options
    return found.split(",")


@dataclass(frozen=True)
class Holder:
    """Who holds a lock."""

    host: str
    pid: int
    beat: float
    """When the note was written, by the holder's clock: seconds since 1970."""
    reads: Sequence[str] = ()
    """Keys of the steps that the holder needs while it has the lock."""

    @classmethod
    def this_process(cls, reads: Sequence[str] = ()) -> "Holder":
        return cls(platform.node(), os.getpid(), time.time(), reads)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@contextmanager
def held(
    path: Path,
    origin: str,
    name: str,
    on_wait: Callable[[], None],
    reads: Sequence[str] = (),
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Holds the lock of `path`, and first waits for it if another process has it.

    Args:
        origin: option and value that say where the path lies.
        name: what is made under the lock, for the log.
        on_wait: called once before waiting.
        reads: see `Holder`.
        meanwhile: called again and again while waiting.

    Raises InputError if another node holds the lock, too.
    """
    note = Path(f"{path}{NOTE}")
    lock = FileLock(f"{path}.lock")
    try:
        if not _took(lock):
            on_wait()
            _wait(lock, note, name, meanwhile)
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
    """Whether no process has the lock of `path`; if so, nobody gets it inside the block."""
    lock = FileLock(f"{path}.lock")
    try:
        yield _took(lock)
    finally:
        lock.release()


def holders(directory: Path) -> Iterator[Holder]:
    """The present holders of locks in a directory, by their notes."""
    for note in directory.glob(f"*{NOTE}"):
        holder = _read(note)
        with free(note.with_suffix("")) as nobody:
            if holder and not nobody:
                yield holder


def _took(lock: FileLock) -> bool:
    with suppress(TimeoutError):
        lock.acquire(timeout=0)
    return lock.is_locked


def _wait(lock: FileLock, note: Path, name: str, meanwhile: Callable[[], None]) -> None:
    """Waits for the lock. The log names the holder, and warns if its note does not change for long."""
    holder = _read(note)
    changed = time.monotonic()  # now, because an older note may be of a former holder
    who = f"{holder}, heard of {_duration(time.time() - holder.beat)} ago" if holder else "another process"
    log.info("%-12s waiting for %s, which has %s", name, who, lock.lock_file)
    due_s = SILENT_S

    def took() -> bool:
        nonlocal holder, changed, due_s
        meanwhile()
        if _took(lock):
            return True
        if (now := _read(note)) and now != holder:
            holder, changed, due_s = now, time.monotonic(), SILENT_S
        if (silent_s := time.monotonic() - changed) >= due_s:
            due_s = silent_s + SILENT_S
            log.warning(
                "%-12s %s, which has the lock, has not been heard of for %s; if it is dead, delete %s",
                name,
                holder or "another process",
                _duration(silent_s),
                lock.lock_file,
            )
        return False

    wait_until(took)


def _rival(note: Path, name: str) -> Holder | None:
    """A holder on another host that still rewrites the note although this process has the lock.

    A note that does not change was left by a holder that was killed, and so was any note of this host.
    """
    left = _read(note)
    if left is None or left.host == platform.node():
        return None
    watched_s = 2.5 * BEAT_S
    log.info("%-12s watching %s for %.0f s: %s may still be at work", name, note, watched_s, left)
    time.sleep(watched_s)
    now = _read(note)
    return now if now != left else None


@contextmanager
def _noted(note: Path, reads: Sequence[str]) -> Iterator[None]:
    """Keeps the note fresh inside the block. A disk that takes nothing stops nobody."""
    over = threading.Event()

    def refresh() -> None:
        while not over.wait(BEAT_S):
            _write(note, reads)

    _write(note, reads)
    thread = threading.Thread(target=refresh, name="sdx lock", daemon=True)
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
    """What a note says; None if it is missing or damaged."""
    try:
        holder = Holder(**json.loads(note.read_text(encoding="utf-8")))
        valid = math.isfinite(holder.beat) and isinstance(holder.reads, (list, tuple))
    except (OSError, ValueError, TypeError, OverflowError, RecursionError):
        return None
    return holder if valid else None


def _duration(seconds: float) -> str:
    return duration(max(seconds, 1) / 3600)
