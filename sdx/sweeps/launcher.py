"""What the launchers of sdx share, and `hydra/launcher=local`: each run of a sweep in a process of its own."""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import takewhile
from logging import INFO, WARNING, getLogger
from pathlib import Path
from queue import SimpleQueue
from signal import SIGTERM

from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from sdx import InputError
from sdx.options import fields
from sdx.planning.hardware import driver_gpus
from sdx.process.preemption import leave_if_asked, listening
from sdx.process.ranks import world_size
from sdx.process.threads import cores
from sdx.store.store import Store
from sdx.sweeps import conclusion
from sdx.sweeps.runs import SweepRun, check, check_alone, compose_all, forget, judge, named, returned
from sdx.tracking.state import RunState

log = getLogger("sdx")

LOG = "output.log"
LOOK_S = 0.2


class RunLauncher(Launcher):
    """Checks all runs of a sweep before one starts, leaves out those that are done, and launches the others."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Returns when all runs have ended; each is the value of its `JobReturn`.

        Raises:
            InputError: a run cannot work; none was started.
        """
        if world_size() > 1:
            raise InputError(
                "-m starts a process for each run; start it without torchrun, and let hydra/launcher=slurm give a "
                "run several GPUs"
            )
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        runs = compose_all(self.hydra_context, self.config, job_overrides, initial_job_idx)
        check_alone(self.hydra_context, runs[0])
        works = check(runs)
        if runs[0].config.plan:  # a plan needs no machine of its own, and no run directory is made for it
            from sdx.planning.sweep import show_sweep

            plans = [(name, *work) for name, work in zip(named(runs), works, strict=True)]
            show_sweep(plans, Store(Path(runs[0].config.cache_dir)))
            return []
        for _, work in works:
            work.run.record_choices()
        waiting = {run.run_dir: run for run in runs if run.state is None}
        log.info("%-12s %d runs, %d of them done before", "sweep", len(runs), len(runs) - len(waiting))
        conclusion.expect(runs)
        self.run(list(waiting.values()))
        for run in runs:  # two of a sweep may be one and the same
            if run.state is None:
                run.state, run.error = waiting[run.run_dir].state, waiting[run.run_dir].error
        return [returned(run) for run in runs]

    def run(self, runs: Sequence[SweepRun]) -> None:
        """Runs them and says of each how it ended."""
        raise NotImplementedError


def say_start(run: SweepRun, where: str) -> None:
    log.info("%-12s %s  %s", "start", run.name, where)


def say_end(run: SweepRun) -> None:
    assert run.state
    error = f": {run.error}" if run.error else ""
    log.log(INFO if run.state is RunState.done else WARNING, "%-12s %s%s", run.state.value, run.name, error)


@dataclass
class LocalConfig:
    """Processes on this machine, each on a GPU of its own."""

    _target_: str = "hydra_plugins.sdx.LocalLauncher"
    jobs: int | None = fields.number(None, at_least=1, at_most=10_000)
    """Runs at once; none is one for each GPU, or one."""


class LocalLauncher(RunLauncher):
    """Runs on this machine. The arguments are those of `LocalConfig`."""

    def __init__(self, jobs: int | None) -> None:
        self.jobs = jobs
        self._processes: list[subprocess.Popen[bytes]] = []
        self._leaving = threading.Event()

    def run(self, runs: Sequence[SweepRun]) -> None:
        if not runs:
            return
        gpus = visible_gpus()
        if gpus and self.jobs and self.jobs > len(gpus):
            raise InputError(f"hydra.launcher.jobs={self.jobs} exceeds the {len(gpus)} GPUs here; lower it")
        jobs = min(self.jobs or len(gpus) or 1, len(runs))
        places: SimpleQueue[str | None] = SimpleQueue()
        for number in range(jobs):
            places.put(gpus[number] if gpus else None)

        def start(run: SweepRun) -> None:
            gpu = places.get()
            try:
                self._run(run, gpu, jobs)
            finally:
                places.put(gpu)

        pool = ThreadPoolExecutor(jobs)
        try:
            with listening():
                running = [pool.submit(start, run) for run in runs]
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

    def _run(self, run: SweepRun, gpu: str | None, jobs: int) -> None:
        """One run of as many at once as there are jobs; a run that is alone writes to the terminal."""
        if self._leaving.is_set():
            return
        alone = jobs == 1
        run.run_dir.mkdir(parents=True, exist_ok=True)
        run.log = None if alone else run.run_dir / LOG
        forget(run.run_dir)
        say_start(run, f"on GPU {gpu}" if gpu else "")
        environment = dict(os.environ)
        if gpu:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        if not alone:
            environment["OMP_NUM_THREADS"] = str(_threads(jobs))
        code = self._wait([sys.executable, "-m", "sdx", *run.overrides], environment, run.log)
        judge(run, os.EX_TEMPFAIL if self._leaving.is_set() and code == -SIGTERM else code)  # it did not listen yet
        if run.state is not RunState.done or not alone:
            say_end(run)

    def _wait(self, command: Sequence[str], environment: dict[str, str], log: Path | None) -> int:
        with ExitStack() as stack:
            output = stack.enter_context(log.open("ab")) if log else None
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        self._processes.append(process)
        if self._leaving.is_set():  # since the last look
            process.send_signal(SIGTERM)
        return process.wait()


def _threads(jobs: int) -> int:
    """A run's share of the cores, or what the environment gives if that is less."""
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
