"""Whether a model can be trained on packs, tried out on a few tokens before the training begins.

Architectures differ in more than their configs say (state-space layers, position biases, soft-capped scores), and
an example that sees another gives no error, only a worse model.
"""

from logging import getLogger
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor

from sdx.models.loading import padded
from sdx.process.ranks import is_main
from sdx.training import attention, packing
from sdx.training.launch import all_ranks
from sdx.training.objectives import evaluating
from sdx.training.quiet import deepspeed, silence

log = getLogger("sdx")

SAME, NEAR = 1e-3, 0.05
"""Tolerated norm of a difference, relative to the norm. Two packs of the same shape differ only if examples see each
other; another shape rounds differently, in a deep model in bf16 by up to a few percent."""
FIRST, OTHER, SECOND = [7, 9, 11, 13, 15], [8, 20, 12, 24, 16], [17, 6, 19, 10, 21, 14, 23]
"""Token ids of three examples; the first two are of one length."""


def takes_packs(engine: deepspeed.DeepSpeedEngine, llm: Any) -> bool:
    """Whether an example has the same outputs in any pack as alone; if so, sets the model up for packs.

    If variable-length attention fails, attention goes example by example. Called on every rank, with the same result.

    Args:
        llm: the part of the engine's model that takes ids.
    """

    def outputs(_model: Any, batch: dict[str, Any]) -> Tensor:
        """Logits or hidden states."""
        first: Tensor = llm(**batch, use_cache=False)[0]
        return first

    def obstacle() -> str:
        """Why the model or another rank cannot take packs, as the end of a sentence; empty if all can."""
        reason = _obstacle(engine, outputs, alone)
        return "" if all_ranks(not reason, engine.device) else reason or "another rank cannot take packs"

    ordinary = llm.config._attn_implementation
    with evaluating(engine), silence():
        [alone] = engine(outputs, send_to_device(padded([SECOND], pad_id=0), engine.device))
        llm.set_attn_implementation(attention.PACKED)
        varlen = attention.prepare(engine.device)
        reason = obstacle()
        if reason and varlen:
            if is_main():
                log.warning("%-12s no variable-length attention: %s", "packing", reason)
            attention.prepare(engine.device, varlen=False)
            reason = obstacle()
        if reason:
            llm.set_attn_implementation(ordinary)
    if is_main():
        way = f"padded rows: {reason}" if reason else attention.describe(engine.device, llm.dtype)
        log.info("%-12s %s", "packing", way)
    return not reason


def _obstacle(engine: deepspeed.DeepSpeedEngine, outputs: Any, alone: Tensor) -> str:
    """Why the model cannot take packs; empty if it can."""
    try:
        packs = (send_to_device(packing.join([first, SECOND]), engine.device) for first in (FIRST, OTHER))
        one, two = (engine(outputs, pack)[0, len(FIRST) :] for pack in packs)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        return f"the model does not support packs: {' '.join(str(error).split())[:100]}"
    if not _close(one, two, SAME):
        return "the model's examples see each other in a pack"
    if not _close(one, alone, NEAR if one.dtype is torch.bfloat16 else SAME):
        return "the model gives other outputs in a pack than for an example alone"
    return ""


def _close(ours: Tensor, theirs: Tensor, tolerance: float) -> bool:
    ours, theirs = ours.float(), theirs.float()
    return bool((ours - theirs).norm() <= tolerance * theirs.norm())
