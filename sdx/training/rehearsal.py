"""Whether a full micro-batch fits the memory, found out before the first step instead of hours later."""

from collections.abc import Sequence
from dataclasses import replace
from logging import getLogger
from typing import Any

from sdx import InputError
from sdx.models.residency import ran_out
from sdx.process.preemption import Preemption
from sdx.process.ranks import is_main, rank, world_size
from sdx.training.launch import AgreedError
from sdx.training.memory import Layout
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
        InputError: the same at stages 2 and 3 with several ranks. They share gradients and weights in a backward pass:
            what one has begun and another has not leaves their GPUs waiting for each other, and nothing is freed.
    """
    full = False
    engine.set_gradient_accumulation_boundary(False)
    try:
        loss, _ = engine(batch)
        engine.backward(loss * 0.0)
    except RuntimeError as error:
        if not ran_out(error):
            raise
        full = True
    try:
        agreed = preemption.maximum(1, STUCK_S) if full else preemption.maximum(0)
    except RuntimeError:
        raise out_of_memory(layout, laid_out=True) from None
    if agreed and world_size() > 1 and engine.zero_optimization_stage() >= 2:
        raise out_of_memory(layout, laid_out=True)
    if agreed:
        raise TooLargeError
    if engine.zero_optimization_stage() == 0:  # so that AdamW leaves out what the first step gives no gradient
        engine.module.zero_grad()


def fullest(lengths: Sequence[int], budget: int, packed: bool) -> list[int]:
    """Indices of the examples of a micro-batch that is as full as one can be, with one example at least.

    Args:
        lengths: tokens of all examples.
        budget: tokens of a micro-batch, padding included.
        packed: the examples lie end to end; else they are rows padded to the longest.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    if packed:
        taken, left = [order[0]], budget - lengths[order[0]]
        for index in order[1:]:
            if lengths[index] <= left:
                taken.append(index)
                left -= lengths[index]
        return taken
    rows = [max(1, min(len(order) - place, budget // lengths[index])) for place, index in enumerate(order)]
    place = max(range(len(order)), key=lambda place: rows[place] * lengths[order[place]])
    return order[place : place + rows[place]]


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
