"""Batches of texts of similar length that a stack reads or continues."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from sdx.models.batches import READ_TOKENS, cut
from sdx.models.fit import pieces, room, row_bytes
from sdx.process.preemption import finishing

T = TypeVar("T")


def in_batches(
    model: Any,
    lengths: Sequence[int],
    work: Callable[[list[int]], T],
    fix: str,
    rows: int | None = None,
    writes: bool = False,
) -> Iterator[tuple[list[int], T]]:
    """Indices of the texts in each batch, the longest first, and `work`'s result on them.

    A process that is asked to leave first finishes the batch and what the caller does with its result.

    Args:
        lengths: of the texts in tokens, including what is generated.
        fix: what the user can do if a single text does not fit in memory.
        rows: most texts in a batch, beside the limits of tokens and memory.
        writes: the LLM keeps a cache.
    """
    parts = [row_bytes(part) for part in (model.encoder, model.llm) if part is not None]
    token_bytes = max(1.0, max(part.read for part in parts) + (parts[-1].cached if writes else 0.0))
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    sizes = [token_bytes * lengths[index] for index in order]
    most = min(token_bytes * READ_TOKENS.on(model.device.type == "cuda"), room(model))
    for batch in cut(sizes, most, rows or len(sizes)):
        with finishing():
            for some, result in pieces(
                model,
                sizes,
                [batch],
                lambda some: work(order[some]),
                lambda row: f"a text of {lengths[order[row]]} tokens",
                fix,
            ):
                yield order[some], result
