"""What a program prints may find no reader, no room and no letters for it; none of this ends a run.

A pipe breaks when `head` has seen enough, a terminal goes with its connection, a log fills its disk, and a stream may
be closed from the start. Every door calls `outlive` first.
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

    What a full disk does not take is dropped, and the next may find room. Any other error lasts: the file is replaced
    by /dev/null where the system keeps it, so that C code and child processes write on, too.
    """

    def write(self, content: Any) -> int:
        try:
            while (written := super().write(content)) is None:  # somebody who shares it has set it not to block
                select.select([], [self], [])
            return written
        except OSError as error:
            if error.errno not in NO_SPACE:
                with suppress(OSError):
                    nothing = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(nothing, self.fileno())
                    os.close(nothing)
            return memoryview(content).nbytes


def outlive() -> None:
    """Makes stdout and stderr outlive their readers, whatever letters they know; called again it does nothing.

    A stream that somebody has replaced, such as a test, is theirs. Logging drops what it cannot write: its own reports
    of that are tracebacks on stderr, one for each line.
    """
    logging.raiseExceptions = False
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started this: the next file to be opened would take its number
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
    """The same for the files that Hydra has opened for logs: they take all letters, whatever the locale."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler) and isinstance(handler.stream, io.TextIOWrapper):
            with suppress(OSError):  # of what waits to be written
                handler.stream.reconfigure(encoding="utf-8", errors="backslashreplace")
