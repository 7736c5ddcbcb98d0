"""This process's part in a run, from the environment: its rank in a distributed launch, whether it works for a run that
another process reports; and its device."""

import os
import re
from typing import TYPE_CHECKING

from sdx import InputError

if TYPE_CHECKING:
    import torch

WORKER = "SDX_WORKER"
"""Set in a process that reports nothing, because another one reports the same run: the number of the process that it
helps, or `ARRAY`."""
ARRAY = "array"
"""In a task of a SLURM array that makes a run's data. Like rank 0, it may make any step."""


def check() -> None:
    """Raises InputError if the environment describes only a part of a distributed launch, or has odd numbers."""
    fix = "start the ranks with torchrun, or unset RANK, WORLD_SIZE and LOCAL_RANK for one process"
    numbers = {"WORLD_SIZE": 1, "RANK": 0, "LOCAL_WORLD_SIZE": 1, "LOCAL_RANK": 0}
    for name, least in numbers.items():
        text = os.environ.get(name, str(least))
        if not re.fullmatch("[0-9]{1,9}", text) or int(text) < least:
            raise InputError(f"{name}={text} in the environment is no number from {least}; {fix}")
        numbers[name] = int(text)
    for name, size in (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE")):
        if numbers[name] >= numbers[size] and (size in os.environ or name == "RANK"):
            given = f"{size}={numbers[size]}" if size in os.environ else f"{size} is not set"
            raise InputError(f"{name}={numbers[name]} in the environment, but {given}; {fix}")
    if (ranks := numbers["WORLD_SIZE"]) == 1:
        return
    needed = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if missing := [name for name in needed if not os.environ.get(name)]:
        raise InputError(f"WORLD_SIZE={ranks} in the environment without {', '.join(missing)}; {fix}")
    port = os.environ["MASTER_PORT"]
    if not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 2**16):
        raise InputError(f"MASTER_PORT={port} in the environment is no port; give 1 to 65535")


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process reports: it prints, tracks, and writes into the run directory."""
    return rank() == 0 and WORKER not in os.environ


def helped() -> int | None:
    """The number of the process that started this one to help with its row steps, and that alone; None otherwise."""
    worker = os.environ.get(WORKER, "")
    return int(worker) if worker.isdecimal() else None


def device() -> "torch.device":
    """This rank's GPU, or the CPU if no GPU is visible.

    Under torchrun, all ranks of a node see the same GPUs, and each takes the one with its local rank. SLURM may show
    each task a single GPU (`--gpus-per-task=1`), which is number 0 in every task.

    Also switches cuDNN attention off: on Hopper, torch 2.11 to 2.13 get NaN from it for padded rows (pytorch#196678).
    Raises InputError if there are more ranks than GPUs.
    """
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    visible, number = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", "0"))
    if visible == 1 and "SLURM_LOCALID" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
        number = 0
    if number >= visible:
        raise InputError(
            f"local rank {number} finds {visible} GPUs on this node; start one rank for each GPU, as in "
            f"torchrun --nproc-per-node={visible}"
        )
    torch.backends.cuda.enable_cudnn_sdp(False)
    return torch.device("cuda", number)


def launch_id() -> str:
    """The same on all ranks of one launch and different in the next, under torchrun and SLURM."""
    names = "TORCHELASTIC_RUN_ID MASTER_ADDR MASTER_PORT TORCHELASTIC_RESTART_COUNT SLURM_JOB_ID SLURM_RESTART_COUNT"
    return "/".join(os.environ.get(name, "") for name in names.split())
