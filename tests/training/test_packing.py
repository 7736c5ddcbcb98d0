"""Packs: nothing lost, nothing over the budget, little space left."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdx.models.loading import padded
from sdx.training.packing import balanced, best_fit, join, rows

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=80)


@given(LENGTHS, st.integers(1, 600))
def test_best_fit_takes_each_once_and_keeps_to_the_budget(lengths: list[int], budget: int):
    packs = best_fit(lengths, budget)
    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    sums = [sum(lengths[index] for index in pack) for pack in packs]
    assert all(total <= budget or len(pack) == 1 for total, pack in zip(sums, packs, strict=True))
    fitting = [total for total in sums if total <= budget]
    # Two packs that fit into one would have been one.
    assert len(fitting) < 2 or sum(sorted(fitting)[:2]) > budget


def test_best_fit_prefers_the_fullest_pack_with_room():
    assert best_fit([6, 5, 4, 5], 10) == [[0, 2], [1, 3]]
    assert best_fit([7, 6, 3, 4], 10) == [[0, 2], [1, 3]]


@given(LENGTHS, st.integers(1, 600), st.integers(1, 4))
def test_balanced_needs_no_more_rounds_and_the_largest_pack_is_no_larger(lengths: list[int], budget: int, ranks: int):
    ours, plain = balanced(lengths, budget, ranks), best_fit(lengths, budget)
    assert sorted(index for pack in ours for index in pack) == list(range(len(lengths)))
    assert -(-len(ours) // ranks) <= -(-len(plain) // ranks)
    sums = [[sum(lengths[index] for index in pack) for pack in packs] for packs in (ours, plain)]
    assert max(sums[0]) <= max(sums[1])
    assert sums[0] == sorted(sums[0], reverse=True)


def test_balanced_gives_the_ranks_equal_work():
    lengths = [100] * 18
    assert [len(pack) for pack in best_fit(lengths, 1000)] == [10, 8]
    assert [len(pack) for pack in balanced(lengths, 1000, 2)] == [9, 9]


@given(LENGTHS, st.integers(1, 600))
def test_rows_are_neighbours_in_length(lengths: list[int], budget: int):
    groups = rows(lengths, budget)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) * max(lengths[i] for i in group) <= budget or len(group) == 1
    for earlier, later in pairwise(groups):
        assert min(lengths[i] for i in earlier) >= max(lengths[i] for i in later)


def test_join_starts_positions_again_and_says_where_examples_begin():
    batch = join([[5, 6, 7], [8], [9, 10]])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 10]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 0, 1]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 3, 4, 6]
    assert batch["cu_seq_lens_q"].dtype == torch.int32
    assert (batch["max_length_q"], batch["attention_pairs"]) == (3, 3 * 3**2)


@pytest.mark.parametrize("pad_id", [0, 3])
def test_pad_pads_on_the_right(pad_id: int):
    batch = padded([[5, 6, 7], [8]], pad_id)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, pad_id, pad_id]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
