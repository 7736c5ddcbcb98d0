"""Scores with 95 % intervals and paired differences, in percentage points (chrF++: points of 100).

A score of one model is uncertain because other questions could have been asked. Two models answered the same
questions, so their difference is measured per question, which is far more precise than comparing two intervals.
None of this covers what another training seed would change.

Items may come in clusters: questions on one passage, hypotheses on one premise. Such items were drawn together and say
less than as many separate items. `clusters` is the number of each item's cluster; None means that each item is alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Clusters = Sequence[int] | None
Z = 1.959963984540054
"""97.5 % quantile of the normal distribution."""
RESAMPLES = 2000
SEED = 20240217
CACHED_SENTENCES = 4000
"""Draws of at most so many sentences stay in memory: 16 MB."""


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval, and the number of items behind it."""

    value: float
    low: float
    high: float
    n: int
    p: float | None = None
    """Two-sided p-value of no difference; none for a single score."""


def detectable(gap: Estimate) -> float:
    """The smallest true difference, in points, whose interval excludes 0 four times out of five.

    From the width of the interval of an observed difference, as if its error were normal: (1.96 + 0.84) standard
    errors.
    """
    from scipy.stats import norm

    return (gap.high - gap.low) / 2 * (1 + float(norm.ppf(0.8)) / Z)


def expected(n: int) -> Estimate:
    """No difference of two models' right answers to n items, in points, if a fifth of the answers change.

    A fifth is ours: before a run nobody knows the share of items that only one of the two answers correctly.
    """
    half = 100 * Z * sqrt(0.2 / n)
    return Estimate(0.0, -half, half, n)


def power(difference: float, gap: Estimate) -> float:
    """The probability that the interval of a true difference, in points, excludes 0 if it is as wide as `gap`."""
    from scipy.stats import norm

    return float(norm.cdf(Z * (2 * difference / (gap.high - gap.low) - 1)))


def proportion(correct: Sequence[bool], clusters: Clusters = None) -> Estimate:
    """The share of True, with Wilson's score interval (1927).

    With clusters, the interval is that of as many independent items as have the variance that the clusters show
    (Rao and Scott, Biometrics 48, 1992), with Student's t for the number of clusters.
    """
    n, share = len(correct), sum(correct) / len(correct)
    effective, z = n / _design_effect(correct, clusters), _quantile(clusters)
    centre = (share + z**2 / (2 * effective)) / (1 + z**2 / effective)
    half = z / (1 + z**2 / effective) * sqrt(share * (1 - share) / effective + z**2 / (4 * effective**2))
    # At 0 and 1 the formula gives the bound but for rounding.
    return Estimate(100 * share, 100 * min(centre - half, share), 100 * max(centre + half, share), n)


def paired_difference(before: Sequence[bool], after: Sequence[bool], clusters: Clusters = None) -> Estimate:
    """Share of True after minus before, over the same items in the same order.

    The interval is Tango's score interval (Statistics in Medicine 17, 1998), which keeps its coverage for few
    items and few changes. The p-value is McNemar's exact test, a little more conservative: at the border the
    interval may exclude 0 although p is above 0.05. With clusters, the counts are divided by the design effect (see
    `proportion`), and the p-value is that of `_exchange`.
    """
    import numpy as np
    from scipy.optimize import brentq
    from scipy.stats import binomtest

    changes = np.subtract(after, before, dtype=float)
    n, gained, lost = len(changes), int((changes > 0).sum()), int((changes < 0).sum())
    value = (gained - lost) / n
    effect, z = _design_effect(changes, clusters), _quantile(clusters)

    def bound(side: float) -> float:
        def gap(difference: float) -> float:
            return _tango(gained / effect, lost / effect, n / effect, difference) - side * z

        if gap(-side) * gap(value) > 0:  # certain at the end of the scale
            return -side
        return float(brentq(gap, *sorted((-side, value)), xtol=1e-9))

    if clusters is not None:
        one, other = (_summed(np.stack([correct, np.ones(n)], 1), clusters) for correct in (before, after))
        p = _exchange(one, other, mean_score)
    else:
        p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return Estimate(100 * value, 100 * bound(1.0), 100 * bound(-1.0), n, p)


def _design_effect(values: Sequence[bool] | np.ndarray, clusters: Clusters) -> float:
    """The variance of the mean relative to that of independent items; at least 1.

    If all items are alike, they do not show the variance; then a cluster counts as one item.
    """
    import numpy as np

    if clusters is None:
        return 1.0
    deviations = np.asarray(values, float) - np.mean(values)
    sums = np.bincount(clusters, deviations)
    n, k = len(deviations), len(sums)
    independent = (deviations**2).sum() * n / (n - 1) if n > 1 else 0.0
    clustered = (sums**2).sum() * k / (k - 1) if k > 1 else 0.0
    return max(1.0, float(clustered / independent)) if independent and clustered else n / k


def _quantile(clusters: Clusters) -> float:
    """97.5 % of the normal distribution; with clusters, which may be few, of Student's t."""
    from scipy.stats import t

    return Z if clusters is None else float(t.ppf(0.975, max(*clusters, 1)))


