"""Leaving in time when the scheduler asks for the machine, without losing a step.

SLURM sends SIGUSR2 some time before a job's end (`--signal=USR2@300`) and SIGTERM when it takes the machine away.
"""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import distributed as dist

from sdx.ranks import world_size

SIGNALS = (signal.SIGUSR2, signal.SIGTERM)


class Preempted(SystemExit):
    """Training was asked to leave and has left nothing undone. The process exits with `EX_TEMPFAIL`: start me again.

    No `Exception`: a sweep must not take it for the failure of one cell and go on with the next.

    Args:
        signal_number: what asked.
        kept: what the same command goes on from.
    """

    def __init__(self, signal_number: int, kept: str) -> None:
        super().__init__(os.EX_TEMPFAIL)
        self.message = f"stopped by {signal.Signals(signal_number).name}; the same command goes on from {kept}"

    def __str__(self) -> str:
        return self.message


class Preemption:
    """Notes SIGUSR2 and SIGTERM instead of dying of them, on whichever rank they come.

        with Preemption() as preemption:
            for step in ...:
                ...
                if due or preemption.requested():
                    checkpoints.save(...)
                    if preemption.requested():  # it may have come while the checkpoint was written
                        raise preemption.leave("step ...")

    All ranks enter it inside the process group and ask `requested` at the same places. Outside of the main thread it
    hears no signal, and the other ranks decide. A signal that comes after the last question is sent again on leaving,
    to whoever handled it before.
    """

    def __init__(self) -> None:
        self._noted = 0
        self._agreed = 0
        self._previous: dict[signal.Signals, Any] = {}
        self._group: dist.ProcessGroup | None = None

    def __enter__(self) -> "Preemption":
        if world_size() > 1 and dist.get_backend() == "nccl":
            self._group = dist.new_group(backend="gloo")
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._group is not None:
            dist.destroy_process_group(self._group)
        if self._noted and not isinstance(error, Preempted):
            signal.raise_signal(self._noted)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = self._noted or number

    def requested(self) -> bool:
        """Whether a rank has been asked to leave; the same on all ranks, which all call it.

        They agree on the CPU: on CUDA the ranks wait for each other here, but none for its device.
        """
        noted = torch.tensor(self._noted)
        if world_size() > 1:
            dist.all_reduce(noted, op=dist.ReduceOp.MAX, group=self._group)
        self._agreed = int(noted)
        return self._agreed > 0

    def leave(self, kept: str) -> Preempted:
        """What to raise once `requested`."""
        return Preempted(self._agreed, kept)
