"""What a measurement was made on, and with which versions."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "transformers",
    "ctranslate2",
    "trl",
    "peft",
    "deepspeed",
    "accelerate",
    "flash-attn",
    "liger-kernel",
)
GIB = 2**30


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """Of a run's CPU kernels where the command does not say: what the environment says, else a thread a core."""
    return int(os.environ.get("OMP_NUM_THREADS") or cores())


def machine(device: str) -> dict[str, Any]:
    """Args: device: `CPU` or a GPU's name, as `benchmarks.ceiling` found it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    cpu = names[0] if names else platform.processor()
    return {"device": device, "cpu": cpu, "cores": cores(), "memory_gib": round(memory, 1)}


def versions() -> dict[str, str]:
    """Of what is installed of `PACKAGES`, and Python's."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
