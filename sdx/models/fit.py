"""Batches that fit this process' GPU: cut by a budget of memory, and halved where the budget was wrong."""

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
"""Bytes by `RowBytes` that a batch of a model may take, once one did not fit."""


def row_bytes(model: Any) -> RowBytes:
    return RowBytes(shape_of(model.config.to_dict()), model.dtype.itemsize)


def room(model: Any) -> float:
    """Bytes that a batch may take; infinite on a CPU, where the number of rows is the limit."""
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
    """The rows of each batch and the work's result on them; of a batch that does not fit, part after part.

    Half of what did not fit is the most that this and all later batches of the model may take. The rows of a batch do
    not depend on each other, so the results are the same but for rounding.

    Args:
        sizes: of all rows, by `row_bytes`.
        batches: their places.
        row: names a row, by its place.
        fix: what the user can do where a single row does not fit.

    Raises:
        InputError: a single row does not fit.
    """
    sizes = [max(size, 1.0) for size in sizes]
    for batch in batches:
        start = batch.start
        while start < batch.stop:
            rows = next(cut(sizes[start : batch.stop], _learned.get(model, math.inf), len(sizes))).stop
            some = slice(start, start + rows)
            result = _tried(work, some)
            if result is not None:
                yield some, result[0]
                start = some.stop
                continue
            free()
            if rows == 1:
                raise InputError(f"{row(start)} does not fit in the GPU's memory, even alone; {fix}")
            if model not in _learned:
                log.warning("%-12s %d rows do not fit in the GPU's memory: batches are halved", "memory", rows)
            _learned[model] = rows // 2 * max(sizes[some])


def _tried(work: Callable[[slice], T], some: slice) -> tuple[T] | None:
    """None where memory ran out. The error is gone by then: its traceback would hold the tensors."""
    try:
        return (work(some),)
    except RuntimeError as error:
        if not ran_out(error):
            raise
        return None
