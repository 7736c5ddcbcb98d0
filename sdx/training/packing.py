"""Packs: examples laid end to end in one row, so that nothing is computed for padding."""

import math
from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch

from sdx.training.kernels import stored_pairs


def best_fit(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of `lengths`, distributed over packs of at most `budget`: best-fit decreasing.

    Longest first, each goes into the fullest pack that has space. Examples longer than the budget are alone in a pack.
    """
    packs: list[list[int]] = []
    space: list[tuple[int, int]] = []  # (tokens left, pack), sorted
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fullest = bisect_right(space, (lengths[index], -1))
        if fullest < len(space):
            left, pack = space.pop(fullest)
        else:
            left, pack = budget, len(packs)
            packs.append([])
        packs[pack].append(index)
        insort(space, (left - lengths[index], pack))
    return packs


def balanced(lengths: Sequence[int], budget: int, ranks: int) -> list[list[int]]:
    """`best_fit` with the smallest budget that does not need more rounds of one pack for each rank, largest pack first.

    Packs are then about equally full, and the ranks finish a micro-step at the same time.
    """
    most = math.ceil(len(best_fit(lengths, budget)) / ranks) * ranks
    low, high = math.ceil(sum(lengths) / most), budget
    while low < high:
        middle = (low + high) // 2
        if len(best_fit(lengths, middle)) <= most:
            high = middle
        else:
            low = middle + 1
    return sorted(best_fit(lengths, high), key=lambda pack: -sum(lengths[i] for i in pack))


def rows(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """For models that cannot take packs: examples of similar length, as rows that the budget holds with padding."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not groups or (len(groups[-1]) + 1) * lengths[groups[-1][0]] > budget:
            groups.append([])
        groups[-1].append(index)
    return groups


def starts(lengths: Sequence[int], packed: bool) -> Iterator[int]:
    """Where each example begins in the flattened `[batch * seq]` of a pack, or of rows padded to the longest."""
    return accumulate(lengths[:-1] if packed else [max(lengths)] * (len(lengths) - 1), initial=0)


def join(examples: Sequence[Sequence[int]]) -> dict[str, Any]:
    """The inputs of a transformers model whose attention is `attention.PACKED`.

    Returns:
        `input_ids` and `position_ids`, `[1, tokens]`, with positions that start again with each example; and the
        arguments of `attention.packed_attention`, under the names of transformers.
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
        "attention_pairs": stored_pairs(lengths),
    }
