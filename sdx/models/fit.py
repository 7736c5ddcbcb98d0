"""Batches that fit in this process' GPU: cut by a memory budget, and halved if the budget was wrong."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from logging import getLogger
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch

from sdx import InputError
from sdx.models.batches import RowBytes, cut, room_bytes
from sdx.models.residency import free, ran_out
from sdx.models.shape import shape_of

log = getLogger("sdx")

T = TypeVar("T")

_learned: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
"""Model -> the most bytes, by `RowBytes`, of a batch, after one did not fit."""


def row_bytes(model: Any) -> RowBytes:
    return RowBytes(shape_of(model.config.to_dict()), model.dtype.itemsize)


def room(model: Any) -> float:
    """Bytes that a batch may take; infinite on a CPU, where only the number of rows is limited."""
    if model.device.type != "cuda":
        return math.inf
    card = torch.cuda.get_device_properties(model.device).total_memory
    return room_bytes(card, model.get_memory_footprint())


def pieces(
    model: Any,
    sizes: Sequence[float],
    batches: Iterable[slice],
    work: Callable[[slice], T],
    row: Callable[[int], str],
    fix: str,
) -> Iterator[tuple[slice, T]]:
    """The rows and the result of each batch; a batch that does not fit is worked on in parts.

    Half of what did not fit is then the limit for all later batches of the model. The rows of a batch do not depend on
    each other, so the results are the same but for rounding.

    Args:
        sizes: of all rows, by `row_bytes`.
        row: names a row in messages, given its index.

    Raises:
        InputError: a single row does not fit; ends in `fix`.
    """
    sizes = [max(size, 1.0) for size in sizes]
    for batch in batches:
        start = batch.start
        while start < batch.stop:
            rows = next(cut(sizes[start : batch.stop], _learned.get(model, math.inf), len(sizes))).stop
            some = slice(start, start + rows)
            try:
                result = work(some)
            except RuntimeError as error:
                if not ran_out(error):
                    raise
            else:
                yield some, result
                start = some.stop
                continue
            free()  # after the error is gone, whose traceback would hold the tensors
            if rows == 1:
                raise InputError(f"{row(start)} does not fit in the GPU's memory, even alone; {fix}")
            if model not in _learned:
                log.warning("%-12s %d rows do not fit in the GPU's memory: batches are halved", "memory", rows)
            _learned[model] = rows // 2 * max(sizes[some])
