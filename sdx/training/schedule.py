"""What is trained when: pure functions of the config, the seed and the examples' lengths.

A global batch depends on the seed and the step alone, and not on the layout: a resumed run needs only the number of the
step, and any number of ranks trains on the same batches.
"""

import math
from array import array
from collections.abc import Hashable, Sequence
from random import Random

import numpy as np

from sdx.config import Schedule, TrainConfig
from sdx.training import packing


def count_steps(examples: int, batch_size: int, epochs: int, max_steps: int, share: float = 0.0) -> int:
    """Optimizer steps of the whole run; a `share` of them has batches of another kind, see `turn`.

    The last batch of an epoch may be smaller.
    """
    steps = math.floor(epochs * math.ceil(examples / batch_size) / (1 - share))
    return min(steps, max_steps) if max_steps else steps


def turn(step: int, share: float) -> tuple[int, int]:
    """Which of two kinds of batches a step takes, 0 or 1, and how many of that kind came before.

    A share of the steps, counted from 0, takes batches of kind 1: evenly spaced, and not the first step.
    """
    before, after = math.floor(step * share), math.floor((step + 1) * share)
    return (1, before) if after > before else (0, step - before)


def learning_rate(step: int, steps: int, train: TrainConfig) -> float:
    """Rises linearly from 0, peaks once, and ends on the last step at `final_ratio` of the peak, on a cosine or a line.

    Steps are counted from 0.
    """
    warmup = min(round(train.warmup_ratio * steps), steps - 1)
    if step < warmup:
        return train.learning_rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    left = (1 + math.cos(math.pi * progress)) / 2 if train.schedule is Schedule.cosine else 1 - progress
    return train.learning_rate * (train.final_ratio + (1 - train.final_ratio) * left)


def validation_steps(steps: int, validations: int) -> frozenset[int]:
    """The steps, counted from 1, after which the model is validated: evenly spaced, including the last.

    As many validations as epochs are at the ends of the epochs.
    """
    return frozenset(-(-steps * number // validations) for number in range(1, validations + 1))


class Order:
    """Which examples a step takes: every epoch has each example once, in an order of its own.

    Args:
        groups: the group of each example. Groups are shuffled, and so are the examples of a group, which stay
            neighbours and are in the same batch unless it ends between them.
    """

    def __init__(self, groups: Sequence[Hashable], batch_size: int, seed: int) -> None:
        numbers: dict[Hashable, int] = {}
        found = np.fromiter((numbers.setdefault(group, len(numbers)) for group in groups), np.int32, len(groups))
        self._members = np.argsort(found, kind="stable")  # group by group
        self._starts = np.searchsorted(found[self._members], np.arange(len(numbers) + 1)).tolist()
        self._examples = len(groups)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = (-1, array("q"))

    def batch(self, step: int) -> list[int]:
        """Indices of the examples of a step, counted from 0; the last step of an epoch may have fewer."""
        epoch, position = divmod(step, math.ceil(self._examples / self._batch_size))
        if self._epoch[0] != epoch:
            random = Random(f"order {self._seed} {epoch}")
            groups = random.sample(range(len(self._starts) - 1), len(self._starts) - 1)
            members = (self._members[self._starts[group] : self._starts[group + 1]].tolist() for group in groups)
            self._epoch = epoch, array("q", (index for group in members for index in random.sample(group, len(group))))
        return self._epoch[1][position * self._batch_size : (position + 1) * self._batch_size].tolist()


def micro_batches(
    batch: Sequence[int], lengths: Sequence[int], budget: int, ranks: int, packed: bool
) -> list[list[list[int]]]:
    """The micro-steps of a global batch, each with the examples of every rank, in packs or as padded rows.

    In the last micro-step the lists of some ranks may be empty.

    Args:
        lengths: tokens of all examples.
        budget: tokens in a pack; a longer example is alone.
    """
    sizes = [lengths[index] for index in batch]
    groups = packing.balanced(sizes, budget, ranks) if packed else packing.rows(sizes, budget)
    shares = [[batch[index] for index in group] for group in groups]
    shares += [[] for _ in range(-len(shares) % ranks)]
    return [shares[start : start + ranks] for start in range(0, len(shares), ranks)]


def computed_tokens(shares: Sequence[Sequence[int]], lengths: Sequence[int], packed: bool) -> int:
    """Tokens of a micro-step's forward passes over all ranks, including padding."""
    if packed:
        return sum(lengths[index] for share in shares for index in share)
    return sum(len(share) * max((lengths[index] for index in share), default=0) for share in shares)
