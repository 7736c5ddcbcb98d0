"""What is done of a step at which several processes work at once, on one node or on many, and who does what.

Each process appends to a `BatchLog` of its own. Before it does a batch it writes the batch's number and its own name
into `claims`, under a lock. A claim of a dead process is void: the next that finds nothing else takes the batch. There
is no deal to agree on, and a process may join late, or leave at any time. The published rows do not depend on how many
there were, because the batches are those of a single process.
"""

import fcntl
import json
import os
import platform
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from sdx.process.preemption import finishing, leave_if_asked
from sdx.store.batch_log import BatchLog, Row
from sdx.store.files import MANIFEST

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 2.0
"""Between two looks at what others do."""
REFRESH_S = 5.0
"""Between two looks while there is work."""


class SharedLog:
    """The finished rows in the logs of a step's directory.

    Memory holds where each row lies, not the rows.

    Args:
        ids: of all rows, in the order of publication.
    """

    def __init__(self, directory: Path, ids: Sequence[str]) -> None:
        self._directory, self._ids = directory, ids
        self._numbers = {id_: number for number, id_ in enumerate(ids)}
        assert len(self._numbers) == len(ids), "ids are unique"
        self._name = f"{platform.node()}-{os.getpid()}-{time.time_ns()}"
        self._own = BatchLog(directory / f"rows.{self._name}{BatchLog.SUFFIX}")
        self._paths: list[Path] = [self._own.path]
        self._read: dict[Path, int] = {}
        self._log = array("i", [-1]) * len(ids)  # index into `_paths`
        self._start, self._length = array("q", [0]) * len(ids), array("q", [0]) * len(ids)
        self.done = 0
        """Finished rows, as far as this process knows."""
        self.refresh()

    @property
    def complete(self) -> bool:
        return self.done == len(self._ids)

    @property
    def workers(self) -> int:
        """Processes that have finished a row."""
        return len({*self._log} - {-1})

    def refresh(self) -> None:
        """Reads what others have written since the last call."""
        for path in sorted(self._directory.glob(f"rows*{BatchLog.SUFFIX}")):
            if path != self._own.path:
                self._refresh(path)

    def _refresh(self, path: Path) -> None:
        if path not in self._read:
            self._read[path] = 0
            self._paths.append(path)
        log = self._paths.index(path)
        for end, rows in BatchLog.batches(path, self._read[path]):
            self._read[path] = end
            for id_, start, length in rows:
                self._place(id_, log, start, length)

    def _place(self, id_: str, log: int, start: int, length: int) -> None:
        number = self._numbers.get(id_)
        if number is not None and self._log[number] < 0:
            self._log[number], self._start[number], self._length[number] = log, start, length
            self.done += 1

    def append(self, rows: Sequence[Row]) -> None:
        """Writes a batch that this process has finished."""
        for row, place in zip(rows, self._own.append(rows), strict=True):
            self._place(row["id"], 0, *place)

    def left(self, batch: Sequence[int]) -> list[int]:
        """The unfinished rows among those with these numbers."""
        return [number for number in batch if self._log[number] < 0]

    def pending(
        self, batches: Iterable[Sequence[int]], leads: bool = True, on_refresh: Callable[[], None] = lambda: None
    ) -> Iterator[list[int]]:
        """The numbers of the unfinished rows, batch by batch, as far as no other process does them.

        The caller appends the rows of a batch before it takes the next one. A process that is asked to stop finishes
        its batch first.

        Args:
            batches: all rows, finished ones included, so that every process has the same batches.
            leads: ends only if all rows are finished; otherwise ends if others do what is left, if the step is
                finished, or if others have other batches (a machine with another device).
            on_refresh: called after each look at what others have done.
        """
        if self.complete or (not leads and (self._directory / MANIFEST).exists()):
            return
        batches = list(batches)
        self._own.create()
        try:
            claims = Claims(self._directory, batches, self._name)
            if not leads and claims.others:
                return
            pause_s, refreshed_s = FIRST_PAUSE_S, time.monotonic()
            while True:
                leave_if_asked()
                number = claims.take(self.left, self._is_dead)
                if number is not None:
                    pause_s = FIRST_PAUSE_S
                    if rows := self.left(batches[number]):
                        with finishing():
                            yield rows
                        assert not self.left(rows), "the caller appends what it takes"
                elif self.complete or not leads:
                    return
                else:
                    time.sleep(pause_s)
                    pause_s = min(1.3 * pause_s, LONGEST_PAUSE_S)
                if number is None or time.monotonic() - refreshed_s > REFRESH_S:
                    refreshed_s = time.monotonic()
                    self.refresh()
                    on_refresh()
        finally:
            self._own.close()

    def _is_dead(self, name: str) -> bool:
        """Whether the process has ended; what it finished is then known."""
        path = self._directory / f"rows.{name}{BatchLog.SUFFIX}"
        if name == self._name or (path.exists() and BatchLog.is_written(path)):
            return False
        if path.exists():
            self._refresh(path)
        return True

    def lines(self) -> Iterator[bytes]:
        """The rows as lines of JSON, in order; all are finished."""
        files = [path.open("rb") if path.exists() else None for path in self._paths]
        try:
            for log, start, length in zip(self._log, self._start, self._length, strict=True):
                file = files[log]
                assert file
                yield os.pread(file.fileno(), length, start)
        finally:
            for file in filter(None, files):
                file.close()

    def rows(self) -> Iterator[Row]:
        return map(json.loads, self.lines())


