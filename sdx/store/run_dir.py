"""What lies in the directory of a run."""

import os
from pathlib import Path

RESULTS = "results.json"


def directories(path: Path) -> list[Path]:
    """Directories of runs, finished or begun, in and below a path."""
    found = []
    for folder, inner, files in os.walk(path):
        if RESULTS in files or ".hydra" in inner:
            found.append(Path(folder))
            inner.clear()  # no run lies inside another
    return found
