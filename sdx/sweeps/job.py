"""A run as a job of SLURM: one process for each rank, started by srun through submitit."""

import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from hashlib import sha256
from logging import getLogger
from pathlib import Path
from typing import Any

from sdx.process.failure import ERROR, in_a_line
from sdx.process.ranks import ARRAY, WORKER
from sdx.process.secret import print_exception, scrub
from sdx.store.provenance import GIT_STATE, git_state
from sdx.sweeps.watch import ask

log = getLogger("sdx")

PACKAGE = Path(__file__).parents[1]
ROOT = PACKAGE.parent
RETRY_S = 10
END_S = 3600
"""SLURM ends a rank that waits to be ended long before."""


class RunFailed(Exception):
    """The run has printed its error already."""


class RunJob:
    """Does one run on every rank of a job. If the run is asked to leave by SIGUSR2, SLURM starts the job again.

    Until sdx handles signals, submitit's own handler requeues the job with what `checkpoint` returns.

    Args:
        overrides: what follows `python -m sdx`.
        grace_s: how long rank 0 may take to finish its batch after SIGUSR2.
        code: the copy of sdx that has to run; none for the one that Python finds.
        task: number among the tasks of an array that make the run's data together; none for a job that is alone.
    """

    def __init__(
        self, overrides: list[str], run_dir: Path, grace_s: float, code: Path | None, task: int | None
    ) -> None:
        self.overrides, self.run_dir, self.grace_s, self.code, self.task = overrides, run_dir, grace_s, code, task

    def __call__(self) -> None:
        self._check_code()
        from submitit.helpers import TorchDistributedEnvironment

        os.environ.pop("MASTER_PORT", None)  # of the job from which this one was submitted
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        if self.task:
            os.environ[WORKER] = ARRAY
        sys.argv = ["sdx", *self.overrides]
        from sdx.process.preemption import Preempted

        first = os.environ["RANK"] == "0"
        try:
            runpy.run_module("sdx", run_name="__main__", alter_sys=True)
        except Preempted as left:
            if not first:
                self._wait_for_rank_0(left.signal)
            # SIGTERM to a job that stays RUNNING is a preemption with a grace time; scancel would have ended the job
            squeue = ("squeue", "--noheader", "--format=%T", f"--jobs={os.environ.get('SLURM_JOB_ID')}")
            if left.signal is signal.SIGUSR2 or ask(*squeue).stdout.split() == ["RUNNING"]:
                requeue(first)
            raise
        except SystemExit as stop:
            if stop.code:
                raise RunFailed(f"exit code {stop.code}") from None
        except Exception as error:  # submitit would write its whole message
            print_exception(error)
            raise RunFailed(scrub(in_a_line(error))) from None
        if self.task is not None:  # the run's job waits for all tasks, and those that have not begun would do nothing
            ask("scancel", "--state=PENDING", os.environ["SLURM_ARRAY_JOB_ID"])

    def _check_code(self) -> None:
        if self.code and ROOT.resolve() != self.code.resolve():
            error = (
                f"sdx runs from {ROOT} instead of its snapshot {self.code}: hydra.launcher.python has to hand "
                "PYTHONPATH on, and before Python 3.11 the directory it starts in comes first"
            )
            with suppress(OSError):
                (self.run_dir / ERROR).write_text(f"{error}\n", encoding="utf-8")
            raise RunFailed(error)

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _wait_for_rank_0(self, number: signal.Signals) -> None:
        """If this rank ended first, srun would end rank 0 in the middle of its batch."""
        requeued = number is signal.SIGUSR2
        signal.signal(signal.SIGTERM, signal.SIG_DFL if requeued else signal.SIG_IGN)  # when rank 0 requeues the job
        time.sleep(self.grace_s if requeued else END_S)


def requeue(first: bool) -> None:
    """Puts this job back into SLURM's queue, which ends all ranks.

    Rank 0 calls this when its batch is finished, another rank at the end of its wait: rank 0 may not have received the
    signal, or may wait for this rank.
    """
    from submitit import JobEnvironment

    for _ in range(30):  # the controller may be down for a moment
        try:
            if first:
                signal.raise_signal(signal.SIGUSR2)  # submitit's handler, which exits
            subprocess.run(["scontrol", "requeue", JobEnvironment().job_id], check=True, timeout=RETRY_S)
            time.sleep(END_S)
        except (OSError, subprocess.SubprocessError) as error:
            log.warning("%-12s cannot requeue the job, trying again in %d s: %s", "slurm", RETRY_S, error)
            time.sleep(RETRY_S)


def copy_code(target: Path) -> Path:
    """Copies sdx to `<target>/code-<hash>`, so that edits do not change jobs that wait in the queue."""
    folders = [PACKAGE]
    if not (PACKAGE / "conf").is_dir():  # a checkout: a wheel has these inside the package
        folders += [ROOT / "conf", ROOT / "experiments"]
    paths = [path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts]
    paths = [ROOT / "hydra_plugins/sdx.py", *filter(Path.is_file, paths)]
    files = {path.relative_to(ROOT): path.read_bytes() for path in paths}
    files[Path(GIT_STATE)] = (git_state() or "").encode()
    digest = sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    copy = target / f"code-{digest.hexdigest()[:12]}"
    if copy.is_dir():
        return copy
    partial = copy.with_name(f".{copy.name}.{os.getpid()}")
    for name, content in files.items():
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).write_bytes(content)
    try:
        partial.rename(copy)
    except OSError:
        if not copy.is_dir():  # else another launch was faster
            raise
        shutil.rmtree(partial)
    return copy
