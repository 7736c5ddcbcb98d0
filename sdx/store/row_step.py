"""Rows in, rows out: a step that does the same thing to many rows, batch by batch."""

import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from sdx.process.progress import Progress
from sdx.store.batch_log import BatchLog
from sdx.store.estimate import ROWS
from sdx.store.step import Step, Workspace

Row = dict[str, Any]
Loaded = TypeVar("Loaded")
"""What a step loads to process its rows: a model, an engine, nothing."""


@dataclass(frozen=True, eq=False)
class RowStep(Step, Generic[Loaded]):
    """Publishes `rows.jsonl`: one row for each row that it reads, with its `id`, in the same order.

    Batches are planned over all rows, finished ones included: an interrupted step then has the same batches as an
    undisturbed one. The result of `process` must depend on its batch alone.
    """

    unit: ClassVar[str] = "rows"
    """What the progress bar counts."""

    @property
    def label(self) -> str:
        """Title of the progress bar; a subclass may have `label: str = runtime(default="")` instead."""
        return self.name

    @abstractmethod
    def read(self, inputs: Mapping[str, Path]) -> list[Row]:
        """All rows, each with a unique `id`; they may hold more than what is published."""

    @abstractmethod
    def load(self, inputs: Mapping[str, Path]) -> Loaded:
        """What `batches` and `process` work with. Not called if no row is left to do."""

    @abstractmethod
    def batches(self, rows: Sequence[Row], loaded: Loaded) -> Iterable[Sequence[Row]]:
        """All rows in the order in which they are processed."""

    @abstractmethod
    def process(self, batch: Sequence[Row], loaded: Loaded) -> list[Row]:
        """The rows to publish for the unfinished rows of a batch. Their `tokens`, if given, are shown as a rate."""

    def count(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Counts for the manifest, of all processed rows; raises InputError if they must not be published."""
        return {"rows": len(rows)}

    def run(self, work: Workspace) -> None:
        rows = self.read(work.inputs)
        ids = [row["id"] for row in rows]
        log = BatchLog((work.dir / ROWS).with_suffix(BatchLog.SUFFIX))
        if not log.rows.keys() >= set(ids):
            self._work(rows, log, self.load(work.inputs))
        work.counts.update(self.count([log.rows[id_] for id_ in ids]))
        log.publish(work.dir / ROWS, ids)

    def _work(self, rows: Sequence[Row], log: BatchLog, loaded: Loaded) -> None:
        tokens, began = 0, time.monotonic()
        with Progress(self.label, len(rows), self.unit, done=len(log.rows)) as progress:
            for batch in log.pending(self.batches(rows, loaded)):
                done = self.process(batch, loaded)
                log.append(done)
                if tokens := tokens + sum(row.get("tokens", 0) for row in done):
                    progress.set_postfix_str(f"{tokens / (time.monotonic() - began):.0f} tokens/s", refresh=False)
                progress.update(len(batch))
