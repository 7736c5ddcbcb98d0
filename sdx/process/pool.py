"""Work of Python that one core would be slow at, spread over the cores of this rank."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from threading import Thread
from typing import Generic, TypeVar

from sdx.process.preemption import SIGNALS
from sdx.process.threads import cores

PIECE = 256
"""Items that go to another process at once. Ours."""
FEWEST = 16 * PIECE
"""Fewer are done sooner than other processes have begun. Ours."""
Item = TypeVar("Item")
Result = TypeVar("Result")


class Pool(Generic[Item, Result]):
    """A function from items to as many results, in a process for each core; they start with the first long list.

    Args:
        function: can be pickled, and its result for an item depends on that item alone.
    """

    def __init__(self, function: Callable[[Sequence[Item]], list[Result]]) -> None:
        self._function = function
        self._processes: ProcessPoolExecutor | None = None

    def map(self, items: Sequence[Item]) -> list[Result]:
        """The results, in order. A short list, or one on a single core, is done in this process."""
        pieces = [items[start : start + PIECE] for start in range(0, len(items), PIECE)]
        if len(items) < FEWEST or cores() == 1:
            return list(chain.from_iterable(map(self._function, pieces)))
        if not self._processes:
            spawned = multiprocessing.get_context("spawn")  # no lock of a thread is copied
            self._processes = ProcessPoolExecutor(cores(), spawned, _begin)
        return list(chain.from_iterable(self._processes.map(self._function, pieces)))

    def close(self) -> None:
        if self._processes:
            self._processes.shutdown(cancel_futures=True)


def _begin() -> None:
    """One core for each process, which leaves signals to the process that started it, and ends when that one dies."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    for number in (signal.SIGINT, *SIGNALS):
        signal.signal(number, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)
