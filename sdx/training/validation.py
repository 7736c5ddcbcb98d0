"""Selection on validation data: the model that is kept is the one that scored best, not the last one.

The score is a mean over all validation examples, as far as rounding goes the same for any layout. Where a training is
interrupted between the export of a model and its next checkpoint, it scores and exports again what it did before.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import distributed as dist

from sdx.process.preemption import Preemption
from sdx.process.ranks import rank, world_size
from sdx.training import room
from sdx.training.objectives import Objective
from sdx.training.plan import micro_batches
from sdx.training.probe import asking
from sdx.training.quiet import deepspeed
from sdx.training.trainee import Trainee

BEST, BEST_STEP = "best", "best_step"
"""What the progress of a training keeps: the best score so far and after which step it was."""


def validate(
    engine: deepspeed.DeepSpeedEngine,
    trainee: Trainee,
    objective: Objective[Any],
    examples: Sequence[Any],
    budget: int,
    done: dict[str, Any],
    out: Path,
    preemption: Preemption,
) -> float:
    """Scores the model as it is after `done["step"]` and, where it is the best so far, notes it and writes it to `out`.

    Called on every rank.

    Returns:
        The mean score.
    """
    score = mean_score(engine, objective, examples, budget)
    if BEST not in done or score > done[BEST]:
        room.export(trainee, engine, out, preemption, keep=lambda: 0)  # of a checkpoint it would not be scored again
        done |= {BEST: score, BEST_STEP: done["step"]}
    return score


def mean_score(
    engine: deepspeed.DeepSpeedEngine, objective: Objective[Any], examples: Sequence[Any], budget: int
) -> float:
    """`objective.score` over all examples, dealt to the ranks, by its count; the same on every rank.

    Args:
        budget: tokens in a micro-batch.
    """
    packed = engine.module.packed
    lengths = [objective.tokens(example) for example in examples]
    sums = torch.zeros(2, dtype=torch.float64, device=engine.device)
    with asking(engine, objective.score):
        for shares in micro_batches(range(len(examples)), lengths, budget, world_size(), packed):
            # A rank with none left runs an example with weight 0: the others wait for it to gather weights.
            share = shares[rank()]
            batch = objective.collate([examples[index] for index in share or [0]], packed)
            score, count = engine(send_to_device(batch, engine.device, non_blocking=True))
            if share:
                sums += torch.stack([score, count])
    dist.all_reduce(sums)
    total, counted = sums.tolist()
    return float(total / counted)
