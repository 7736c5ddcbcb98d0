"""Keeps a run alive when what it prints finds no reader, no space or no encoding for its characters.

A pipe breaks when `head` has seen enough, a terminal goes with its connection, a log fills its disk, and a stream may
be closed from the start. Every entry point calls `outlive` first.
"""

import io
import logging
import os
import select
import sys
from contextlib import suppress
from typing import Any

from sdx.process.disk import NO_SPACE


class _Lasting(io.FileIO):
    """An open file whose writing never fails.

    What does not fit on a full disk is dropped, and the next write may fit. After any other error the file descriptor
    points to /dev/null, which also keeps C code and child processes writing.
    """

    def write(self, content: Any) -> int:
        try:
            while (written := super().write(content)) is None:  # another process has made the file non-blocking
                select.select([], [self], [])
            return written
        except OSError as error:
            if error.errno not in NO_SPACE:
                with suppress(OSError), open(os.devnull, "wb") as nothing:
                    os.dup2(nothing.fileno(), self.fileno())
            return memoryview(content).nbytes


def outlive() -> None:
    """Makes stdout and stderr outlive their readers and take all characters. A second call does nothing.

    Leaves a stream alone that somebody, such as a test, has replaced. Logging drops what it cannot write, instead of
    printing a traceback for each line.
    """
    logging.raiseExceptions = False
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent process: the next file to be opened would take its number
            number = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(number, True)
            stream = os.fdopen(number, mode, encoding="utf-8")
        elif mode == "w" and stream is getattr(sys, f"__{name}__"):
            stream = _lasting(stream)
        else:
            continue
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _lasting(stream: Any) -> Any:
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # python -u has no buffer in between
    if not isinstance(raw, io.FileIO) or isinstance(raw, _Lasting):
        return stream
    with suppress(OSError):
        stream.flush()
    lasting = _Lasting(raw.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        lasting if buffer is raw else io.BufferedWriter(lasting),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def outlive_log() -> None:
    """Makes Hydra's log files take all characters, whatever the locale."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler) and isinstance(handler.stream, io.TextIOWrapper):
            with suppress(OSError):  # of what is still buffered
                handler.stream.reconfigure(encoding="utf-8", errors="backslashreplace")
