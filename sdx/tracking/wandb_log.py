"""wandb's own record of a run, `run-<id>.wandb`: what an earlier process logged, and the repair of what a kill tore.

The format is LevelDB's log (blocks of 32 KiB, records in pieces, each with checksum, length and kind) behind seven
bytes of wandb's, with a protobuf `Record` in each record. `wandb sync` uploads the records of one run's files in the
order in which they began, each going on where the one before stopped, but at a torn record it gives up on the files
after it.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BEGINNING = 7
"""Bytes before the first block's first record; they are part of the block."""
BLOCK = 32 * 1024
HEAD = struct.Struct("<IHB")
"""Of a piece: checksum, bytes, kind."""
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class Logged:
    """What the files of a run hold."""

    step: int = -1
    """wandb's own step, which counts the rows."""
    axes: dict[str, int] = field(default_factory=dict)
    """The last step on each axis, by the axis's name."""


def files(run_dir: Path) -> list[Path]:
    """The records of a run directory, in the order in which they began."""
    return sorted(run_dir.glob("wandb/*run-*/run-*.wandb"), key=lambda path: path.parent.name.rpartition("run-")[2])


def upload_command(run_dir: Path, option: str = "") -> str:
    """What uploads a run directory, or what of it is not uploaded yet.

    `wandb sync` goes by the time at which the processes began. Where the clock was set back meanwhile, that is not the
    order of what they logged, and each needs a command of its own.
    """
    found = [(*_beginning(path), path.parent) for path in files(run_dir)]
    found.sort(key=lambda one: one[0])
    times = [time for _, time, _ in found]
    if times == sorted(times):
        return f"wandb sync {option}{run_dir / 'wandb'}"
    return " && ".join(f"wandb sync {option}{folder}" for _, _, folder in found)


def _beginning(path: Path) -> tuple[int, float]:
    """The first step, and when the process began in seconds since 1970."""
    time = 0.0
    for _, record in records(path):
        if record.HasField("run"):
            time = record.run.start_time.ToNanoseconds() / 1e9
        if record.HasField("history"):
            return record.history.step.num, time
    return 0, time


def logged(paths: list[Path], axes: tuple[str, ...]) -> Logged:
    """What was logged there on axes with these last names.

    Args:
        axes: such as `step`, for `train/step`.
    """
    found = Logged()
    for path in paths:
        for _, record in records(path):
            if record.HasField("history"):
                found.step = max(found.step, record.history.step.num)
                for item in record.history.item:
                    name = item.key or ".".join(item.nested_key)
                    if name.rpartition("/")[2] in axes:
                        found.axes[name] = max(found.axes.get(name, -1), int(float(item.value_json)))
    return found


def ended(path: Path) -> bool:
    """Whether the run was finished and all of it is in the file."""
    return any(record.HasField("exit") for _, record in records(path))


def repair(paths: list[Path]) -> None:
    """Cuts off the torn ends of files that no process writes to any more."""
    for path in paths:
        whole = max((end for end, _ in records(path)), default=0)
        if whole < path.stat().st_size:
            os.truncate(path, whole)


def records(path: Path) -> Iterator[tuple[int, Any]]:
    """The whole records, each with the byte behind it.

    Returns:
        Pairs of that byte's number and a `wandb.proto.wandb_internal_pb2.Record`.
    """
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    at, pieces = BEGINNING, b""
    while at < len(content):
        room = BLOCK - at % BLOCK
        if room < HEAD.size:  # too small for a piece, and left empty
            at += room
            continue
        if at + HEAD.size > len(content):
            return
        _, size, kind = HEAD.unpack_from(content, at)
        at += HEAD.size
        if kind not in (WHOLE, FIRST, MIDDLE, LAST) or at + size > len(content):
            return
        pieces += content[at : at + size]
        at += size
        if kind in (WHOLE, LAST):
            record = Record()
            try:
                record.ParseFromString(pieces)
            except DecodeError:  # damaged; `repair` cuts it off
                return
            pieces = b""
            yield at, record