class Claims:
    """Which process does which batch, in a file for each way to cut the rows into batches."""

    def __init__(self, directory: Path, batches: Sequence[Sequence[int]], name: str) -> None:
        self._batches, self._name = batches, name
        digest = sha256()
        for batch in batches:
            digest.update(array("q", batch).tobytes() + b"|")
        self._path = directory / f"claims.{digest.hexdigest()[:12]}{BatchLog.SUFFIX}"
        self._read = self._next = 0
        self._claimed: set[int] = set()
        self._open: dict[int, str] = {}
        """Claimed and, as far as known, unfinished."""

    @property
    def others(self) -> bool:
        """Whether there are claims of another way to cut the rows, and none of this one."""
        return not self._path.exists() and any(self._path.parent.glob(f"claims.*{BatchLog.SUFFIX}"))

    def take(self, left: Callable[[Sequence[int]], list[int]], is_dead: Callable[[str], bool]) -> int | None:
        """Claims a batch with unfinished rows that no living process has claimed; None if there is none.

        Args:
            left: the unfinished rows among those of a batch, as far as known.
            is_dead: whether the process of this name is; what it finished is known then.
        """
        with self._locked() as file:
            self._read_new(file)
            number = self._unclaimed(left)
            if number is None:
                number = self._orphaned(left, is_dead)
            if number is not None:
                file.write(f"\n{number} {self._name}\n".encode())  # a power cut may have torn the line before
                self._claimed.add(number)
                self._open[number] = self._name
            return number

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        with self._path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
            file.flush()  # before the lock is given up by closing

    def _read_new(self, file: BinaryIO) -> None:
        file.seek(self._read)
        for line in file:
            number, _, name = line.decode(errors="replace").strip().partition(" ")
            if number.isdecimal() and int(number) < len(self._batches):  # else torn by a power cut
                self._claimed.add(int(number))
                self._open[int(number)] = name
        self._read = file.tell()

    def _unclaimed(self, left: Callable[[Sequence[int]], list[int]]) -> int | None:
        for number in range(self._next, len(self._batches)):
            self._next = number + 1
            if number not in self._claimed and left(self._batches[number]):
                return number
        return None

    def _orphaned(self, left: Callable[[Sequence[int]], list[int]], is_dead: Callable[[str], bool]) -> int | None:
        dead: dict[str, bool] = {}
        for number, name in list(self._open.items()):
            if left(self._batches[number]):
                if name not in dead:
                    dead[name] = is_dead(name)
                if dead[name] and left(self._batches[number]):
                    return number
            else:
                del self._open[number]
        return None
