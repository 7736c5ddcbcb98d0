"""The process group of a launch, and errors that all ranks raise together."""

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
from sdx.process.preemption import Preempted
from sdx.process.ranks import device, rank, world_size
from sdx.training.quiet import deepspeed

_groups = count()


class AgreedError(Exception):
    """Raised on all ranks at the same place: no rank waits for another in a collective."""


@contextmanager
def leaving(leave: Callable[[], None]) -> Iterator[None]:
    """Calls `leave`, which may wait for the device or for other ranks, at the end of the block.

    If there are several ranks, an error of one rank skips `leave`: the others are still in a collective, and waiting
    for them would hide the error until the collective's timeout.
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

    The group is nccl on CUDA and gloo on the CPU. It is left at the end of the block, and the process can evaluate or
    train again. An existing group is used and not left.
    """
    here = device()
    cuda = here.type == "cuda"
    if cuda:
        torch.cuda.set_device(here)
    joined = not dist.is_initialized()
    before = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = str(here.index or 0)  # where DeepSpeed reads the number of its GPU
    try:
        if joined:
            # The prefix keeps the keys of an earlier group apart.
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
    finally:
        del os.environ["LOCAL_RANK"]  # which accelerate would take for a distributed launch
        if before is not None:
            os.environ["LOCAL_RANK"] = before


def collect() -> None:
    """Frees unused memory. Engines are in reference cycles, which take two rounds of garbage collection."""
    gc.collect()
    free()
    if torch.cuda.is_available():
        torch._C._host_emptyCache()  # pinned memory of an offloaded optimizer


@cache
def _store() -> c10d.Store:
    """Several processes meet at the address in the launcher's environment; a single one needs no port."""
    store: c10d.Store = dist.HashStore() if world_size() == 1 else next(rendezvous("env://"))[0]  # type: ignore[attr-defined]
    return store


def all_ranks(yes: bool, device: torch.device) -> bool:
    """Whether every rank says yes. Called on all ranks, which wait for each other here."""
    agreed = torch.tensor(int(yes), device=device)
    dist.all_reduce(agreed, op=dist.ReduceOp.MIN)
    return bool(agreed)


class RankErrors:
    """Makes ranks fail together: a rank that stopped alone would leave the others waiting for it in a collective."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        """The first error of this rank."""

    @contextmanager
    def catch(self) -> Iterator[None]:
        """Keeps an error until `gather`. The block must hold no collective."""
        try:
            yield
        except Exception as error:
            self.error = self.error or error

    def gather(self, value: Any = None) -> list[Any]:
        """Waits for all ranks and returns the value of each.

        Raises:
            Exception: this rank's own error.
            RuntimeError: the error of another rank, with its message.
        """
        gathered: list[Any] = [None] * world_size()
        dist.all_gather_object(gathered, (value, self.error and f"{type(self.error).__name__}: {self.error}"))
        if self.error is not None:
            raise self.error
        for other, (_, error) in enumerate(gathered):
            if error is not None:
                raise RuntimeError(f"rank {other} could not write: {error}")
        return [value for value, _ in gathered]
