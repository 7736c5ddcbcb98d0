"""What the ranks agree on, so that none waits for another that took a different way."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed as dist

from sdx.disk import disk_full
from sdx.ranks import world_size


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
