"""Leaving in time when the scheduler or Ctrl-C asks for it, without losing anything that is done.

SLURM sends SIGUSR2 some time before a job's end (`--signal=USR2@300`) and SIGTERM when it takes the machine away.

What a handler raises is lost where the signal lands in a finaliser (`__del__`, the callback of a weak reference):
Python reports it and goes on. So each signal is also noted, and long work asks from time to time: `leave_if_asked`.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from sdx.process.ranks import world_size

if TYPE_CHECKING:
    from torch import distributed as dist

SIGNALS = (signal.SIGUSR2, signal.SIGTERM)
INTERRUPTED = 130
"""Exit code after Ctrl-C."""
ONE_PRESS_S = 1.0
"""A launcher hands Ctrl-C on to ranks that the terminal has told already: SIGINTs so close to each other are one."""
PATIENCE_S = 1800.0
"""How long ranks wait for each other where nothing is wrong: one may validate, or write a checkpoint, alone."""


class Preempted(SystemExit):
    """The run was asked to leave and has left nothing undone. The process exits with `EX_TEMPFAIL`: start me again.

    No `Exception`: a sweep must not take it for the failure of one run and go on with the next.

    Args:
        signal_number: what asked.
        kept: what the same command goes on from.
    """

    def __init__(self, signal_number: int, kept: str) -> None:
        super().__init__(os.EX_TEMPFAIL)
        self.signal = signal.Signals(signal_number)
        self.message = f"stopped by {self.signal.name}; the same command goes on from {kept}"

    def __str__(self) -> str:
        return self.message


class _Interrupt:
    """Ctrl-C, in this process."""

    def __init__(self) -> None:
        self.noted_s: float | None = None
        """When it came, by the monotonic clock."""

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Raises KeyboardInterrupt; the second ends the process at once, whatever it is finishing."""
        first, now = self.noted_s, time.monotonic()
        if first is None:
            self.noted_s = now
            raise KeyboardInterrupt
        if now - first >= ONE_PRESS_S:
            os.write(2, b"sdx: interrupted again; ended at once\n")
            os._exit(INTERRUPTED)


_interrupt = _Interrupt()


@contextmanager
def interrupts_noted() -> Iterator[None]:
    """While inside, SIGINT is noted as well as raised, and where it was lost nothing is said of that.

    Where SIGINT is ignored, as in the background of a script, or somebody else handles it, nothing changes.
    """
    global _interrupt
    _interrupt = _Interrupt()
    elsewhere = threading.current_thread() is not threading.main_thread()
    if elsewhere or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _interrupt.hear)
    report = sys.unraisablehook

    def report_others(lost: Any) -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt | Preempted):
            report(lost)

    sys.unraisablehook = report_others
    try:
        yield
    finally:
        sys.unraisablehook = report
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _interrupt = _Interrupt()


class _Listener:
    """What `listening` and `finishing` share in this process."""

    def __init__(self) -> None:
        self.noted = 0
        self.finishing = 0

    def hear(self, number: int, frame: FrameType | None) -> None:
        self.noted = self.noted or number
        self.leave_if_asked()

    def leave_if_asked(self) -> None:
        if self.finishing:
            return
        if _interrupt.noted_s is not None:
            raise KeyboardInterrupt
        if self.noted:
            raise Preempted(self.noted, "what is done")


_listener = _Listener()


def leave_if_asked() -> None:
    """Raises what a signal asked for, where it was heard before and somebody swallowed it, but not in `finishing`.

    A signal is heard in the main thread alone, and is raised there.
    """
    if threading.current_thread() is threading.main_thread():
        _listener.leave_if_asked()


@contextmanager
def listening() -> Iterator[None]:
    """While inside, SIGUSR2 and SIGTERM raise `Preempted` wherever the main thread is, but for what is `finishing`.

    Outside of the main thread nothing is heard.
    """
    global _listener
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _listener = _Listener()
    previous = {number: signal.signal(number, _listener.hear) for number in SIGNALS}
    try:
        yield
        _listener.leave_if_asked()  # where it was heard, somebody swallowed it
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def finishing() -> Iterator[None]:
    """A piece of work that is brought to its end first, such as a batch and its line on the disk."""
    listener = _listener
    listener.leave_if_asked()
    listener.finishing += 1
    try:
        yield
    finally:
        listener.finishing -= 1
    listener.leave_if_asked()


class Preemption:
    """Notes SIGUSR2 and SIGTERM instead of leaving at once, on whichever rank they come: ranks that work together
    leave together.

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
        from torch import distributed as dist

        if world_size() > 1 and dist.get_backend() == "nccl":
            self._group = dist.new_group(backend="gloo")
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
            self._noted, _listener.noted = _listener.noted, 0  # from here on the ranks leave together
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._group is not None and (error is None or isinstance(error, Preempted)):
            from torch import distributed as dist

            dist.destroy_process_group(self._group)
        if self._noted and error is None:
            signal.raise_signal(self._noted)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = self._noted or number

    def requested(self) -> bool:
        """Whether a rank has been asked to leave; the same on all ranks, which all call it."""
        self._agreed = self.most(self._noted)
        return self._agreed > 0

    def most(self, number: int, patience_s: float = PATIENCE_S) -> int:
        """The largest of what the ranks give, all of which call it.

        They agree on the CPU: on CUDA the ranks wait for each other here, but none for its device.

        Raises:
            RuntimeError: the others have not come for so long.
        """
        if world_size() == 1:
            return number
        import torch
        from torch import distributed as dist

        given = torch.tensor(number)
        work = dist.all_reduce(given, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        work.wait(timedelta(seconds=patience_s))
        return int(given)

    def leave(self, kept: str) -> Preempted:
        """What to raise once `requested`."""
        return Preempted(self._agreed, kept)
