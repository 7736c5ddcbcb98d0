"""Whether a model can be trained on packs, found out by asking it: on a few tokens, before the training begins.

Architectures differ in more than their configs say (state-space layers, position biases, soft-capped scores), and
one example that sees another gives no error, only a worse model.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import getLogger
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor

from sdx.models.loading import padded
from sdx.process.ranks import is_main
from sdx.training import attention, packing
from sdx.training.launch import agree
from sdx.training.quiet import deepspeed, silence

log = getLogger("sdx")

SAME, NEAR = 1e-3, 0.05
"""Norm of a difference to the norm. Between two packs of one shape nothing differs but what an example sees of another;
another shape is rounded otherwise, in bf16 through a deep model up to a few percent."""
FIRST, OTHER, SECOND = [7, 9, 11, 13, 15], [8, 20, 12, 24, 16], [17, 6, 19, 10, 21, 14, 23]
"""Token ids of three examples; the first two are of one length."""


@contextmanager
def asking(engine: deepspeed.DeepSpeedEngine, question: Callable[[Any, dict[str, Any]], Any]) -> Iterator[None]:
    """While inside, the engine's forward gives `question(model, batch)` in place of the loss.

    Without dropout, gradients and compiled kernels; in the forward, for there alone sharded weights are gathered.
    """
    trained = engine.module
    objective, trained.objective = trained.objective, _Asked(question)
    training = trained.training
    engine.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        trained.objective = objective
        engine.train(training)


class _Asked:
    """An objective with something else in place of the loss."""

    def __init__(self, question: Callable[[Any, dict[str, Any]], Any]) -> None:
        self.loss = question


def takes_packs(engine: deepspeed.DeepSpeedEngine, llm: Any) -> bool:
    """Sets the model up for packs if it gives an example the same outputs in any pack as alone. Says what it found.

    Where variable-length attention does not do it, packs are computed example by example. Called on every rank, and all
    ranks come to the same answer.

    Args:
        llm: the part of the engine's model that takes ids.
    """

    def outputs(_model: Any, batch: dict[str, Any]) -> Tensor:
        """Logits or hidden states."""
        first: Tensor = llm(**batch, use_cache=False)[0]
        return first

    ordinary = llm.config._attn_implementation
    with asking(engine, outputs), silence():
        [alone] = engine(send_to_device(padded([SECOND], pad_id=0), engine.device))
        llm.set_attn_implementation(attention.PACKED)
        varlen = attention.prepare(engine.device)
        reason = _agreed(_obstacle(engine, alone), engine.device)
        if reason and varlen:
            if is_main():
                log.warning("%-12s no variable-length attention: %s", "packing", reason)
            attention.prepare(engine.device, varlen=False)
            reason = _agreed(_obstacle(engine, alone), engine.device)
        if reason:
            llm.set_attn_implementation(ordinary)
    if is_main():
        way = f"padded rows: {reason}" if reason else attention.describe(engine.device, llm.dtype)
        log.info("%-12s %s", "packing", way)
    return not reason


def try_out(engine: deepspeed.DeepSpeedEngine, batch: dict[str, Any]) -> None:
    """A forward pass without dropout or gradients: what an objective has to find out about a model, it finds out here.

    In the first step it would draw random numbers, and a resumed training would draw others.
    """
    with asking(engine, engine.module.objective.loss):
        engine(send_to_device(batch, engine.device))


def _obstacle(engine: deepspeed.DeepSpeedEngine, alone: Tensor) -> str:
    """Why the model cannot take packs, as the end of a sentence; empty if it can."""
    start = len(FIRST)
    try:
        packs = (send_to_device(packing.join([first, SECOND]), engine.device) for first in (FIRST, OTHER))
        one, two = (engine(pack)[0, start:] for pack in packs)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        return f"the model cannot do with packs: {' '.join(str(error).split())[:100]}"
    if not _close(one, two, SAME):
        return "the model's examples see each other in a pack"
    if not _close(one, alone, NEAR if one.dtype is torch.bfloat16 else SAME):
        return "the model gives other outputs in a pack than for an example alone"
    return ""


def _agreed(reason: str, device: torch.device) -> str:
    """This rank's reason, or that another rank has one."""
    return "" if agree(not reason, device) else reason or "another rank cannot take packs"


def _close(ours: Tensor, theirs: Tensor, tolerance: float) -> bool:
    ours, theirs = ours.float(), theirs.float()
    return bool((ours - theirs).norm() <= tolerance * theirs.norm())
