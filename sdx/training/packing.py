"""Packs: examples laid end to end in one row, so that nothing is computed for padding."""

from bisect import bisect_right, insort
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch

from sdx.training.kernels import kept_pairs


def best_fit(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of `lengths`, distributed over packs of at most `budget`: best-fit decreasing.

    The longest first, each into the fullest pack that still has room; one that is longer than the budget has a pack of
    its own.
    """
    packs: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (what is left, pack), sorted
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        place = bisect_right(room, (lengths[index], -1))
        if place < len(room):
            left, pack = room.pop(place)
        else:
            left, pack = budget, len(packs)
            packs.append([])
        packs[pack].append(index)
        insort(room, (left - lengths[index], pack))
    return packs


def balanced(lengths: Sequence[int], budget: int, ranks: int) -> list[list[int]]:
    """`best_fit` with the smallest budget that needs no more rounds of one pack for each rank, the largest first.

    So the packs are equally full, and the ranks finish a micro-step at the same time.
    """
    rounds = -(-len(best_fit(lengths, budget)) // ranks)
    low, high = -(-sum(lengths) // (rounds * ranks)), budget
    while low < high:
        middle = (low + high) // 2
        if len(best_fit(lengths, middle)) <= rounds * ranks:
            high = middle
        else:
            low = middle + 1
    packs = best_fit(lengths, high)
    return sorted(packs, key=lambda pack: -sum(lengths[i] for i in pack))


def rows(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """For models that cannot take packs: neighbours in length, as rows padded to the longest within the budget."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not groups or (len(groups[-1]) + 1) * lengths[groups[-1][0]] > budget:
            groups.append([])
        groups[-1].append(index)
    return groups


def join(examples: Sequence[Sequence[int]]) -> dict[str, Any]:
    """What a transformers model takes for a pack, when its attention is `attention.PACKED`.

    Returns:
        `input_ids` and `position_ids`, `[1, tokens]`, the positions starting again with each example; and what
        `attention.packed_attention` takes, with the names that transformers has for it where it has one.
    """
    lengths = [len(example) for example in examples]
    boundaries = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    return {
        "input_ids": torch.tensor([[token for example in examples for token in example]]),
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "cu_seq_lens_q": boundaries,
        "cu_seq_lens_k": boundaries,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
        "attention_pairs": kept_pairs(lengths),
    }
