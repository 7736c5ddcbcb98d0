"""From the value of a metric for each item to the score of a model, and to the difference of two on the same items."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sdx.evaluation.metrics import COUNTS, corpus_score
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

SHARES = (ACCURACY, EXACT_MATCH, ANSWER_LANGUAGE)
MEANS = (F1, ROUGE_L)
"""The tokens that are compared may follow the name: `BLEU (char)`, `F1 (MLQA)`."""

Value = bool | float | list[int] | None
"""Of one item, by the metric: right or wrong; from 0 to 1; the counts whose sum over all items gives the score of a
corpus. None for an item that does not count."""


@dataclass(frozen=True)
class ItemScores:
    """The values of one metric for each item of a suite, from which scores and differences to other runs are made."""

    task: str
    language: str
    """The language's code; of a translation benchmark both, as `en-th`."""
    metric: str
    origin: str
    """original, human-translated or the engine that translated the items (for chrF++ and BLEU: the references)."""
    ids: list[str]
    before: list[Value]
    after: list[Value] | None
    """None if nothing was trained."""
    benchmark: str
    """The task with the items, which differs from `task` for an engine's translations."""
    system: str = ""
    """The system of `before`, if it is not the untrained backbone; see `sdx.evaluation.suites.Comparison`."""
    clusters: list[int] | None = None
    """The number of the text that each item shares with others; None if each item stands alone."""


def numbered(labels: Sequence[Hashable]) -> list[int] | None:
    """Clusters by number, from 0 on, for `sdx.evaluation.statistics`; None if no two labels are equal."""
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return [numbers[label] for label in labels] if len(numbers) < len(labels) else None


def decided(labels: Sequence[Hashable], *outcomes: Sequence[Value]) -> tuple[list[Hashable], list[list[Value]]]:
    """Labels and values of the items that have a value in all outcomes; no lists if there are none."""
    rows = [row for row in zip(labels, *outcomes, strict=True) if None not in row[1:]]
    left, *values = (list(column) for column in zip(*rows, strict=True)) if rows else [[]]
    return left, values


def estimate(metric: str, values: Sequence[Value], labels: Sequence[Hashable] = ()) -> Estimate:
    """A model's score from the values of all items, none None. Without `labels` of clusters, each item stands alone."""
    clusters = numbered(labels)
    if _is_share(metric, values):
        return proportion([bool(value) for value in values], clusters)
    return bootstrap_corpus(_statistics(metric, values), _corpus_score(metric), clusters)


def difference(
    metric: str, before: Sequence[Value], after: Sequence[Value], labels: Sequence[Hashable] = ()
) -> Estimate:
    """The score after minus the one before, over the same items in the same order, with arguments as for `estimate`."""
    clusters = numbered(labels)
    if _is_share(metric, before) and _is_share(metric, after):
        return paired_difference([bool(value) for value in before], [bool(value) for value in after], clusters)
    statistics = _statistics(metric, before), _statistics(metric, after)
    return bootstrap_corpus_difference(*statistics, _corpus_score(metric), clusters)


def are_values(metric: str, values: Any) -> bool:
    """Whether something read from a file is a list of the metric's values."""
    name = _plain(metric)

    def fits(value: Any) -> bool:
        if name in COUNTS:
            is_row = isinstance(value, list) and len(value) == COUNTS[name]
            return is_row and all(isinstance(count, int) and 0 <= count < 2**31 for count in value)
        if value is None:
            return name not in MEANS
        return isinstance(value, bool) if name in SHARES else isinstance(value, int | float) and 0 <= value <= 1

    return isinstance(values, list) and all(map(fits, values))


def _plain(metric: str) -> str:
    """The name without the tokens that are compared."""
    return metric.partition(" (")[0]


def _is_share(metric: str, values: Sequence[Value]) -> bool:
    """Whether the values are right or wrong. The names of our own metrics tell; those of the harness do not."""
    return _plain(metric) in SHARES or (_plain(metric) not in MEANS and all(isinstance(v, bool) for v in values))


def _corpus_score(metric: str) -> Callable[[np.ndarray], np.ndarray]:
    return partial(corpus_score, _plain(metric)) if _plain(metric) in COUNTS else mean_score


def _statistics(metric: str, values: Sequence[Value]) -> np.ndarray:
    """[item, k]: the arguments of `_corpus_score`, before they are summed."""
    import numpy as np

    return np.array(values if _plain(metric) in COUNTS else [[value, 1.0] for value in values])
