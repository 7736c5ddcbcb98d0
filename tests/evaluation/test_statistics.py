from functools import partial

import numpy as np
import pytest

from sdx.evaluation.metrics import CHRF, corpus_score, corpus_statistics
from sdx.evaluation.statistics import (
    SEED,
    Estimate,
    _resampled,
    bootstrap_corpus,
    bootstrap_corpus_difference,
    detectable,
    expected,
    mean_score,
    paired_difference,
    power,
    proportion,
)

pytestmark = pytest.mark.whole


def outcomes(both: int, lost: int, gained: int, neither: int) -> tuple[list[bool], list[bool]]:
    before = [True] * (both + lost) + [False] * (gained + neither)
    after = [True] * both + [False] * lost + [True] * gained + [False] * neither
    return before, after


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3.
    [
        (81, 263, 25.53, 36.62),
        (15, 148, 6.24, 16.05),
        (0, 20, 0.0, 16.11),
        (1, 29, 0.61, 17.18),
        (29, 29, 88.30, 100),
    ],
)
def test_wilson(right: int, n: int, low: float, high: float) -> None:
    estimate = proportion([True] * right + [False] * (n - right))
    assert estimate.value == pytest.approx(100 * right / n)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.006)
    assert estimate.n == n


@pytest.mark.parametrize(
    ("cells", "value", "low", "high", "p"),
    [
        # Without a change, and with nothing but changes, Tango's limits are z^2 / (n + z^2) from the end.
        ((0, 0, 0, 50), 0, -7.135, 7.135, 1),
        ((0, 0, 50, 0), 100, 85.730, 100, 2 * 0.5**50),
        ((0, 50, 0, 0), -100, -100, -85.730, 2 * 0.5**50),
        ((36, 2, 12, 0), 20, 6.111, 34.471, 0.012939),
        ((20, 10, 10, 20), 0, -14.990, 14.990, 1),
    ],
)
def test_paired_difference(cells: tuple[int, ...], value: float, low: float, high: float, p: float) -> None:
    estimate = paired_difference(*outcomes(*cells))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((value, low, high), abs=1e-3)
    assert estimate.p == pytest.approx(p, rel=1e-4)


def test_tango_limits_against_a_search_for_the_likeliest_probabilities() -> None:
    """At each limit, the score statistic is 1.96; its nuisance parameter is found numerically."""
    from scipy.optimize import minimize_scalar

    both, lost, gained, neither = 30, 6, 17, 27
    n = both + lost + gained + neither
    estimate = paired_difference(*outcomes(both, lost, gained, neither))
    for limit, side in ((estimate.low / 100, 1), (estimate.high / 100, -1)):

        def unlikelihood(q: float, limit: float = limit) -> float:
            return -(gained * np.log(q + limit) + lost * np.log(q) + (both + neither) * np.log(1 - 2 * q - limit))

        q = minimize_scalar(unlikelihood, bounds=(max(0, -limit) + 1e-9, (1 - limit) / 2 - 1e-9), method="bounded").x
        statistic = (gained - lost - n * limit) / np.sqrt(n * (2 * q + limit * (1 - limit)))
        assert statistic == pytest.approx(side * 1.95996, abs=1e-3)


@pytest.mark.parametrize(("gained", "lost", "n"), [(0.15, 0.05, 150), (0.03, 0.03, 100), (0.3, 0.1, 60)])
def test_coverage_of_the_paired_interval(gained: float, lost: float, n: int) -> None:
    random = np.random.default_rng(1)
    covered, rejected = 0, 0
    for won, gone, _ in random.multinomial(n, [gained, lost, 1 - gained - lost], size=400):
        estimate = paired_difference(*outcomes(0, gone, won, n - won - gone))
        covered += estimate.low <= 100 * (gained - lost) <= estimate.high
        rejected += estimate.p < 0.05
    assert 0.92 <= covered / 400 <= 0.99  # 95 % within three standard errors, a little above for few changes
    if gained == lost:
        assert rejected / 400 <= 0.05


def test_swapping_changes_the_sign() -> None:
    before, after = outcomes(11, 3, 9, 7)
    there, back = paired_difference(before, after), paired_difference(after, before)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
    assert there.p == back.p


def test_bootstrap_of_a_mean_is_the_textbook_interval() -> None:
    random = np.random.default_rng(2)
    values = random.normal(50, 10, size=(400, 1))

    def mean(sums: np.ndarray) -> np.ndarray:
        return sums[..., 0] / 400

    estimate = bootstrap_corpus(values, mean)
    half = 1.96 * values.std() / 20
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.low, estimate.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1)
    assert estimate == bootstrap_corpus(values, mean)  # the seed is fixed
    # Paired: the noise that both share cancels.
    gap = bootstrap_corpus_difference(values, values + 1 + random.normal(0, 1, size=(400, 1)), mean)
    assert 0.8 < gap.low < gap.value < gap.high < 1.2
    assert gap.p == pytest.approx(1 / 2001)
    none = bootstrap_corpus_difference(values, values, mean)
    assert (none.value, none.low, none.high, none.p) == (0, 0, 0, 1)


def test_bootstrap_of_chrf() -> None:
    references = [
        f"the {animal} sat on the {place}" for animal in ("cat", "dog", "cow") for place in ("mat", "hill", "roof")
    ]
    worse = [text.replace("sat", "is") for text in references[:6]] + ["no idea"] * 3
    before, after = corpus_statistics(CHRF, worse, references), corpus_statistics(CHRF, references, references)
    estimate = bootstrap_corpus(before, partial(corpus_score, CHRF))
    assert 0 < estimate.low < estimate.value < estimate.high < 100
    assert estimate.n == 9
    gain = bootstrap_corpus_difference(before, after, partial(corpus_score, CHRF))
    assert gain.value == pytest.approx(100 - estimate.value)
    assert gain.low > 0


