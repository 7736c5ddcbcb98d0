"""The append-only record of a long step."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sdx.process.disk import writing
from sdx.process.preemption import finishing
from sdx.store.files import write_rows


class BatchLog:
    """One line of JSON per finished batch, on disk before the next batch begins.

    The next start drops a line that a kill tore, or a power cut left as zeros, and all lines after it. A batch
    therefore counts as done or not at all, and the remaining batches and their results are those of an undisturbed run.
    """

    SUFFIX = ".log"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        """Finished rows by their `id`."""
        intact_bytes = 0
        if path.exists():
            for line, rows in self.batches(path):
                intact_bytes += len(line)
                self.rows.update(rows)
            os.truncate(path, intact_bytes)

    @staticmethod
    def batches(path: Path) -> Iterator[tuple[bytes, dict[str, dict[str, Any]]]]:
        """The lines before the first damaged one, each with its rows by their `id`."""
        with path.open("rb") as lines:
            for line in lines:
                try:
                    rows = {row["id"]: row for row in json.loads(line)}
                except (ValueError, TypeError, KeyError, RecursionError):
                    return
                if not line.endswith(b"\n"):
                    return
                yield line, rows

    def pending(self, batches: Iterable[Sequence[dict[str, Any]]]) -> Iterator[list[dict[str, Any]]]:
        """The rows still to do, batch by batch. A process that is asked to stop finishes its batch first."""
        for batch in batches:
            if rest := [row for row in batch if row["id"] not in self.rows]:
                with finishing():
                    yield rest

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        with writing(self.path), self.path.open("ab") as lines:
            lines.write(json.dumps(rows, ensure_ascii=False).encode() + b"\n")
            lines.flush()
            os.fsync(lines.fileno())
        self.rows.update({row["id"]: row for row in rows})

    def publish(self, path: Path, ids: Sequence[str]) -> None:
        """Writes the rows in the order of `ids`."""
        write_rows(path, [self.rows[id_] for id_ in ids])
