"""What is trained when."""

from itertools import chain, pairwise

import pytest

from sdx.config import Schedule, TrainConfig
from sdx.training.schedule import Order, computed_tokens, count_steps, learning_rate, micro_batches

LENGTHS = [3, 9, 4, 8, 5, 7, 6, 2, 11, 10, 1]


def test_learning_rate_rises_peaks_once_and_ends_at_the_final_ratio():
    train = TrainConfig(learning_rate=1.0, warmup_ratio=0.2, final_ratio=0.1)
    rates = [learning_rate(step, 20, train) for step in range(20)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(earlier > later for earlier, later in pairwise(rates[4:]))
    assert rates[12] == pytest.approx(0.1 + 0.9 * (1 - 0.10453) / 2, abs=1e-4)  # cos(8/15 pi) = -0.10453
    assert rates[-1] == pytest.approx(0.1)


def test_a_linear_schedule_falls_on_a_line():
    train = TrainConfig(learning_rate=1.0, warmup_ratio=0.2, final_ratio=0.1, schedule=Schedule.linear)
    rates = [learning_rate(step, 20, train) for step in range(20)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    falls = [earlier - later for earlier, later in pairwise(rates[4:])]
    assert falls == pytest.approx([0.9 / 15] * 15)
    assert rates[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("steps", [1, 2])
def test_learning_rate_of_the_shortest_runs_is_the_peak(steps: int):
    assert learning_rate(0, steps, TrainConfig(learning_rate=1.0)) == 1.0


def test_an_epoch_has_every_example_once_and_its_own_order():
    order = Order(range(11), 4, seed=1)
    epochs = [[order.batch(step) for step in range(start, start + 3)] for start in (0, 3)]
    for batches in epochs:
        assert [len(batch) for batch in batches] == [4, 4, 3]
        assert sorted(chain(*batches)) == list(range(11))
    assert epochs[0] != epochs[1]
    assert epochs[0] != [Order(range(11), 4, seed=2).batch(step) for step in range(3)]
    assert epochs[1][1] == Order(range(11), 4, seed=1).batch(4)  # what a resumed run draws
    assert count_steps(11, 4, epochs=2, max_steps=0) == 6
    assert count_steps(11, 4, epochs=2, max_steps=5) == 5


def test_the_versions_of_a_question_meet_in_a_batch_and_are_shuffled():
    groups = [f"q{index % 25}" for index in range(100)]
    order = Order(groups, 20, seed=1)
    batches = [order.batch(step) for step in range(5)]
    assert sorted(chain(*batches)) == list(range(100))
    for batch in batches:
        assert len({groups[index] for index in batch}) == 5
    first = batches[0][:4]
    assert first != sorted(first) or batches[1][:4] != sorted(batches[1][:4])


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("budget", [1, 12, 30, 1000])
def test_a_layout_gives_every_example_to_one_rank(ranks: int, budget: int, packed: bool):
    batch = [10, 2, 7, 5, 0, 8, 3]
    rounds = micro_batches(batch, LENGTHS, budget, ranks, packed)
    assert {len(shares) for shares in rounds} == {ranks}
    assert sorted(chain(*chain(*rounds))) == sorted(batch)
    for share in chain(*rounds):
        longest = max((LENGTHS[i] for i in share), default=0)
        size = sum(LENGTHS[i] for i in share) if packed else len(share) * longest
        assert size <= budget or len(share) == 1
    useful = sum(LENGTHS[i] for i in batch)
    computed = sum(computed_tokens(shares, LENGTHS, packed) for shares in rounds)
    assert computed == useful if packed or budget == 1 else computed > useful
