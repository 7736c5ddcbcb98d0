"""From what a metric says of each item to the score of a model, and to the difference of two on the same items."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdx.evaluation.metrics import BLEU_ORDERS, CHRF_ORDERS, bleu_score, chrf_score
from sdx.evaluation.statistics import (
    Estimate,
    bootstrap_corpus,
    bootstrap_corpus_difference,
    mean_score,
    paired_difference,
    proportion,
)

if TYPE_CHECKING:
    import numpy as np

ACCURACY = "accuracy"
EXACT_MATCH = "exact match"
ANSWER_LANGUAGE = "answer language"
F1 = "F1"
ROUGE_L = "ROUGE-L"
CHRF = "chrF++"
BLEU = "BLEU"

SHARES = (ACCURACY, EXACT_MATCH, ANSWER_LANGUAGE)
MEANS = (F1, ROUGE_L)
"""How tokens are made may follow the name: `BLEU (char)`, `F1 (MLQA)`."""
LARGEST_COUNT = 2**31
"""Of n-grams in a text, beyond any that there are."""

Value = bool | float | list[int] | None
"""Of one item, by the metric: right or wrong; from 0 to 1; the counts whose sum over all items gives the score of a
corpus. None for an item that does not count."""


@dataclass(frozen=True)
class ItemScores:
    """What one metric says of each item of a suite: a score is made of it, and a difference to another run."""

    task: str
    language: str
    """The language's code; of a translation benchmark both, as `en-th`."""
    metric: str
    origin: str
    """original, human-translated or by which engine the items (for chrF++ and BLEU: the references) are translated."""
    ids: list[str]
    before: list[Value]
    after: list[Value] | None
    """None where nothing was trained."""
    benchmark: str
    """The task that the items are from: of an engine's translations not `task`."""
    system: str = ""
    """What `before` is of, if not of the untrained backbone; see `sdx.evaluation.comparison`."""
    clusters: list[int] | None = None
    """Of each item the number of the text that it shares with others; None where each item stands alone."""

    @property
    def labels(self) -> Sequence[Hashable]:
        """Of the items' clusters."""
        return self.clusters or self.ids


def numbered(labels: Sequence[Hashable]) -> list[int] | None:
    """Clusters by number, from 0 on, for `sdx.evaluation.statistics`; None where no two labels are equal."""
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return [numbers[label] for label in labels] if len(numbers) < len(labels) else None


def decided(labels: Sequence[Hashable], *outcomes: Sequence[Value]) -> tuple[list[Hashable], list[list[Value]]]:
    """Labels and values without the items for which one of the outcomes has no value; no lists where none is left."""
    rows = [row for row in zip(labels, *outcomes, strict=True) if None not in row[1:]]
    left, *values = (list(column) for column in zip(*rows, strict=True)) if rows else [[]]
    return left, values


def estimate(metric: str, values: Sequence[Value], labels: Sequence[Hashable] = ()) -> Estimate:
    """A model's score from the values of all items, none of them None.

    Args:
        labels: of the items' clusters; without any, each item stands alone.
    """
    clusters = numbered(labels)
    if _is_share(metric, values):
        return proportion([bool(value) for value in values], clusters)
    return bootstrap_corpus(_statistics(metric, values), _corpus_score(metric), clusters)


def difference(
    metric: str, before: Sequence[Value], after: Sequence[Value], labels: Sequence[Hashable] = ()
) -> Estimate:
    """The score after minus the one before, over the same items in the same order, none of them None.

    Args:
        labels: of the items' clusters; without any, each item stands alone.
    """
    clusters = numbered(labels)
    if _is_share(metric, before) and _is_share(metric, after):
        return paired_difference([bool(value) for value in before], [bool(value) for value in after], clusters)
    statistics = _statistics(metric, before), _statistics(metric, after)
    return bootstrap_corpus_difference(*statistics, _corpus_score(metric), clusters)


def are_values(metric: str, values: Any) -> bool:
    """Whether something read from a file is a list of the metric's values."""
    if not isinstance(values, list):
        return False
    if _is_corpus(metric):
        return all(
            isinstance(value, list)
            and len(value) == _counts(metric)
            and all(isinstance(count, int) and 0 <= count < LARGEST_COUNT for count in value)
            for value in values
        )
    if _plain(metric) in SHARES:
        return all(value is None or isinstance(value, bool) for value in values)
    empty = () if _plain(metric) in MEANS else (None,)
    return all(value in empty or (isinstance(value, int | float) and 0 <= value <= 1) for value in values)


def _plain(metric: str) -> str:
    """The name without how tokens are made."""
    return metric.partition(" (")[0]


def _is_corpus(metric: str) -> bool:
    return _plain(metric) in (CHRF, BLEU)


def _is_share(metric: str, values: Sequence[Value]) -> bool:
    """Whether the values are right or wrong: of our own metrics the name says it, of the harness' the values."""
    return _plain(metric) in SHARES or (_plain(metric) not in MEANS and all(isinstance(one, bool) for one in values))


def _counts(metric: str) -> int:
    """Length of an item's counts, see `sdx.evaluation.metrics`."""
    return 3 * CHRF_ORDERS if metric == CHRF else 2 + 2 * BLEU_ORDERS


def _corpus_score(metric: str) -> Callable[[np.ndarray], np.ndarray]:
    if not _is_corpus(metric):
        return mean_score
    return chrf_score if metric == CHRF else bleu_score


def _statistics(metric: str, values: Sequence[Value]) -> np.ndarray:
    """[item, k]: what `_corpus_score` takes the sum of."""
    import numpy as np

    return np.array([[value, 1.0] for value in values] if not _is_corpus(metric) else values)
