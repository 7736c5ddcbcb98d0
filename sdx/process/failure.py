"""The error that ended a run: in `error.txt` of the run's directory, by the rank that failed first.

Ranks that train together wait for each other in collectives, which a failed rank never joins. So a rank with an error
writes the file and leaves at once; the others notice a broken connection, or their watchdog finds the file.
"""

import logging
import os
import platform
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from sdx.process import secret
from sdx.process.ranks import WORKER, is_main, rank, world_size

ERROR = "error.txt"
"""Traceback of the error that ended the run. With several ranks the last line names the rank and its host."""
GRACE_S = 20.0
"""How long a rank may take to notice for itself that another has failed."""


class Failure:
    """`error.txt` of a run. A file that is there at the start is of an earlier run and is ignored."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / ERROR
        self._earlier = self._identity()
        self.is_own = False
        """Whether this rank wrote the file."""

    def clear(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def report(self, error: BaseException) -> None:
        """Writes the error unless a rank has written one. Never raises, even if the disk is full."""
        if WORKER in os.environ or self.message() is not None:  # the run goes on without this worker
            return
        text = secret.scrub("".join(traceback.format_exception(error)))
        if world_size() > 1:
            text += f"rank {rank()} on {platform.node()}: {secret.scrub(in_a_line(error))}\n"
        self.clear()  # the file of an earlier run
        temporary = self._path.with_name(f".{ERROR}.{platform.node()}.{os.getpid()}")
        with suppress(OSError):
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
            try:
                os.link(temporary, self._path)  # only one rank can
            except FileExistsError:
                raise
            except OSError:  # a file system without hard links
                temporary.replace(self._path)
            self.is_own = True
        with suppress(OSError):
            temporary.unlink(missing_ok=True)

    def message(self) -> str | None:
        """The last line of the error; none if this run has not failed."""
        if self._identity() != self._earlier:
            with suppress(OSError, IndexError):
                return self._path.read_text(encoding="utf-8", errors="replace").splitlines()[-1]
        return None

    def _identity(self) -> tuple[int, int] | None:
        with suppress(OSError):
            found = self._path.stat()
            return found.st_ino, found.st_mtime_ns
        return None


@contextmanager
def watchdog(failure: Failure, before_end: Callable[[str], None]) -> Iterator[None]:
    """Ends this process if another rank fails and the main thread does not leave the block by itself.

    Before that, it calls `before_end` with the other rank's error.
    """
    left = threading.Event()

    def watch() -> None:
        while not left.wait(2.0):
            if (line := failure.message()) and not left.wait(GRACE_S):
                before_end(line)
                if is_main():
                    print(f"sdx: {line}", file=sys.stderr)
                abort(1)

    if world_size() > 1:
        threading.Thread(target=watch, name="sdx watchdog", daemon=True).start()
    try:
        yield
    finally:
        left.set()


def in_a_line(error: BaseException) -> str:
    """Kind and first line: the other lines of CUDA's errors are advice."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def leave(failure: Failure, error: BaseException) -> NoReturn:
    """Ends this rank after an error. The terminal gets the error of the rank that failed first."""
    line = failure.message()
    if failure.is_own or line is None:
        secret.print_exception(error)
    if is_main() and line:
        print(f"sdx: {line}", file=sys.stderr)
    abort(1)


def abort(code: int) -> NoReturn:
    """Ends this rank. A normal exit of the interpreter would wait for the device and for other ranks."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
