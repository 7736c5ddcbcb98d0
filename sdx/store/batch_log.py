"""The append-only record of what one process has finished of a step."""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from sdx.process.disk import writing

Row = dict[str, Any]


class BatchLog:
    """A line of JSON for each finished row, and an empty line after each batch, which is then on disk.

    Whoever reads stops at a line that a kill tore, or a power cut left as zeros. A batch therefore counts as done or
    not at all. The writer keeps the file locked: if the lock can be had, the writer is dead.
    """

    SUFFIX = ".log"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._end = 0

    def create(self) -> None:
        """Creates the file, which must not exist, and locks it until `close`."""
        self._file = self.path.open("xb")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def append(self, rows: Sequence[Row]) -> list[tuple[int, int]]:
        """Writes a batch; (start, length) of each row's line in the file."""
        if self._file is None:
            self.create()
        assert self._file
        lines = [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows]
        with writing(self.path):
            self._file.write(b"".join(lines) + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        places = []
        for line in lines:
            places.append((self._end, len(line)))
            self._end += len(line)
        self._end += 1
        return places

    def close(self) -> None:
        if self._file:
            self._file.close()

    @staticmethod
    def batches(path: Path, start: int = 0) -> Iterator[tuple[int, list[tuple[str, int, int]]]]:
        """The batches from a byte of the file: where each ends, and (id, start, length) of its rows."""
        rows: list[tuple[str, int, int]] = []
        with path.open("rb") as lines:
            lines.seek(start)
            for line in lines:
                if line == b"\n":
                    start += 1
                    yield start, rows
                    rows = []
                    continue
                try:
                    id_ = json.loads(line)["id"]
                except (ValueError, TypeError, KeyError, RecursionError):
                    return
                if not line.endswith(b"\n") or not isinstance(id_, str):
                    return
                rows.append((id_, start, len(line)))
                start += len(line)

    @staticmethod
    def is_written(path: Path) -> bool:
        """Whether the process that writes the log is alive."""
        with path.open("rb") as log:
            try:
                fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two may ask at once
            except (BlockingIOError, PermissionError):
                return True
        return False