def _tango(gained: float, lost: float, n: float, difference: float) -> float:
    """Tango's score statistic of a true difference, standard normal under it."""
    # The most likely probability of a loss, given the difference: the larger root of 2n q^2 + b q + c.
    b = -gained - lost + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    q = (sqrt(max(b * b - 8 * n * c, 0)) - b) / (4 * n)
    variance = n * (2 * q + difference * (1 - difference))
    excess = gained - lost - n * difference
    if variance > 1e-12:
        return excess / sqrt(variance)
    return 0.0 if abs(excess) < 1e-9 else float("inf") if excess > 0 else float("-inf")


Score = Callable[["np.ndarray"], "np.ndarray"]
"""Summed sentence statistics [..., k] -> corpus score [...], 0 to 100, such as `metrics.corpus_score`."""


def mean_score(statistics: np.ndarray) -> np.ndarray:
    """A mean in percent: [..., 2], the sum of the items' values from 0 to 1 and their number, gives [...]."""
    import numpy as np

    return np.asarray(100 * statistics[..., 0] / statistics[..., 1])


def bootstrap_corpus(statistics: np.ndarray, score: Score, clusters: Clusters = None) -> Estimate:
    """A corpus score and its interval over 2,000 resamples of the sentences, or of the clusters, the seed fixed.

    Args:
        statistics: [sentence, k], such as `metrics.corpus_statistics`.
    """
    sums = _summed(statistics, clusters)
    return _estimate(score(sums.sum(0)), score(_resampled(sums)), len(statistics), len(sums))


def bootstrap_corpus_difference(
    before: np.ndarray, after: np.ndarray, score: Score, clusters: Clusters = None
) -> Estimate:
    """Corpus score after minus before on the same sentences; each resample takes the same sentences of both.

    The p-value is that of `_exchange`; at the border the interval may exclude 0 although p is above 0.05.
    """
    import numpy as np

    n, before, after = len(before), _summed(before, clusters), _summed(after, clusters)
    drawn_before, drawn_after = np.split(_resampled(np.concatenate([before, after], 1)), 2, 1)
    gap = score(after.sum(0)) - score(before.sum(0))
    return _estimate(gap, score(drawn_after) - score(drawn_before), n, len(before), _exchange(before, after, score))


def _summed(statistics: np.ndarray, clusters: Clusters) -> np.ndarray:
    """[cluster, k]: the score of a corpus is one of sums, so a cluster counts as a sentence does."""
    import numpy as np

    if clusters is None:
        return statistics
    sums = np.zeros((max(clusters) + 1, statistics.shape[1]))
    np.add.at(sums, np.asarray(clusters), statistics)
    return sums


def _exchange(before: np.ndarray, after: np.ndarray, score: Score) -> float:
    """Two-sided p-value: how often the difference is as large if each sentence's two models are exchanged at random.

    Approximate randomisation (Noreen 1989; for corpus scores Riezler and Maxwell 2005), 2,000 times, the seed fixed.
    It is at least 1 in 2,001.
    """
    import numpy as np

    random = np.random.default_rng(SEED)
    gap = (after - before).astype(np.float64)
    observed = abs(score(after.sum(0)) - score(before.sum(0)))
    as_large = 0
    for _ in range(RESAMPLES // 100):
        moved = random.integers(0, 2, size=(100, len(gap)), dtype=np.int8).astype(np.float64) @ gap
        as_large += int((abs(score(after.sum(0) - moved) - score(before.sum(0) + moved)) >= observed - 1e-9).sum())
    return (as_large + 1) / (RESAMPLES + 1)


def _resampled(statistics: np.ndarray) -> np.ndarray:
    """[resample, k]: statistics summed over as many sentences as there are, drawn with replacement."""
    import numpy as np

    n = len(statistics)
    summed = statistics.astype(np.float64)  # as exact for counts, and many times faster than integers
    draws = _cached_draws(n) if n <= CACHED_SENTENCES else _draws(n)
    return np.concatenate([draw.astype(np.float64) @ summed for draw in draws])


def _draws(n: int) -> Iterator[np.ndarray]:
    """How often each of n sentences is drawn: for ten resamples at a time, [10, n] counts stay small for any n."""
    import numpy as np

    random = np.random.default_rng(SEED)
    for _ in range(RESAMPLES // 10):
        yield random.multinomial(n, np.full(n, 1 / n), size=10).astype(np.uint16)


_cached_draws = lru_cache(maxsize=4)(lambda n: list(_draws(n)))
"""The draws are the same for all scores of as many sentences, and take longest to make."""


def _estimate(value: np.ndarray, resamples: np.ndarray, n: int, drawn: int, p: float | None = None) -> Estimate:
    """The interval between two percentiles of the resamples.

    The percentiles of 2.5 and 97.5 % cover too little for few sentences: with fewer than 50, they contain a mean in 88
    to 93 % of cases. Expanded percentiles (Hesterberg, The American Statistician 69, 2015) correct this: they are as
    far out as Student's t is beside the normal distribution, and as n - 1 in the variance is beside n.

    Args:
        n: items.
        drawn: sentences or clusters that were resampled.
    """
    import numpy as np
    from scipy.stats import norm, t

    if drawn == 1:  # which does not show how others would differ
        return Estimate(float(value), float(value) - 100, float(value) + 100, n, p)
    outside = 100 * norm.cdf(t.ppf(0.025, drawn - 1) * sqrt(drawn / (drawn - 1)))
    low, high = np.percentile(resamples, [outside, 100 - outside])
    return Estimate(float(value), float(low), float(high), n, p)
