"""Whether a full micro-batch fits the memory, found out before the first step instead of hours later."""

from collections.abc import Sequence
from dataclasses import replace
from logging import getLogger
from typing import Any

from sdx import InputError
from sdx.models.residency import ran_out
from sdx.process.preemption import Preemption
from sdx.process.ranks import is_main, rank, world_size
from sdx.training import packing
from sdx.training.launch import AgreedError
from sdx.training.memory import Layout
from sdx.training.objectives import Objective
from sdx.training.quiet import deepspeed
from sdx.training.schedule import computed_tokens

log = getLogger("sdx")

CAN_RUN_OUT = {"cuda"}
"""Types of devices that raise an error when their memory is full. On a CPU the process is killed instead."""
TRIED_EXAMPLES = 20_000
"""Enough to fill a micro-batch to its last tokens; millions would take half a minute. Ours."""
STUCK_S = 120.0
"""How long to wait for the other ranks, which may be compiling their layers. Ours."""


class TooLargeError(AgreedError):
    """A micro-batch does not fit the memory of some rank."""


def check_memory(
    engine: deepspeed.DeepSpeedEngine,
    objective: Objective[Any],
    batch: dict[str, Any],
    layout: Layout,
    preemption: Preemption,
) -> None:
    """A forward and a backward pass over `batch`, with gradients of zero. Called on every rank.

    Raises:
        TooLargeError: on all ranks, if the memory of one does not suffice.
        InputError: the same with several ranks at stages 2 and 3. There a backward pass shares gradients and weights: a
            rank that stops in it leaves the others waiting, and no memory is freed.
    """
    full = False
    engine.set_gradient_accumulation_boundary(False)
    try:
        loss, _ = engine(objective.loss, batch)
        engine.backward(loss * 0.0)
    except RuntimeError as error:
        if not ran_out(error):
            raise
        full = True
    try:
        any_full = preemption.maximum(1, STUCK_S) if full else preemption.maximum(0)
    except RuntimeError:
        raise out_of_memory(layout, laid_out=True) from None
    if any_full and world_size() > 1 and engine.zero_optimization_stage() >= 2:
        raise out_of_memory(layout, laid_out=True)
    if any_full:
        raise TooLargeError
    if engine.zero_optimization_stage() == 0:  # AdamW skips weights without a gradient, but not those with zeros
        engine.module.zero_grad()


def largest_batch(lengths: Sequence[int], budget: int, packed: bool) -> list[int]:
    """Indices of the examples of the largest micro-batch, if all examples were one batch.

    Of more than `TRIED_EXAMPLES`, so many of all lengths are tried, the longest among them.

    Args:
        budget: tokens of a micro-batch, padding included.
    """
    by_length = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    taken = by_length[:: -(-len(by_length) // TRIED_EXAMPLES)]
    sizes = [lengths[index] for index in taken]
    batches = packing.best_fit(sizes, budget) if packed else packing.rows(sizes, budget)
    largest = max(batches, key=lambda batch: computed_tokens([batch], sizes, packed))
    return [taken[number] for number in largest]


def halved(layout: Layout, longest: int) -> Layout:
    """The layout with half the micro-batch, but room for the longest example.

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
    """The error if a smaller micro-batch cannot be tried. `laid_out`: everything but a micro-batch fitted."""
    if not laid_out:
        return InputError(
            f"the model and its optimizer do not fit the GPU's memory with engine.zero_stage={layout.zero_stage} "
            f"(rank {rank()}); set a higher one, engine.offload_optimizer=true or train.adapter=lora"
        )
    return InputError(
        f"rank {rank()} ran out of GPU memory with packs of {layout.micro_batch_tokens} tokens; with "
        f"engine.micro_batch_tokens={layout.micro_batch_tokens // 2} the same command goes on from the last checkpoint"
    )