def test_estimates_are_plain_numbers() -> None:
    estimate = bootstrap_corpus_difference(
        *(corpus_statistics(CHRF, ["a b", "c d"], ["a b", other]) for other in "cd"), partial(corpus_score, CHRF)
    )
    assert all(type(value) in (float, int) for value in vars(estimate).values())
    assert isinstance(estimate, Estimate)


def test_cached_draws_are_those_of_a_new_generator(monkeypatch: pytest.MonkeyPatch):
    counts = np.random.default_rng(0).integers(0, 50, size=(60, 3))
    summed = np.array([np.random.default_rng(SEED).multinomial(60, np.full(60, 1 / 60), size=10)[0] @ counts])
    kept = _resampled(counts)
    assert kept[0].tolist() == summed[0].tolist()
    monkeypatch.setattr("sdx.evaluation.statistics.CACHED_SENTENCES", 0)
    assert _resampled(counts).tolist() == kept.tolist()
    assert bootstrap_corpus(counts, lambda sums: sums[..., 0]) == bootstrap_corpus(counts, lambda sums: sums[..., 0])


@pytest.mark.parametrize("n", [15, 30, 48])
def test_coverage_of_the_mean_of_few_items(n: int) -> None:
    """F1 of answers: many 0, some 1, the others between. Plain percentiles cover 87, 91 and 92 %."""
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        kind = random.random(n)
        values = np.where(kind < 0.6, 0, np.where(kind < 0.7, 1, random.beta(2, 3, n)))
        estimate = bootstrap_corpus(np.stack([values, np.ones(n)], 1), mean_score)
        covered += estimate.low <= 100 * (0.1 + 0.3 * 0.4) <= estimate.high
    assert 0.925 <= covered / 400 <= 0.985


def passages(random: np.random.Generator, count: int, questions: int) -> tuple[list[bool], list[int]]:
    """Right answers to questions on passages, some of which are hard as a whole."""
    hard = np.clip(random.normal(0.5, 0.27, count), 0, 1)
    right = random.random((count, questions)) < hard[:, None]
    return right.ravel().tolist(), np.repeat(np.arange(count), questions).tolist()


@pytest.mark.parametrize("count", [12, 48, 240])
def test_coverage_of_a_share_over_clusters(count: int) -> None:
    random = np.random.default_rng(4)
    found = [passages(random, count, 5) for _ in range(300)]
    covered = [one.low <= 50 <= one.high for right, of in found for one in [proportion(right, of)]]
    alone = [one.low <= 50 <= one.high for right, _ in found for one in [proportion(right)]]
    assert 0.92 <= np.mean(covered) <= 0.985
    assert np.mean(alone) < 0.9


@pytest.mark.parametrize("kind", ["share", "mean"])
def test_models_that_differ_on_whole_passages_by_chance_are_rarely_significant(kind: str) -> None:
    random = np.random.default_rng(5)
    covered, rejected, alone = [], [], []
    for _ in range(200):
        before, of = passages(random, 40, 5)
        moved = np.repeat(random.normal(0, 0.5, 40), 5)  # a passage becomes easier, or harder
        turned = random.random(200) < abs(moved)
        after = np.where(turned, moved > 0, before)
        if kind == "share":
            one, naive = (paired_difference(before, after.tolist(), clusters) for clusters in (of, None))
        else:
            rows = [np.stack([values, np.ones(200)], 1) for values in (before, after)]
            one, naive = (bootstrap_corpus_difference(*rows, mean_score, clusters) for clusters in (of, None))
        covered.append(one.low <= 0 <= one.high)
        rejected.append(one.p < 0.05)
        alone.append(naive.p < 0.05)
    assert 0.91 <= np.mean(covered) <= 0.99
    assert np.mean(rejected) <= 0.085
    assert np.mean(alone) > 0.1


def test_clusters_of_one_item_give_the_intervals_of_items() -> None:
    before, after = outcomes(36, 2, 12, 0)
    each = list(range(50))
    one, other = paired_difference(before, after), paired_difference(before, after, each)
    assert (other.low, other.high) == pytest.approx((one.low, one.high), abs=0.5)  # Student's t of 49
    assert other.p == pytest.approx(one.p, abs=0.005)
    assert proportion(before, each).low == pytest.approx(proportion(before).low, abs=0.5)


def test_repeating_the_items_of_a_cluster_adds_no_information() -> None:
    before, after = outcomes(20, 5, 12, 13)
    once = paired_difference(before, after, list(range(50)))
    often = paired_difference(before * 4, after * 4, list(range(50)) * 4)
    assert often.n == 200
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=0.2)
    assert paired_difference(before * 4, after * 4).low > often.low + 3
    right = proportion([True] * 40, [0, 1, 2, 3] * 10)
    assert (right.high, right.low) == (100, pytest.approx(proportion([True] * 4).low, abs=25))
    assert right.low < proportion([True] * 40).low - 20


def test_what_items_can_show() -> None:
    gap = expected(150)
    assert 100 * power(5, gap) == pytest.approx(28, abs=1)
    assert detectable(gap) == pytest.approx(10.2, abs=0.1)
    assert power(detectable(gap), gap) == pytest.approx(0.8)
    random = np.random.default_rng(6)
    shown = 0
    for lost, gained, _ in random.multinomial(150, [0.075, 0.125, 0.8], size=400):
        shown += paired_difference(*outcomes(0, lost, gained, 150 - lost - gained)).low > 0
    assert shown / 400 == pytest.approx(power(5, gap), abs=0.06)
