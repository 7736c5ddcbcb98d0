"""What tests of a pool run in its processes. `python -m tests.kit.pooled` starts two, names them and sleeps."""

import os
import time
from collections.abc import Sequence

from sdx.process import pool


def numbered(items: Sequence[int]) -> list[tuple[int, int]]:
    """Each with the process that it was in."""
    return [(2 * item, os.getpid()) for item in items]


def refused(items: Sequence[int]) -> list[int]:
    raise ValueError(f"no {items[0]}")


if __name__ == "__main__":
    pool.FEWEST, pool.cores = 1, lambda: 2
    made = pool.Pool(numbered)
    print(*{process for _, process in made.map(range(10 * pool.PIECE))}, flush=True)
    time.sleep(600)
