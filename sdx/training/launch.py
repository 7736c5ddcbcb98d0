"""Joining and leaving the process group."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from typing import Any

import torch
from torch import distributed as dist
from torch.distributed import distributed_c10d as c10d
from torch.distributed.rendezvous import rendezvous

from sdx.models.residency import free
from sdx.process.disk import disk_full
from sdx.process.preemption import Preempted
from sdx.process.ranks import device, rank, world_size
from sdx.training.quiet import deepspeed

_groups = count()


class AgreedError(Exception):
    """Raised on all ranks at the same place: none of them waits for another in a collective."""


@contextmanager
def leaving(leave: Callable[[], None]) -> Iterator[None]:
    """Calls `leave`, which may wait for the device or for other ranks, at the end of the block.

    An error of one rank alone skips `leave` where there are several ranks: the others are still in a collective, so
    that waiting for them would take until the collective's timeout, and nobody would see the error before.
    """
    try:
        yield
    except BaseException as error:
        if world_size() == 1 or isinstance(error, AgreedError | Preempted):
            leave()
        raise
    leave()


@contextmanager
def process_group() -> Iterator[torch.device]:
    """This rank's device, inside a process group that all ranks of the launch have joined.

    Joins nccl on CUDA and gloo on the CPU, and leaves again, so that the process can evaluate afterwards and
    train once more. A group that was there before is used and left alone.
    """
    here = device()
    cuda = here.type == "cuda"
    if cuda:
        torch.cuda.set_device(here)
    joined = not dist.is_initialized()
    with _local_rank_in_environment(here.index or 0):
        if joined:
            # Each group has its own corner of the store, or it would find what an earlier one left there.
            dist.init_process_group(
                "nccl" if cuda else "gloo",
                store=c10d.PrefixStore(f"sdx/{next(_groups)}", _store()),
                rank=rank(),
                world_size=world_size(),
                device_id=here if cuda and world_size() > 1 else None,
            )
        deepspeed.init_distributed()
        with leaving(deepspeed.comm.destroy_process_group if joined else lambda: None):
            yield here


def collect() -> None:
    """Frees the memory of what is no longer used. Engines are in reference cycles, which go in two rounds."""
    gc.collect()
    free()
    if torch.cuda.is_available():
        torch._C._host_emptyCache()  # memory of the host that was pinned for an optimizer there


@cache
def _store() -> c10d.Store:
    """One process needs no port; several meet where the launcher's environment says."""
    store: c10d.Store
    if world_size() == 1:
        store = dist.HashStore()  # type: ignore[attr-defined]
    else:
        store, _, _ = next(rendezvous("env://"))
    return store


@contextmanager
def _local_rank_in_environment(number: int) -> Iterator[None]:
    """DeepSpeed takes its GPU's number from LOCAL_RANK and insists on it; accelerate takes the variable for a
    distributed launch, so it must not stay.
    """
    before = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = str(number)
    try:
        yield
    finally:
        if before is None:
            del os.environ["LOCAL_RANK"]
        else:
            os.environ["LOCAL_RANK"] = before


def agree(yes: bool, device: torch.device) -> bool:
    """Whether it is so on every rank. All ranks call it, and wait here for each other."""
    agreed = torch.tensor(int(yes), device=device)
    dist.all_reduce(agreed, op=dist.ReduceOp.MIN)
    return bool(agreed)


class Disk:
    """A disk that any rank may find full: it does not leave then, but goes on to where the ranks agree."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.full = False
        self.why = "on another rank"

    @contextmanager
    def may_be_full(self) -> Iterator[None]:
        """Leaves what is done inside when the disk is full; other errors pass."""
        try:
            yield
        except Exception as error:
            if not disk_full(error):
                raise
            self.full, self.why = True, str(error)

    def has_room(self) -> bool:
        """Whether no rank has found it full so far. All ranks call it."""
        self.full = not agree(not self.full, self.device)
        return not self.full


class Agreement:
    """Ranks fail together: one that stopped alone would leave the others waiting for it in a collective."""

    def __init__(self) -> None:
        self._error: Exception | None = None

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """What is done inside may fail on this rank; holds no collective."""
        try:
            yield
        except Exception as error:
            self._error = self._error or error

    def reach(self, value: Any = None) -> list[Any]:
        """Waits for all ranks and returns the value of each; raises if an attempt of one has failed."""
        said: list[Any] = [None] * world_size()
        dist.all_gather_object(said, (value, self._error and f"{type(self._error).__name__}: {self._error}"))
        if self._error is not None:
            raise self._error
        for other, (_, error) in enumerate(said):
            if error is not None:
                raise RuntimeError(f"rank {other} could not write the model: {error}")
        return [value for value, _ in said]
