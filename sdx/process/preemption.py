"""Leaving in time when the scheduler or Ctrl-C asks for it, without losing finished work.

SLURM sends SIGUSR2 some time before a job's end (`--signal=USR2@300`) and SIGTERM when it takes the machine away.

Python reports and drops what a handler raises inside a finaliser (`__del__`, the callback of a weak reference). So each
signal is also noted, and long work calls `leave_if_asked` from time to time.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any

from sdx.process.ranks import world_size

if TYPE_CHECKING:
    from torch import distributed as dist

SIGNALS = (signal.SIGUSR2, signal.SIGTERM)
PARENT_S = 0.5
"""Between two looks whether the parent lives."""
ONE_PRESS_S = 1.0
"""SIGINTs closer together are one Ctrl-C: a launcher passes it on to ranks that the terminal has signalled already."""


class Preempted(SystemExit):
    """A signal asked the run to leave; what is `saved` is where the same command goes on.

    The process exits with `EX_TEMPFAIL`: start it again. Not an `Exception`: a sweep must not take it for the failure
    of one run and go on with the next.
    """

    def __init__(self, signal_number: int, saved: str) -> None:
        self.signal = signal.Signals(signal_number)
        super().__init__(f"stopped by {self.signal.name}; the same command goes on from {saved}")
        self.code = os.EX_TEMPFAIL


@dataclass
class _Noted:
    """The signals that this process has received."""

    interrupt_s: float | None = None
    """When Ctrl-C came, by the monotonic clock."""
    preemption: int = 0
    """The first of `SIGNALS` that came; 0 for none."""
    finishing: int = 0
    """Depth of nested `finishing` blocks."""


_noted = _Noted()


@contextmanager
def interrupts_noted() -> Iterator[None]:
    """Inside the block, SIGINT is noted as well as raised, and Python does not report a dropped SIGINT.

    Nothing changes if SIGINT is ignored, as in the background of a script, or has another handler.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    report = sys.unraisablehook

    def report_others(dropped: Any) -> None:
        if not isinstance(dropped.exc_value, KeyboardInterrupt | Preempted):
            report(dropped)

    sys.unraisablehook = report_others
    try:
        yield
    finally:
        sys.unraisablehook = report
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _noted.interrupt_s = None


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt; a second Ctrl-C ends the process at once, even in a `finishing` block."""
    now = time.monotonic()
    if _noted.interrupt_s is None:
        _noted.interrupt_s = now
        raise KeyboardInterrupt
    if now - _noted.interrupt_s >= ONE_PRESS_S:
        os.write(2, b"sdx: interrupted again; ended at once\n")
        os._exit(130)


def leave_if_asked() -> None:
    """Raises what a noted signal asks for, except in a `finishing` block.

    Does nothing outside of the main thread, where no signal is raised either.
    """
    if _noted.finishing or threading.current_thread() is not threading.main_thread():
        return
    if _noted.interrupt_s is not None:
        raise KeyboardInterrupt
    if _noted.preemption:
        raise Preempted(_noted.preemption, "what is done")


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Inside the block, `SIGNALS` go to the handler. Does nothing outside of the main thread, where Python cannot."""
    previous: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        _noted.preemption = 0
        previous = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler_before in previous.items():
            signal.signal(number, handler_before)


@contextmanager
def listening() -> Iterator[None]:
    """Inside the block, SIGUSR2 and SIGTERM raise `Preempted` in the main thread, after any `finishing` block."""
    with _handling(_preempt):
        yield
        leave_if_asked()  # the code inside may have swallowed the exception


def _preempt(number: int, frame: FrameType | None) -> None:
    _noted.preemption = _noted.preemption or number
    leave_if_asked()


@contextmanager
def finishing() -> Iterator[None]:
    """Work that is finished before the process leaves, such as a batch and its line on the disk."""
    leave_if_asked()
    _noted.finishing += 1
    try:
        yield
    finally:
        _noted.finishing -= 1
    leave_if_asked()


def end_with(parent: int) -> None:
    """Ends this process, a child of `parent`, soon after its parent has ended in whatever way."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_S)
        os._exit(os.EX_TEMPFAIL)

    threading.Thread(target=watch, name="sdx parent", daemon=True).start()


class Preemption:
    """Notes SIGUSR2 and SIGTERM on any rank instead of raising, so that ranks that work together leave together.

    All ranks enter the block inside the process group, call `requested` at the same places, save if it is true, and
    raise `leave(...)`; `sdx.training.loop` does so. Outside of the main thread a rank notes no signal and follows the
    others. A signal after the last call of `requested` is raised again at the end of the block, for the previous
    handler.
    """

    def __init__(self) -> None:
        self._noted = self._agreed = 0
        self._handling = _handling(self._note)
        self._group: dist.ProcessGroup | None = None

    def __enter__(self) -> "Preemption":
        from torch import distributed as dist

        if world_size() > 1 and dist.get_backend() == "nccl":
            self._group = dist.new_group(backend="gloo")
        self._noted = _noted.preemption  # from here on the ranks leave together
        self._handling.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._handling.__exit__(None, None, None)
        if self._group is not None and (error is None or isinstance(error, Preempted)):
            from torch import distributed as dist

            dist.destroy_process_group(self._group)
        if self._noted and error is None:
            signal.raise_signal(self._noted)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = self._noted or number

    def requested(self) -> bool:
        """Whether any rank was asked to leave; all ranks call this and get the same answer."""
        self._agreed = self.maximum(self._noted)
        return self._agreed > 0

    def maximum(self, number: int, timeout_s: float = 1800.0) -> int:
        """The largest number that any rank gives; all ranks call this.

        The exchange is on the CPU: on CUDA, ranks wait for each other but not for their devices. Raises RuntimeError if
        another rank does not come in time, which by default is long enough to validate or to write a checkpoint.
        """
        if world_size() == 1:
            return number
        import torch
        from torch import distributed as dist

        given = torch.tensor(number)
        work = dist.all_reduce(given, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        work.wait(timedelta(seconds=timeout_s))
        return int(given)

    def leave(self, saved: str) -> Preempted:
        """What to raise once `requested`."""
        return Preempted(self._agreed, saved)
