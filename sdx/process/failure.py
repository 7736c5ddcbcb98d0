"""An error that ends a run: told once, in `error.txt` of its directory, by the rank that it happened to.

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

from sdx.process import secret
from sdx.process.ranks import is_main, rank, world_size

ERROR = "error.txt"
"""Traceback of the error that ended the run; of several ranks the last line names the rank and its host."""
LOOK_S = 2.0
GRACE_S = 20.0
"""How long a rank may take to find out for itself that another has failed."""


class Failure:
    """`error.txt` of a run. A file that lies there already is of an earlier run, and says nothing of this one."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / ERROR
        self._earlier = self._identity()
        self.is_own = False
        """Whether the error that is told is this rank's."""

    def forget(self) -> None:
        """Removes what an earlier run said."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def tell(self, error: BaseException) -> None:
        """Writes the error, unless one has been told. A disk that takes nothing stops nobody."""
        if self.told() is not None:
            return
        text = secret.scrub("".join(traceback.format_exception(error)))
        if world_size() > 1:
            text += f"rank {rank()} on {platform.node()}: {secret.scrub(in_a_line(error))}\n"
        self.forget()  # what an earlier run said
        written = self._path.with_name(f".{ERROR}.{platform.node()}.{os.getpid()}")
        with suppress(OSError):
            written.write_text(text, encoding="utf-8", errors="backslashreplace")
            self.is_own = _published(written, self._path)
        with suppress(OSError):
            written.unlink(missing_ok=True)

    def told(self) -> str | None:
        """The last line, where this run has failed."""
        if self._identity() == self._earlier:
            return None
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return None
        return lines[-1] if lines else None

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns


def _published(written: Path, path: Path) -> bool:
    """Whether the file got its name, which one rank alone can give; also on a file system without hard links."""
    try:
        os.link(written, path)
    except FileExistsError:
        return False
    except OSError:
        written.replace(path)
    return True


class Watchdog:
    """Ends this process where another rank has failed and the main thread does not notice.

    Args:
        failure: the run's.
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
                if is_main():
                    print(f"sdx: {line}", file=sys.stderr)
                abort(1)


def in_a_line(error: BaseException) -> str:
    """Kind and first line: what follows in errors of CUDA is advice."""
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {words[0]}" if words else type(error).__name__


def leave(failure: Failure, error: BaseException) -> NoReturn:
    """Ends this process of several after an error. The terminal gets the error of the rank that failed first."""
    line = failure.told()
    if failure.is_own or line is None:
        secret.print_exception(error)
    if is_main() and line:
        print(f"sdx: {line}", file=sys.stderr)
    abort(1)


def abort(code: int) -> NoReturn:
    """Ends one process of several. The interpreter's own end would wait for the device and for other ranks."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
