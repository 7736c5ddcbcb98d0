"""Rows in, rows out: a step that does the same thing to many rows, in batches, in as many processes as there are."""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from sdx.process.pool import Pool
from sdx.process.progress import Progress
from sdx.store import ray_workers
from sdx.store.batch_log import Row
from sdx.store.estimate import ROWS
from sdx.store.files import write_lines
from sdx.store.shared_log import SharedLog
from sdx.store.step import Step, Workspace

POOLED_ROWS = 8192
"""In a batch that is dealt to the cores of a process; some seconds of work."""
Loaded = TypeVar("Loaded")
"""What a step loads to process its rows: a model, an engine, nothing."""


def in_order(rows: Sequence[Row], size: int) -> list[range]:
    """The numbers of the rows in batches of a size, as they stand in the file."""
    return [range(first, min(first + size, len(rows))) for first in range(0, len(rows), size)]


@dataclass(frozen=True, eq=False)
class RowStep(Step, Generic[Loaded]):
    """Publishes `rows.jsonl`: one row for each row that it reads, with its `id`, in the same order.

    Batches are planned over all rows, finished ones included, so an interrupted step, and each of several processes,
    has the same batches. The result of `process` must depend on its batch alone.
    """

    shared: ClassVar[bool] = True
    unit: ClassVar[str] = "rows"
    """What the progress bar counts."""
    silent_s: ClassVar[float] = 0.0
    """A step that is done sooner shows no bar."""

    @property
    def label(self) -> str:
        """Title of the progress bar; a subclass may have `label: str = runtime(default="")` instead."""
        return self.name

    @abstractmethod
    def read(self, work: Workspace) -> Sequence[Row]:
        """All rows, each with a unique `id`; they may hold more than what is published. Many rows: a `RowFile`."""

    @abstractmethod
    def load(self, work: Workspace) -> Loaded:
        """What `batches` and `process` work with. Not called if no row is left to do."""

    @abstractmethod
    def batches(self, rows: Sequence[Row], loaded: Loaded) -> Iterable[Sequence[int]]:
        """The numbers of all rows, batch by batch in the order in which they are processed."""

    @abstractmethod
    def process(self, batch: Sequence[Row], loaded: Loaded) -> list[Row]:
        """The rows to publish for the unfinished rows of a batch. Their `tokens`, if given, are shown as a rate."""

    def unload(self, loaded: Loaded) -> None:
        """Gives back what `load` took that does not end by itself, also after an error."""

    def count(self, rows: Iterable[Row]) -> Mapping[str, Any]:
        """Counts for the manifest, of all processed rows; raises InputError if they must not be published."""
        return {"rows": sum(1 for _ in rows)}

    def publish(self, log: SharedLog, work: Workspace) -> None:
        """Writes the output from the processed rows."""
        work.counts.update(self.count(log.rows()))
        write_lines(work.dir / ROWS, log.lines())

    def run(self, work: Workspace) -> None:
        log = self._share(work, leads=True)
        work.workers = log.workers
        assert log.complete
        self.publish(log, work)

    def help(self, work: Workspace) -> None:
        self._share(work, leads=False)

    def _share(self, work: Workspace, leads: bool) -> SharedLog:
        """Processes rows together with all other processes that are at this step; see `SharedLog.pending`."""
        rows = self.read(work)
        log = SharedLog(work.dir, [row["id"] for row in rows])
        if log.complete:
            return log

        def show() -> None:
            progress.update(log.done - progress.n)

        elsewhere = work.by_ray and leads
        batches = ray_workers.processed(self, work, log) if elsewhere else self._here(work, rows, log, leads, show)
        tokens, began = 0, time.monotonic()
        with Progress(self.label, len(rows), self.unit, log.done, self.silent_s) as progress:
            for done in batches:
                log.append(done)
                if tokens := tokens + sum(row.get("tokens", 0) for row in done):
                    progress.set_postfix_str(f"{tokens / (time.monotonic() - began):.0f} tokens/s", refresh=False)
                show()
        return log

    def _here(
        self, work: Workspace, rows: Sequence[Row], log: SharedLog, leads: bool, on_refresh: Callable[[], None]
    ) -> Iterator[list[Row]]:
        """The batches of this process, each processed when it is asked for."""
        loaded = self.load(work)
        try:
            for batch in log.pending(self.batches(rows, loaded), leads, on_refresh):
                yield self.process([rows[number] for number in batch], loaded)
        finally:
            self.unload(loaded)


@dataclass(frozen=True, eq=False)
class PooledStep(RowStep[Pool[Row, Row]]):
    """Each row is processed by itself, on all cores."""

    silent_s = 2.0

    @abstractmethod
    def function(self, work: Workspace) -> Callable[[Sequence[Row]], list[Row]]:
        """Rows -> the rows to publish; can be pickled. Raises InputError if the step cannot work."""

    def load(self, work: Workspace) -> Pool[Row, Row]:
        return Pool(self.function(work))

    def batches(self, rows: Sequence[Row], loaded: Pool[Row, Row]) -> list[range]:
        return in_order(rows, POOLED_ROWS)

    def process(self, batch: Sequence[Row], loaded: Pool[Row, Row]) -> list[Row]:
        return loaded.map(batch)

    def unload(self, loaded: Pool[Row, Row]) -> None:
        loaded.close()
