"""The control groups of Linux, by which containers and SLURM limit a process, of this process."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def folders(controller: str) -> Iterator[tuple[Path, int]]:
    """The groups with a controller, `memory` or `cpu`, that this process is in, innermost first, with their version."""
    lines = MEMBERSHIP.read_text(encoding="utf-8").splitlines() if MEMBERSHIP.is_file() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root, version = (ROOT / controller, 1) if controllers else (ROOT, 2)
        inner = root / path.strip("/")
        for folder in (inner, *inner.parents):
            if folder.is_dir():  # inside a container, the path may not exist, but its root does
                yield folder, version
            if folder == root:
                break
