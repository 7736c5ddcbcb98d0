"""A cell as a job of SLURM: one process for each rank, started by srun through submitit."""

import os
import signal
import subprocess
import sys
import time
from logging import getLogger
from typing import Any

log = getLogger("sdx")

TRIES = 30
RETRY_S = 10
GONE_S = 600


class CellFailed(Exception):
    """The cell has said itself what is wrong."""


class CellJob:
    """Runs one cell on every rank of a job; asked to leave by SIGUSR2, it has SLURM start the job again.

    Until sdx listens, submitit's own handler requeues the job, with what `checkpoint` returns.

    Args:
        overrides: what follows `python -m sdx`.
    """

    def __init__(self, overrides: list[str]) -> None:
        self.overrides = overrides

    def __call__(self) -> None:
        from submitit.helpers import TorchDistributedEnvironment

        os.environ.pop("MASTER_PORT", None)  # of the job from which this one was submitted
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        os.environ.setdefault("OMP_NUM_THREADS", os.environ.get("SLURM_CPUS_PER_TASK", "1"))
        sys.argv = ["sdx", *self.overrides]
        from sdx.main import main
        from sdx.preemption import Preempted

        try:
            main()
        except Preempted as left:
            if left.signal is signal.SIGUSR2:
                requeue()
            raise
        except SystemExit as stop:
            if stop.code:
                raise CellFailed(f"exit code {stop.code}") from None

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def requeue() -> None:
    """Has SLURM put this job back into the queue. Only rank 0 asks for it; another rank tells all to leave.

    SLURM ends the processes of the job then. SIGTERM needs no requeue: SLURM has decided already.
    """
    if os.environ["RANK"] != "0":
        subprocess.run(["scancel", "--signal=USR2", os.environ["SLURM_JOB_ID"]], check=False)
        time.sleep(GONE_S)
        return
    for _ in range(TRIES):  # the controller may be down for a moment
        try:
            signal.raise_signal(signal.SIGUSR2)  # submitit's handler, which exits
        except (OSError, subprocess.SubprocessError) as error:
            log.warning("%-12s cannot requeue the job, trying again in %d s: %s", "slurm", RETRY_S, error)
            time.sleep(RETRY_S)
