"""What the control groups of Linux, by which containers and SLURM limit a process, say of this one."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def folders(controller: str) -> Iterator[tuple[Path, int]]:
    """The groups that this process is in, the innermost first, each with the version of its files, 1 or 2.

    Args:
        controller: `memory` or `cpu`.
    """
    lines = MEMBERSHIP.read_text(encoding="utf-8").splitlines() if MEMBERSHIP.is_file() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _outwards(ROOT, path, 2)
        elif controller in controllers.split(","):
            yield from _outwards(ROOT / controller, path, 1)


def _outwards(root: Path, path: str, version: int) -> Iterator[tuple[Path, int]]:
    """A container may show its own group as the root of all: then the path leads nowhere, and the root counts."""
    inner = root / path.strip("/")
    for folder in (inner, *inner.parents):
        if folder.is_dir():
            yield folder, version
        if folder == root:
            return
