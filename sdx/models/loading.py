"""Where a model of transformers is loaded to, what that prints, and what batches look like."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sdx.config import Precision
from sdx.ranks import device

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def dtype_of(precision: Precision) -> "torch.dtype":
    """Of the weights of a model that computes in it."""
    import torch

    return {Precision.bf16: torch.bfloat16, Precision.fp32: torch.float32}[precision]


def quiet() -> None:
    """No bars of transformers between ours."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


def straight() -> dict[str, Any]:
    """Options of `from_pretrained` with which the weights go from the disk to this process' GPU, without a copy in the
    machine's own memory; none where there is no GPU."""
    here = device()
    return {} if here.type == "cpu" else {"device_map": here}


@contextmanager
def unreported() -> Iterator[None]:
    """While inside, no bars, and no report of many lines on weights that a checkpoint has and the model has not."""
    from transformers.utils import logging

    quiet()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> "dict[str, Tensor]":
    """`input_ids` and `attention_mask`, `[batch, seq]`, padded on the right."""
    import torch

    longest = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[*row, *[pad_id] * (longest - len(row))] for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
    }
