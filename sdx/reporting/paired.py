"""The difference of two cells on the same items, from the outcomes that the cache still has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sdx.artifacts import read_rows
from sdx.evaluation.statistics import Estimate, paired_difference
from sdx.languages import language as language_of
from sdx.reporting.cells import Finished


def difference(
    baseline: Finished, cell: Finished, task: str, language: str, metric: str, origin: str
) -> Estimate | None:
    """The cell's score minus the baseline's, each after training, in percentage points.

    None where the metric is no share of right answers that the outcomes alone tell, or where the outcomes are gone from
    the cache or are of other items.
    """
    verdict = _verdict(metric, language)
    if verdict is None:
        return None
    one, other = (_rows(some, task, language, origin) for some in (baseline, cell))
    if not one or not other or [row["id"] for row in one] != [row["id"] for row in other]:
        return None
    pairs = [(verdict(a), verdict(b)) for a, b in zip(one, other, strict=True)]
    decided = [(a, b) for a, b in pairs if a is not None and b is not None]
    return paired_difference([a for a, _ in decided], [b for _, b in decided]) if decided else None


def _verdict(metric: str, language: str) -> Callable[[dict[str, Any]], bool | None] | None:
    """Whether a row of an outcome is right; None for a row that does not count."""
    if metric == "accuracy":
        return lambda row: bool(row["acc"])
    if metric == "answer language":
        from sdx.data.identification import in_language

        answered = language_of(language.rpartition("-")[2])  # of a translation, the target's
        return lambda row: in_language(row["text"], answered)
    return None


def _rows(cell: Finished, task: str, language: str, origin: str) -> list[dict[str, Any]]:
    """The rows of the trained model's outcome, or of the untouched one's where nothing was trained; none if gone."""
    for outcome in cell.outcomes:
        if (outcome["task"], outcome["language"], outcome["origin"]) == (task, language, origin):
            try:
                return read_rows(Path(outcome["after"] or outcome["before"]) / "rows.jsonl")
            except (OSError, ValueError):
                return []
    return []
