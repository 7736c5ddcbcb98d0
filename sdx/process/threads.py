"""How many threads the CPU's kernels start, and how they wait. Imports no torch, which reads these settings once."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdx.process import cgroups

CPUS = Path("/sys/devices/system/cpu")
SPINS = "10000"
"""How often a thread of GNU's OpenMP looks for new work before it sleeps. Its default of 300,000 costs nothing on a
free core; on a shared core the looks take time from the thread that is waited for. Ours."""


def usable_cores() -> float:
    """Cores that this process may use, together with the ranks of its node that see the same ones: by its affinity, by
    the CPU quota of its control groups, by what SLURM gave its task. Two hardware threads of a core count once.
    """
    name = "SLURM_CPUS_ON_NODE" if _under_torchrun() else "SLURM_CPUS_PER_TASK"
    by_slurm = os.environ.get(name, "")
    limits = [_quota(*group) for group in cgroups.folders("cpu")]
    limits += [float(by_slurm)] if by_slurm.isdecimal() else []
    return min([_physical(_visible()), *filter(None, limits)])


def cores() -> int:
    """This rank's share of the cores, at least 1. Under torchrun, all ranks of a node see the same cores."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if not _under_torchrun():
        node = os.environ.get("SLURM_CPUS_ON_NODE", "")
        if "SLURM_CPUS_PER_TASK" in os.environ or (node.isdecimal() and len(_visible()) < int(node)):
            ranks = 1  # SLURM has given each task its own cores
    return max(1, int(usable_cores() / ranks))


def limit() -> None:
    """Sets what the environment leaves open: as many threads as `cores`, and a short wait.

    Overrides torchrun's own default of OMP_NUM_THREADS=1, which leaves an optimizer on the host a single core.
    """
    by_torchrun = _under_torchrun() and os.environ.get("OMP_NUM_THREADS") == "1"
    if by_torchrun or "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(cores())
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def share(processes: int) -> int:
    """Threads for each of so many processes at once on these cores; never more than OMP_NUM_THREADS."""
    part, given = max(1, cores() // processes), os.environ.get("OMP_NUM_THREADS", "")
    return min(int(given), part) if given.isdecimal() else part


@contextmanager
def sharing(processes: int) -> Iterator[None]:
    """Inside the block, PyTorch computes with this process's `share`."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(share(processes))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _visible() -> set[int]:
    """Numbers of the hardware threads on which this process may run."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _physical(threads: set[int]) -> float:
    """Number of cores to which these hardware threads belong."""
    paths = [CPUS / f"cpu{number}/topology/thread_siblings_list" for number in threads]
    try:
        return len({path.read_text(encoding="utf-8") for path in paths})
    except OSError:
        return len(threads)


def _quota(folder: Path, version: int) -> float | None:
    """Cores' worth of time that a control group grants; none without a limit."""
    names = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    try:
        quota, period = " ".join((folder / name).read_text(encoding="utf-8") for name in names).split()
        return int(quota) / int(period) if quota.isdecimal() else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
