"""What the launchers of sdx share, and `hydra/launcher=local`: each run of a sweep in a process of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from logging import INFO, WARNING, getLogger
from pathlib import Path
from signal import SIGTERM

from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from sdx import InputError
from sdx.options import fields
from sdx.process import threads
from sdx.process.devices import visible_gpus
from sdx.process.preemption import finishing, leave_if_asked, listening
from sdx.process.ranks import world_size
from sdx.store.store import Store
from sdx.sweeps import summary
from sdx.sweeps.runs import SweepRun, check, check_alone, clear_outcome, compose_all, labels, returned, set_outcome
from sdx.tracking.state import RunState

log = getLogger("sdx")

POLL_S = 0.2


class RunLauncher(Launcher):
    """Checks all runs of a sweep before one starts, leaves out those that are done, and launches the others."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Returns when all runs have ended; the value of each `JobReturn` is the run.

        Raises InputError if a run cannot work, before any run is started.
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
        checked = check(runs)
        if runs[0].config.plan:  # a plan needs no machine of its own, and no run directory is made for it
            from sdx.planning.sweep import show_sweep

            names = labels([run.given for run in runs])
            plans = [(name, *plan) for name, plan in zip(names, checked, strict=True)]
            show_sweep(plans, Store(Path(runs[0].config.cache_dir)))
            return []
        for _, plan in checked:
            plan.run.record_choices()
        waiting = {run.run_dir: run for run in runs if run.state is None}
        log.info("%-12s %d runs, %d of them done before", "sweep", len(runs), len(runs) - len(waiting))
        summary.add_runs(runs)
        self.run(list(waiting.values()))
        for run in runs:  # a sweep may have the same run twice
            if run.state is None:
                run.state, run.error = waiting[run.run_dir].state, waiting[run.run_dir].error
        return [returned(run) for run in runs]

    def run(self, runs: Sequence[SweepRun]) -> None:
        """Runs them and sets the outcome of each."""
        raise NotImplementedError


def log_end(run: SweepRun) -> None:
    assert run.state
    error = f": {run.error}" if run.error else ""
    log.log(INFO if run.state is RunState.done else WARNING, "%-12s %s%s", run.state.value, run.name, error)


@dataclass
class LocalConfig:
    """Processes on this machine, each on a GPU of its own."""

    _target_: str = "hydra_plugins.sdx.LocalLauncher"
    jobs: int | None = fields.number(None, at_least=1, at_most=10_000)
    """Runs at once. None: one for each GPU, or one without GPUs."""


class LocalLauncher(RunLauncher):
    """Runs on this machine. The arguments are those of `LocalConfig`."""

    def __init__(self, jobs: int | None) -> None:
        self.jobs = jobs

    def run(self, runs: Sequence[SweepRun]) -> None:
        gpus = visible_gpus()
        if gpus and self.jobs and self.jobs > len(gpus):
            raise InputError(f"hydra.launcher.jobs={self.jobs} exceeds the {len(gpus)} GPUs here; lower it")
        jobs = min(self.jobs or len(gpus) or 1, len(runs))
        free: list[str | None] = [*gpus[:jobs]] or [None] * jobs
        waiting = list(runs)
        running: list[tuple[SweepRun, str | None, subprocess.Popen[bytes]]] = []
        try:
            with listening():
                while waiting or running:
                    while waiting and free:
                        with finishing():  # no process is started and then forgotten
                            run, gpu = waiting.pop(0), free.pop(0)
                            running.append((run, gpu, _start(run, gpu, jobs)))
                    for entry in [entry for entry in running if entry[2].poll() is not None]:
                        running.remove(entry)
                        free.append(entry[1])
                        _end(entry[0], entry[2].wait())
                    leave_if_asked()
                    time.sleep(POLL_S)
        except BaseException:
            for _, _, process in running:
                process.terminate()
            for run, _, process in running:
                code = process.wait()
                _end(run, os.EX_TEMPFAIL if code == -SIGTERM else code)  # if it was not yet listening
            raise


def _start(run: SweepRun, gpu: str | None, jobs: int) -> subprocess.Popen[bytes]:
    """Starts one of `jobs` runs at once, with its share of the cores. A run that is alone prints to the terminal."""
    run.run_dir.mkdir(parents=True, exist_ok=True)
    clear_outcome(run.run_dir)
    log.info("%-12s %s  %s", "start", run.name, f"on GPU {gpu}" if gpu else "")
    environment = dict(os.environ)
    if gpu:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    if jobs > 1:
        environment["OMP_NUM_THREADS"] = str(threads.share(jobs))
        run.log = run.run_dir / "output.log"
    command = [sys.executable, "-m", "sdx", *run.overrides]
    with run.log.open("ab") if run.log else nullcontext() as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output)


def _end(run: SweepRun, exit_code: int) -> None:
    set_outcome(run, exit_code)
    if run.state is not RunState.done or run.log:  # a run that is alone says itself that it is done
        log_end(run)
