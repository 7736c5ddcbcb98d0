"""A cell as a job of SLURM: one process for each rank, started by srun through submitit."""

import os
import runpy
import signal
import subprocess
import sys
import time
from contextlib import suppress
from logging import getLogger
from pathlib import Path
from typing import Any

from sdx.process.failure import ERROR, in_a_line
from sdx.process.secret import print_exception, scrub
from sdx.sweeps.scheduler import runs

log = getLogger("sdx")

TRIES = 30
RETRY_S = 10
GONE_S = 3600


class CellFailed(Exception):
    """The cell has said itself what is wrong."""


class CellJob:
    """Runs one cell on every rank of a job; asked to leave by SIGUSR2, it has SLURM start the job again.

    Until sdx listens, submitit's own handler requeues the job, with what `checkpoint` returns.

    Args:
        overrides: what follows `python -m sdx`.
        run_dir: the cell's.
        grace_s: how long rank 0 may take to finish its batch after SIGUSR2.
        code: the copy of sdx that has to run; none for what Python finds.
    """

    code: Path | None = None  # of jobs that an earlier sdx has submitted

    def __init__(self, overrides: list[str], run_dir: Path, grace_s: float, code: Path | None) -> None:
        self.overrides, self.run_dir, self.grace_s, self.code = overrides, run_dir, grace_s, code

    def __call__(self) -> None:
        self._check_code()
        from submitit.helpers import TorchDistributedEnvironment

        os.environ.pop("MASTER_PORT", None)  # of the job from which this one was submitted
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        sys.argv = ["sdx", *self.overrides]
        from sdx.process.preemption import Preempted

        first = os.environ["RANK"] == "0"
        try:
            runpy.run_module("sdx", run_name="__main__", alter_sys=True)
        except Preempted as left:
            if not first:
                self._wait_for_rank_0(left.signal)
            # After SIGTERM: a job that runs on is being preempted, with a time of grace; scancel would have ended it.
            if left.signal is signal.SIGUSR2 or runs(os.environ["SLURM_JOB_ID"]):
                requeue(first)
            raise
        except SystemExit as stop:
            if stop.code:
                raise CellFailed(f"exit code {stop.code}") from None
        except Exception as error:  # of which submitit would write all that it says
            print_exception(error)
            raise CellFailed(scrub(in_a_line(error))) from None

    def _check_code(self) -> None:
        here = Path(__file__).parents[2]
        if self.code and here.resolve() != self.code.resolve():
            error = (
                f"sdx runs from {here} instead of its snapshot {self.code}: hydra.launcher.python has to hand "
                "PYTHONPATH on, and before Python 3.11 the directory it starts in comes first"
            )
            with suppress(OSError):
                (self.run_dir / ERROR).write_text(f"{error}\n", encoding="utf-8")
            raise CellFailed(error)

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _wait_for_rank_0(self, number: signal.Signals) -> None:
        """Were this rank to end first, srun would end rank 0 in the middle of its batch. SLURM ends this one then."""
        asked = number is signal.SIGUSR2
        signal.signal(signal.SIGTERM, signal.SIG_DFL if asked else signal.SIG_IGN)  # after SIGUSR2: rank 0 is done
        time.sleep(self.grace_s if asked else GONE_S)


def requeue(first: bool) -> None:
    """Has SLURM put this job back into the queue, which ends all ranks.

    Rank 0 does it when its batch is finished. Another rank does it in the end: rank 0 may not have been signalled, or
    waits for this rank.
    """
    from submitit import JobEnvironment

    for _ in range(TRIES):  # the controller may be down for a moment
        try:
            if first:
                signal.raise_signal(signal.SIGUSR2)  # submitit's handler, which exits
            subprocess.run(["scontrol", "requeue", JobEnvironment().job_id], check=True, timeout=RETRY_S)
            time.sleep(GONE_S)
        except (OSError, subprocess.SubprocessError) as error:
            log.warning("%-12s cannot requeue the job, trying again in %d s: %s", "slurm", RETRY_S, error)
            time.sleep(RETRY_S)
