"""A row step whose engine sleeps and repeats the row, as a stand-in for a model on a GPU: it takes time and no core.

`python -m tests.kit.sleepy CACHE ROWS BATCH SECONDS` makes it as one more process. Each batch adds the
process' number to SLEEPY_JOURNAL, if that is set.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdx.store.batch_log import Row
from sdx.store.row_step import RowStep, in_order
from sdx.store.step import Step, Workspace, runtime
from sdx.store.store import Store


@dataclass(frozen=True, eq=False)
class Sleepy(RowStep[None]):
    name = "sleepy"

    rows: int
    batch_rows: int = runtime()
    seconds: float = runtime()

    @property
    def inputs(self) -> Mapping[str, Step]:
        return {}

    def read(self, work: Workspace) -> list[Row]:
        return [{"id": f"r{number}"} for number in range(self.rows)]

    def load(self, work: Workspace) -> None:
        return None

    def batches(self, rows: Sequence[Row], loaded: None) -> list[range]:
        return in_order(rows, self.batch_rows)

    def process(self, batch: Sequence[Row], loaded: None) -> list[Row]:
        time.sleep(self.seconds)
        if "SLEEPY_JOURNAL" in os.environ:
            with open(os.environ["SLEEPY_JOURNAL"], "a") as journal:
                journal.write(f"{os.getpid()}\n")
        return [{**row, "text": row["id"].upper()} for row in batch]


def make(cache: Path, rows: int, batch_rows: int, seconds: float) -> Any:
    return Store(cache).realise(Sleepy(rows, batch_rows=batch_rows, seconds=seconds))


if __name__ == "__main__":
    cache, rows, batch_rows, seconds = sys.argv[1:]
    make(Path(cache), int(rows), int(batch_rows), float(seconds))
