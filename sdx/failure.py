"""An error that ends a cell: told once, in `error.txt` of its directory, by the rank that it happened to.

Ranks that train together wait for each other in collectives, and one that has failed comes to none. So a rank with an
error tells it and leaves at once, without waiting for anybody; the others find out by the broken connection, or by a
thread that looks for the file and ends a process whose main thread waits on.
"""

import logging
import os
import platform
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from sdx.ranks import rank, world_size

ERROR = "error.txt"
"""Traceback of the error that ended the cell; of several ranks the last line names the rank and its host."""
LOOK_S = 2.0
GRACE_S = 20.0
"""How long a rank may take to find out for itself that another has failed."""


class Failure:
    """`error.txt` of a cell. A file that lies there already is of an earlier run, and says nothing of this one."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / ERROR
        self._earlier = self._identity()

    def forget(self) -> None:
        """Removes what an earlier run said."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def tell(self, error: BaseException) -> None:
        """Writes the error, unless another rank has told its own."""
        text = "".join(traceback.format_exception(error))
        if world_size() > 1:
            last = text.rstrip().splitlines()[-1]
            text += f"rank {rank()} on {platform.node()}: {last}\n"
        if self.told() is not None:
            return
        try:
            self._path.write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError:
            self.forget()  # empty, on a full disk

    def told(self) -> str | None:
        """The last line, where this run has failed."""
        return None if self._identity() == self._earlier else last_line(self._path.parent)

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns


class Watchdog:
    """Ends this process where another rank has failed and the main thread does not notice.

    Args:
        failure: the cell's.
        last_words: called with the other rank's error before the process ends.
    """

    def __init__(self, failure: Failure, last_words: Callable[[str], None]) -> None:
        self._failure = failure
        self._last_words = last_words
        self._over = threading.Event()

    def start(self) -> None:
        """Nothing where there is one rank."""
        if world_size() > 1:
            threading.Thread(target=self._watch, name="sdx watchdog", daemon=True).start()

    def stop(self) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            if (line := self._failure.told()) and not self._over.wait(GRACE_S):
                self._last_words(line)
                print(f"sdx: {line}", file=sys.stderr)
                abort(1)


def abort(code: int) -> NoReturn:
    """Ends one process of several. The interpreter's own end would wait for the device and for other ranks."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def leave(run_dir: Path, error: BaseException, code: int) -> NoReturn:
    """Ends this process of several after an error, with the error of the rank that failed first on the terminal."""
    line = last_line(run_dir)
    if line is None or line.startswith(f"rank {rank()} on "):
        traceback.print_exception(error)
    elif rank() == 0:
        print(f"sdx: {line}", file=sys.stderr)
    abort(code)


def last_line(run_dir: Path) -> str | None:
    """Of `error.txt`, where there is one."""
    try:
        lines = (run_dir / ERROR).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return lines[-1] if lines else None
