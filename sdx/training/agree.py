"""What the ranks agree on, so that none waits for another that took a different way."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed as dist

from sdx.disk import disk_full


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
