"""How many threads the CPU's kernels start, and how they wait for each other. Imports no torch: it reads this once."""

import math
import os
from pathlib import Path

from sdx import cgroups

SPINS = "10000"
"""How often a thread of GNU's OpenMP looks for new work before it sleeps. Its own default of 300,000 costs nothing
while nobody else wants the core; beside other work each look takes the core from a thread that is waited for. Ours."""


def usable_cores() -> float:
    """Cores that this process may use, all ranks of its node that see the same ones together: by its affinity, by the
    CPU quota of its control groups, by what SLURM gave its task.
    """
    of_task = os.environ.get("SLURM_CPUS_PER_TASK", "")
    quotas = (_quota(*group) for group in cgroups.folders("cpu"))
    return min(float(_seen()), *filter(None, quotas), *([float(of_task)] if of_task.isdecimal() else []), math.inf)


def cores() -> int:
    """This rank's share of the cores, 1 at least."""
    return max(1, math.floor(usable_cores() / _ranks_that_share()))


def limit() -> None:
    """Sets what the environment does not say: a thread for each of `cores`, and a short wait.

    torchrun says OMP_NUM_THREADS=1 where nobody has said anything: an optimizer on the host would have a single core.
    """
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("OMP_NUM_THREADS") == "1"
    if by_torchrun or "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(cores())
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def _seen() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ranks_that_share() -> int:
    """How many ranks see the same cores: all of a node under torchrun, one where SLURM has given each task its own."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return ranks
    node = os.environ.get("SLURM_CPUS_ON_NODE", "")
    bound = node.isdecimal() and _seen() < int(node)
    return 1 if bound or "SLURM_CPUS_PER_TASK" in os.environ else ranks


def _quota(folder: Path, version: int) -> float | None:
    """Cores' worth of time that a control group grants; none without a limit."""
    try:
        if version == 2:
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return int(quota) / int(period) if quota.isdecimal() else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
