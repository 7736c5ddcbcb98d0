"""The hardware of a training: how many ranks, how much memory, whether layers can be compiled."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from sdx.process import cgroups
from sdx.process.ranks import world_size

PEAK_FLOPS = {
    "GB200": 2500e12,
    "B200": 2250e12,
    "GH200": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "A10G": 70e12,
    "RTX 4090": 165e12,
}
"""Dense bf16 with fp32 accumulation, the vendor's figures, by a part of the driver's name; see `of_gpu`."""
T = TypeVar("T")


def of_gpu(name: str, table: Mapping[str, T]) -> T | None:
    """The table's entry for a GPU, under the longest key that is in the driver's name; None if there is no such key."""
    key = max((part for part in table if part in name), key=len, default=None)
    return table[key] if key else None


@dataclass(frozen=True)
class Hardware:
    """One rank's share of a launch, whose machines are assumed to be equal.

    Args:
        device_bytes: memory of the rank's GPU; without a GPU, `host_bytes`.
        host_bytes: the rank's share of the machine's memory; infinite if that is not known.
    """

    ranks: int
    device_bytes: float
    host_bytes: float
    is_cuda: bool
    can_compile: bool


def read_hardware() -> Hardware:
    """The hardware of this launch, the same on all ranks of a machine."""
    import torch

    host = host_bytes() / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    gpus = [torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count())]
    return Hardware(world_size(), min(gpus) if cuda else host, host, cuda, can_compile(cuda))


def host_bytes() -> float:
    """This machine's memory, or the limit of a container or a SLURM job."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder, version in cgroups.folders("memory"):
        limit = folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")
        if limit.is_file() and (text := limit.read_text(encoding="utf-8").strip()).isdecimal():
            limits.append(int(text))
    return float(min(limits))


def can_compile(cuda: bool) -> bool:
    """Whether torch.compile's generated code can be built: Python's headers and a compiler; Triton for CUDA."""
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return False
    if cuda:
        compilers = [os.environ.get("CC"), "clang", "gcc"]
        return find_spec("triton") is not None and any(name and shutil.which(name) for name in compilers)
    # Inductor tries this name only; another compiler has to be named in CXX.
    return shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")) is not None
