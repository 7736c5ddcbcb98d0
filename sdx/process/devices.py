"""The devices of this machine, without importing torch, which takes seconds."""

import os
import platform
import shutil
import subprocess
from itertools import takewhile
from logging import getLogger
from pathlib import Path

from sdx.process.threads import cores

log = getLogger("sdx")

NVIDIA_SMI_TIMEOUT_S = 60
"""Without persistence mode the driver takes seconds to start each GPU."""
CPUINFO = Path("/proc/cpuinfo")


def device_name() -> str:
    """The driver's name of the GPU, or the processor's with the cores of this process, for the record of a step."""
    gpu = None if os.environ.get("CUDA_VISIBLE_DEVICES") == "" else visible_gpu()
    return gpu[0] if gpu else processor()


def processor() -> str:
    """The model of the CPU, and this process's share of its cores."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.machine()}, {cores()} cores"


def visible_gpu() -> tuple[str, str] | None:
    """The first of `driver_gpus`; None without one."""
    return next(iter(driver_gpus()), None)


def driver_gpus() -> list[tuple[str, str]]:
    """(name, memory) of each GPU of this machine, by `nvidia-smi`."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=NVIDIA_SMI_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("%-12s nvidia-smi does not answer (%s): no GPU is counted", "gpu", type(error).__name__)
        return []
    rows = (line.partition(", ") for line in answer.stdout.splitlines())
    return [(name, memory) for name, _, memory in rows if name]


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, for CUDA_VISIBLE_DEVICES. CUDA ends the list at an unknown one."""
    present = [str(number) for number in range(len(driver_gpus()))]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not present:
        return present
    names = (name.strip() for name in visible.split(","))
    return list(takewhile(lambda name: name in present or name.startswith(("GPU-", "MIG-")), names))
