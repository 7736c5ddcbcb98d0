"""How many threads the CPU's kernels start, and how they wait for each other. Imports no torch: it reads this once."""

import math
import os
from pathlib import Path

from sdx.process import cgroups

CPUS = Path("/sys/devices/system/cpu")
SPINS = "10000"
"""How often a thread of GNU's OpenMP looks for new work before it sleeps. Its own default of 300,000 costs nothing
while nobody else wants the core; beside other work each look takes the core from a thread that is waited for. Ours."""


def usable_cores() -> float:
    """Cores that this process may use, together with the ranks of its node that see the same ones: by its affinity, by
    the CPU quota of its control groups, by what SLURM gave its task. Two hardware threads of a core count once.
    """
    name = "SLURM_CPUS_ON_NODE" if _under_torchrun() else "SLURM_CPUS_PER_TASK"
    by_slurm = os.environ.get(name, "")
    quotas = (_quota(*group) for group in cgroups.folders("cpu"))
    return min([float(_physical(_seen())), *filter(None, quotas), *([float(by_slurm)] if by_slurm.isdecimal() else [])])


def cores() -> int:
    """This rank's share of the cores, 1 at least."""
    return max(1, math.floor(usable_cores() / _ranks_that_share()))


def limit() -> None:
    """Sets what the environment does not say: a thread for each of `cores`, and a short wait.

    torchrun says OMP_NUM_THREADS=1 where nobody has said anything: an optimizer on the host would have a single core.
    """
    by_torchrun = _under_torchrun() and os.environ.get("OMP_NUM_THREADS") == "1"
    if by_torchrun or "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(cores())
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def _under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _seen() -> set[int]:
    """Hardware threads, by number, on which this process may run."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _physical(threads: set[int]) -> int:
    """Cores to which these hardware threads belong."""
    try:
        return len(
            {(CPUS / f"cpu{number}/topology/thread_siblings_list").read_text(encoding="utf-8") for number in threads}
        )
    except OSError:
        return len(threads)


def _ranks_that_share() -> int:
    """How many ranks see the same cores: all of a node under torchrun, one where SLURM has given each task its own."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if _under_torchrun():
        return ranks
    node = os.environ.get("SLURM_CPUS_ON_NODE", "")
    bound = node.isdecimal() and len(_seen()) < int(node)
    return 1 if bound or "SLURM_CPUS_PER_TASK" in os.environ else ranks


def _quota(folder: Path, version: int) -> float | None:
    """Cores' worth of time that a control group grants; none without a limit."""
    try:
        if version == 2:
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8").strip() for name in ("quota", "period")
            )
        return int(quota) / int(period) if quota.isdecimal() else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
