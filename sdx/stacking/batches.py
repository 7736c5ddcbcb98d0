"""The texts that a stack reads, or writes behind, in batches of like length."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from sdx.models.batches import READ_TOKENS, cut
from sdx.models.fit import pieces, room, row_bytes
from sdx.process.preemption import finishing
from sdx.process.progress import Progress

T = TypeVar("T")


def in_batches(
    model: Any,
    lengths: Sequence[int],
    work: Callable[[list[int]], T],
    fix: str,
    rows: int | None = None,
    writes: bool = False,
    label: str | None = None,
) -> Iterator[tuple[list[int], T]]:
    """Places of texts, the longest first, and the work's result on them. A process that is asked to leave finishes the
    batch first, and what is done with its result.

    Args:
        lengths: of the texts in tokens, what is written included.
        fix: what the user can do where a single text does not fit in memory.
        rows: of a batch, at most; none sets no limit beside that of the tokens.
        writes: the LLM keeps a cache.
        label: in front of a progress bar; none: there is no bar.
    """
    parts = [row_bytes(part) for part in (model.encoder, model.llm) if part is not None]
    token_bytes = max(1.0, max(part.read for part in parts) + (parts[-1].cached if writes else 0.0))
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    sizes = [token_bytes * lengths[place] for place in order]
    most = min(token_bytes * READ_TOKENS.on(model.device.type == "cuda"), room(model))
    progress = Progress(label, len(lengths), "texts") if label else None
    for batch in cut(sizes, most, rows or len(sizes)):
        with finishing():
            done = pieces(
                model,
                sizes,
                [batch],
                lambda some: work(order[some]),
                lambda place: f"a text of {lengths[order[place]]} tokens",
                fix,
            )
            for some, result in done:
                yield order[some], result
                if progress:
                    progress.update(some.stop - some.start)
    if progress:
        progress.close()
