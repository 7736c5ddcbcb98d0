"""Scores with 95 % intervals and paired differences, in percentage points (chrF++: points of 100).

A score of one model is uncertain because other questions could have been asked. Two models answered the same
ones, so their difference is measured per question, which is far more precise than comparing two intervals.
None of this covers what another training seed would change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Z = 1.959963984540054
"""97.5 % quantile of the normal distribution."""
RESAMPLES = 2000
SEED = 20240217
KEPT_SENTENCES = 4000
"""So many at most, draws are kept in memory: 16 MB."""


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval, and the number of items behind it."""

    value: float
    low: float
    high: float
    n: int
    p: float | None = None
    """Two-sided p-value of no difference; none for a single score."""


def proportion(correct: Sequence[bool]) -> Estimate:
    """The share of True, with Wilson's score interval (1927)."""
    n = _count(correct)
    share = sum(correct) / n
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    # At 0 and 1 the formula gives the bound but for rounding.
    return Estimate(100 * share, 100 * min(centre - half, share), 100 * max(centre + half, share), n)


def paired_difference(before: Sequence[bool], after: Sequence[bool]) -> Estimate:
    """Share of True after minus before, over the same items in the same order.

    The interval is Tango's score interval (Statistics in Medicine 17, 1998), which keeps its coverage for few
    items and few changes. The p-value is McNemar's exact test, a little more conservative: at the border the
    interval may leave out 0 where p is still above 0.05.
    """
    from scipy.optimize import brentq
    from scipy.stats import binomtest

    n = _count(before)
    if n != len(after):
        raise ValueError(f"{n} outcomes before and {len(after)} after; a paired difference needs the same items")
    gained = sum(b > a for a, b in zip(before, after, strict=True))
    lost = sum(a > b for a, b in zip(before, after, strict=True))
    value = (gained - lost) / n

    def bound(side: float) -> float:
        def gap(difference: float) -> float:
            return _tango(gained, lost, n, difference) - side * Z

        if gap(-side) * gap(value) > 0:  # certain at the end of the scale
            return -side
        return float(brentq(gap, *sorted((-side, value)), xtol=1e-9))

    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return Estimate(100 * value, 100 * bound(1.0), 100 * bound(-1.0), n, p)


def _tango(gained: int, lost: int, n: int, difference: float) -> float:
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
"""Summed sentence statistics [..., k] -> corpus score [...], 0 to 100, such as `metrics.chrf_score`."""


def mean_score(statistics: np.ndarray) -> np.ndarray:
    """A mean in percent: [..., 2], the sum of the items' values from 0 to 1 and their number, gives [...]."""
    import numpy as np

    return np.asarray(100 * statistics[..., 0] / statistics[..., 1])


def bootstrap_corpus(statistics: np.ndarray, score: Score) -> Estimate:
    """A corpus score and its percentile interval over 2,000 resamples of the sentences, the seed fixed.

    Args:
        statistics: [sentence, k], such as `metrics.chrf_statistics`.
    """
    return _estimate(score(statistics.sum(0)), score(_resampled(statistics)), _count(statistics))


def bootstrap_corpus_difference(before: np.ndarray, after: np.ndarray, score: Score) -> Estimate:
    """Corpus score after minus before on the same sentences; each resample takes the same ones of both.

    The p-value is twice the smaller share of resamples on one side of 0, at least 1 in 1,000.
    """
    import numpy as np

    if before.shape != after.shape:
        raise ValueError(f"statistics {before.shape} before and {after.shape} after; both need the same sentences")
    one, other = np.split(_resampled(np.concatenate([before, after], 1)), 2, 1)
    differences = score(other) - score(one)
    share = min((differences <= 0).sum(), (differences >= 0).sum()) + 1
    p = min(1.0, 2 * float(share) / (RESAMPLES + 1))
    return _estimate(score(after.sum(0)) - score(before.sum(0)), differences, _count(before), p)


def _resampled(statistics: np.ndarray) -> np.ndarray:
    """[resample, k]: statistics summed over as many sentences as there are, drawn with replacement."""
    import numpy as np

    n = len(statistics)
    draws = _kept_draws(n) if n <= KEPT_SENTENCES else _draws(n)
    summed = statistics.astype(np.float64)  # as exact for counts, and many times faster than integers
    return np.concatenate([draw.astype(np.float64) @ summed for draw in draws])


def _draws(n: int) -> Iterator[np.ndarray]:
    """How often each of n sentences is drawn: for ten resamples at a time, [10, n] counts stay small for any n."""
    import numpy as np

    random = np.random.default_rng(SEED)
    for _ in range(RESAMPLES // 10):
        yield random.multinomial(n, np.full(n, 1 / n), size=10).astype(np.uint16)


@lru_cache(maxsize=4)
def _kept_draws(n: int) -> list[np.ndarray]:
    """They are the same for all scores of as many sentences, and drawing them takes longest."""
    return list(_draws(n))


def _estimate(value: np.ndarray, resamples: np.ndarray, n: int, p: float | None = None) -> Estimate:
    import numpy as np

    low, high = np.percentile(resamples, [2.5, 97.5])
    return Estimate(float(value), float(low), float(high), n, p)


def _count(items: Sequence[bool] | np.ndarray) -> int:
    if not len(items):
        raise ValueError("no items to score")
    return len(items)
