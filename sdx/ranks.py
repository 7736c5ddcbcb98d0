"""Which process of a distributed launch this is, read from the environment that torchrun sets, and its device."""

import os
from typing import TYPE_CHECKING

from sdx.config import InputError

if TYPE_CHECKING:
    import torch


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_main() -> bool:
    return rank() == 0


def device() -> "torch.device":
    """This rank's GPU, or the CPU where no GPU is visible.

    Under torchrun all ranks of a node see the same GPUs, and each takes the one with its local rank. SLURM may show
    each task a single GPU (`--gpus-per-task=1`), which is number 0 in every task.

    Attention by cuDNN is switched off: on Hopper, torch 2.11 to 2.13 get NaN from it for padded rows (pytorch#196678).

    Raises:
        InputError: more ranks than GPUs.
    """
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    visible, number = torch.cuda.device_count(), local_rank()
    if visible == 1 and "SLURM_LOCALID" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
        number = 0
    if number >= visible:
        raise InputError(
            f"local rank {number} finds {visible} GPUs on this node; start one rank for each GPU, as in "
            f"torchrun --nproc-per-node={visible}"
        )
    torch.backends.cuda.enable_cudnn_sdp(False)
    return torch.device("cuda", number)
