"""`hydra/launcher=local`: each cell of a sweep in a process of its own, on a GPU of its own where there are GPUs."""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from queue import SimpleQueue
from signal import SIGTERM

from sdx import InputError
from sdx.planning.hardware import driver_gpus
from sdx.process.preemption import leave_if_asked, listening
from sdx.process.threads import cores
from sdx.sweeps.cells import Ending, SweepCell, forget, judge
from sdx.sweeps.launcher import CellLauncher, end, start

LOG = "output.log"
LOOK_S = 0.2


class LocalLauncher(CellLauncher):
    """Runs cells on this machine.

    Args:
        jobs: cells at once; none is one for each GPU, or one.
    """

    def __init__(self, jobs: int | None) -> None:
        self.jobs = jobs
        self._processes: list[subprocess.Popen[bytes]] = []
        self._leaving = threading.Event()

    def run(self, cells: Sequence[SweepCell]) -> None:
        if not cells:
            return
        gpus = visible_gpus()
        if gpus and self.jobs and self.jobs > len(gpus):
            raise InputError(f"hydra.launcher.jobs={self.jobs} exceeds the {len(gpus)} GPUs here; lower it")
        jobs = min(self.jobs or len(gpus) or 1, len(cells))
        places: SimpleQueue[str | None] = SimpleQueue()
        for number in range(jobs):
            places.put(gpus[number] if gpus else None)

        def run(cell: SweepCell) -> None:
            gpu = places.get()
            try:
                self._run(cell, gpu, jobs)
            finally:
                places.put(gpu)

        pool = ThreadPoolExecutor(jobs)
        try:
            with listening():
                running = [pool.submit(run, cell) for cell in cells]
                while wait(running, LOOK_S).not_done:  # a signal is heard between two waits
                    leave_if_asked()
        except BaseException:
            self._leaving.set()
            for process in self._processes:
                with suppress(ProcessLookupError):
                    process.send_signal(SIGTERM)
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        for one in running:
            one.result()

    def _run(self, cell: SweepCell, gpu: str | None, jobs: int) -> None:
        """One cell of as many at once as there are jobs; a cell that is alone writes to the terminal."""
        if self._leaving.is_set():
            return
        alone = jobs == 1
        cell.run_dir.mkdir(parents=True, exist_ok=True)
        cell.log = None if alone else cell.run_dir / LOG
        forget(cell.run_dir)
        start(cell, f"on GPU {gpu}" if gpu else "")
        environment = dict(os.environ)
        if gpu:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        if not alone:
            environment["OMP_NUM_THREADS"] = str(_threads(jobs))
        code = self._wait([sys.executable, "-m", "sdx", *cell.overrides], environment, cell.log)
        judge(cell, os.EX_TEMPFAIL if self._leaving.is_set() and code == -SIGTERM else code)  # it did not listen yet
        if cell.ending is not Ending.done or not alone:
            end(cell)

    def _wait(self, command: Sequence[str], environment: dict[str, str], log: Path | None) -> int:
        output = log.open("ab") if log else None
        try:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        finally:
            if output:
                output.close()
        self._processes.append(process)
        if self._leaving.is_set():  # since the last look
            process.send_signal(SIGTERM)
        return process.wait()


def _threads(jobs: int) -> int:
    """A cell's share of the cores, or what the environment gives if that is less."""
    share = max(1, cores() // jobs)
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(given), share) if given.isdecimal() else share


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, for CUDA_VISIBLE_DEVICES. CUDA ends the list at an unknown one."""
    present = [str(number) for number in range(len(driver_gpus()))]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not present:
        return present
    names = (name.strip() for name in visible.split(","))
    return list(takewhile(lambda name: name in present or name.startswith(("GPU-", "MIG-")), names))
