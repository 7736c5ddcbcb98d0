"""What `benchmarks.child` calls in a process of its own: it imports this module, which is light."""

import os
import signal
from typing import Any


def environment() -> dict[str, Any]:
    return {"pid": os.getpid(), "threads": os.environ["OMP_NUM_THREADS"]}


def out_of_memory() -> dict[str, Any]:
    raise MemoryError


def killed() -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def wrong() -> dict[str, Any]:
    raise ValueError("a reason")
