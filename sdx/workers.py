"""`workers=4`: processes beside a run's own, one a GPU, that do a part of its row steps and end with it."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from importlib.util import find_spec
from logging import getLogger
from pathlib import Path

from sdx import InputError
from sdx.models import residency
from sdx.process import threads
from sdx.process.devices import visible_gpus
from sdx.process.preemption import finishing, leave_if_asked
from sdx.process.ranks import WORKER, world_size
from sdx.store.row_step import RowStep
from sdx.store.step import Step
from sdx.store.store import Store

log = getLogger("sdx")

RAY = "ray"
POLL_S = 0.5
END_S = 30.0
"""How long a process may finish its batch when the run ends."""


def check(workers: str) -> None:
    """Raises InputError for a value that the option cannot have."""
    if workers == RAY and find_spec("ray") is None:
        raise InputError("workers=ray: ray is not installed; pip install 'sdx[ray]'")
    if workers != RAY and not (workers.isdecimal() and int(workers)):
        raise InputError(f"workers={workers} is neither a number from 1 nor ray")
    if workers != "1" and world_size() > 1:
        raise InputError(f"workers={workers}: the {world_size()} ranks of the launch are workers; leave the option out")


@contextmanager
def beside(workers: str, run_dir: Path) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Inside the block, all but one of so many workers run the same command line as this process, see `help_with`.

    Yields a context in which this process computes with all cores, because the others wait. Raises InputError if there
    are fewer GPUs.
    """
    count = int(workers) if workers != RAY else 1
    if count == 1:
        yield nullcontext
        return
    gpus = visible_gpus()
    if 0 < len(gpus) < count:
        raise InputError(f"workers={count} exceeds the {len(gpus)} GPUs here; lower it")
    ended, started = threading.Event(), []
    try:
        for number in range(1, count):
            with finishing():  # no process is started and then forgotten
                started.append(_start(number, count, gpus, run_dir / f"worker-{number}.log", ended))
        with threads.sharing(count):
            yield partial(threads.sharing, 1)
    finally:
        ended.set()
        for process in started:
            process.terminate()
        for process in started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
            process.kill()


def _start(number: int, count: int, gpus: Sequence[str], path: Path, ended: threading.Event) -> subprocess.Popen[bytes]:
    environment = {**os.environ, WORKER: str(os.getpid()), "OMP_NUM_THREADS": str(threads.share(count))}
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = gpus[number]
    command = [sys.executable, "-m", "sdx", *sys.argv[1:]]
    with path.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the process that ends the others
        )

    def watch() -> None:
        if process.wait() and not ended.is_set():
            told = "worker %d of %d ended with code %d, and the run goes on without it; see %s"
            log.warning(f"%-12s {told}", "workers", number, count, process.returncode, path)

    threading.Thread(target=watch, name=f"sdx worker {number}", daemon=True).start()
    return process


def help_with(steps: Sequence[Step], store: Store) -> None:
    """Does a part of each row step among these steps and their inputs while another process makes them all.

    Returns when all are made. Each step is helped with once: when no batch is left to take, only the death of another
    process leaves one again, and whoever makes the step does it.
    """
    left, seen = list(store.needed(steps).values()), set[str]()
    while left := [step for step in left if not store.cached(step)]:
        begun = next((step for step in left if step.key not in seen and store.begun(step)), None)
        if begun is None:
            leave_if_asked()
            time.sleep(POLL_S)
            continue
        seen.add(begun.key)
        if begun.trains:
            residency.release()
        elif isinstance(begun, RowStep):
            log.info("%-12s helps   %s  %s", begun.name, begun.summary, begun.key)
            store.help(begun)
