"""What a training has to run on: how many ranks, how much memory, whether layers can be compiled."""

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
"""Dense bf16 with fp32 accumulation, the vendor's figure, by a part of the name that the driver gives; see `of_gpu`."""
T = TypeVar("T")


def of_gpu(name: str, table: Mapping[str, T]) -> T | None:
    """What a table has for a GPU: under the longest of its keys that is in the driver's name."""
    key = max((part for part in table if part in name), key=len, default=None)
    return table[key] if key else None


@dataclass(frozen=True)
class Hardware:
    """One rank's share of a launch; the machines of a launch are taken to be alike.

    Args:
        ranks: of the launch.
        device_bytes: memory of the rank's GPU; without one its share of the machine's memory, which is then the host's.
        host_bytes: its share of the machine's memory; infinite where that is not known.
        is_cuda: whether it has a GPU.
        can_compile: whether torch.compile finds what it needs.
    """

    ranks: int
    device_bytes: float
    host_bytes: float
    is_cuda: bool
    can_compile: bool


def read_hardware() -> Hardware:
    """What this launch has. Equal on all ranks of a machine."""
    import torch

    host = host_bytes() / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    gpus = [torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count())]
    return Hardware(world_size(), min(gpus) if cuda else host, host, cuda, can_compile(cuda))


def host_bytes() -> float:
    """This machine's memory, or what a container or a SLURM job leaves of it."""
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
    # The one name that Inductor tries: a clang++ beside it has to be named in CXX.
    return shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")) is not None
