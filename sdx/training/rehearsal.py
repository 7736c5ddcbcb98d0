"""Whether a full micro-batch fits the memory, found out before the first step instead of hours later."""

from collections.abc import Sequence
from dataclasses import replace
from logging import getLogger
from typing import Any

import torch

from sdx.config import InputError
from sdx.preemption import Preemption
from sdx.ranks import is_main, rank
from sdx.training.launch import AgreedError
from sdx.training.layout import Layout
from sdx.training.quiet import deepspeed

log = getLogger("sdx")

CAN_RUN_OUT = {"cuda"}
"""Types of devices that say so when their memory is used up. A CPU's process is killed instead."""


STUCK_S = 120.0
"""After so long the other ranks, which may be compiling their layers, are not expected to come any more. Ours."""


class TooLargeError(AgreedError):
    """A micro-batch does not fit the memory of some rank."""


def rehearse(engine: deepspeed.DeepSpeedEngine, batch: dict[str, Any], layout: Layout, preemption: Preemption) -> None:
    """A forward and a backward pass over `batch`, the largest that the training can have. No weight changes.

    All ranks call it. The gradients are zeros: they are those of 0 times the loss.

    Raises:
        TooLargeError: on all ranks, where the memory of one does not suffice.
        InputError: it is the memory of this rank alone, and the others wait for it to share weights or gradients.
    """
    full = False
    engine.set_gradient_accumulation_boundary(False)
    try:
        loss, _ = engine(batch)
        engine.backward(loss * 0.0)
    except torch.OutOfMemoryError:
        full = True
    try:
        agreed = preemption.most(1, STUCK_S) if full else preemption.most(0)
    except RuntimeError:
        raise out_of_memory(layout, laid_out=True) from None
    if agreed:
        raise TooLargeError
    if engine.zero_optimization_stage() == 0:  # so that AdamW leaves out what the first step gives no gradient
        engine.module.zero_grad()


def fullest(lengths: Sequence[int], budget: int, packed: bool) -> list[int]:
    """Indices of the longest examples, as many as a micro-batch of `budget` tokens holds, one at least."""
    taken: list[int] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        tokens = tokens + lengths[index] if packed else (len(taken) + 1) * lengths[taken[0] if taken else index]
        if taken and tokens > budget:
            break
        taken.append(index)
    return taken


def halved(layout: Layout, longest: int) -> Layout:
    """The layout with half the micro-batch, which still holds the longest example.

    Raises:
        InputError: the micro-batch is the longest example already.
    """
    tokens = max(layout.micro_batch_tokens, longest)
    half = max(tokens // 2, longest)
    if half == tokens:
        raise InputError(
            f"the longest training example, {longest} tokens, does not fit the GPU's memory; lower "
            "scale.max_length_tokens, or set engine.activation_checkpointing=true, a higher engine.zero_stage, "
            "engine.offload_optimizer=true or train.adapter=lora"
        )
    if is_main():
        log.warning("%-12s packs of %d tokens do not fit the GPU's memory; going on with %d", "engine", tokens, half)
    return replace(layout, micro_batch_tokens=half)


def out_of_memory(layout: Layout, laid_out: bool) -> InputError:
    """What to do where the training cannot go on by itself.

    Args:
        laid_out: weights, gradients and optimizer have their place: a micro-batch had none.
    """
    if not laid_out:
        return InputError(
            f"the model and its optimizer do not fit the GPU's memory with engine.zero_stage={layout.zero_stage} "
            f"(rank {rank()}); set a higher one, engine.offload_optimizer=true or train.adapter=lora"
        )
    return InputError(
        f"rank {rank()} ran out of GPU memory with packs of {layout.micro_batch_tokens} tokens; with "
        f"engine.micro_batch_tokens={layout.micro_batch_tokens // 2} the same command goes on from the last checkpoint"
    )
