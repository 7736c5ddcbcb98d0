"""Rows in, rows out: a step that does the same thing to many rows, batch by batch."""

import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from sdx.process.progress import Progress
from sdx.store.batch_log import BatchLog
from sdx.store.step import Step, Workspace

Row = dict[str, Any]
Loaded = TypeVar("Loaded")
"""What a step loads to process its rows: a model, an engine, nothing."""
ROWS = "rows.jsonl"


@dataclass(frozen=True, eq=False)
class RowStep(Step, Generic[Loaded]):
    """Publishes `rows.jsonl`: one row for each that it reads, with its `id`, in their order.

    A subclass says what the rows are, how they are cut into batches, and what becomes of a batch. The batches are cut
    over all rows, those of an earlier start among them, so that an interrupted step does the very batches of an
    undisturbed one. What `process` gives must depend on its batch alone: who else has which batch is not said.
    """

    unit: ClassVar[str] = "rows"
    """Of the progress bar."""

    @property
    def label(self) -> str:
        """In front of the progress bar; a subclass may have `label: str = runtime(default="")` instead."""
        return self.name

    @abstractmethod
    def read(self, inputs: Mapping[str, Path]) -> list[Row]:
        """All rows, each with an `id` of its own; they may have what `process` needs beside what is published."""

    @abstractmethod
    def load(self, inputs: Mapping[str, Path]) -> Loaded:
        """What `batches` and `process` work with. Not called where no row is left to do."""

    @abstractmethod
    def batches(self, rows: Sequence[Row], loaded: Loaded) -> Iterable[Sequence[Row]]:
        """`rows` in the order in which they are processed, those of a batch at once."""

    @abstractmethod
    def process(self, batch: Sequence[Row], loaded: Loaded) -> list[Row]:
        """The rows to publish for those of a batch, or of what an earlier start left of it.

        Their `tokens`, if they have them, are told as a rate.
        """

    def count(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """What the manifest counts; raises InputError where rows as these are not to be published.

        Args:
            rows: what `process` gave, all of it.
        """
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
