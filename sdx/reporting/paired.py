"""The difference of two runs on the same items, from the values of the items that each run wrote down."""

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdx.evaluation.statistics import Estimate
from sdx.evaluation.values import ItemScores, Value, are_values, decided
from sdx.evaluation.values import difference as difference_of
from sdx.process.secret import scrub_all
from sdx.reporting.finished import Column, column_of
from sdx.store.files import write_rows

ITEMS = "items.jsonl"
"""In the directory of a run: a line for each score, the fields of `ItemScores`."""


@dataclass(frozen=True)
class Items:
    """The values behind a score of the trained model, or of the untouched model if nothing was trained."""

    ids: list[str]
    values: list[Value]
    labels: Sequence[Hashable]
    """The cluster of each item."""


def write(directory: Path, found: Sequence[ItemScores]) -> None:
    write_rows(directory / ITEMS, scrub_all([vars(scores) for scores in found]))


def read(directory: Path) -> dict[Column, Items]:
    """What `write` wrote, without lines that are damaged or of another version; empty if there is no file."""
    try:
        lines = (directory / ITEMS).read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError):
        return {}
    return dict(items for line in lines if (items := _items(line)))


def difference(baseline: Items, run: Items, metric: str) -> Estimate | None:
    """The run's score minus the baseline's, in percentage points (chrF++ and BLEU: points of 100).

    None if the items differ, or if no item has a value in both.
    """
    if baseline.ids != run.ids:
        return None
    labels, counted = decided(run.labels, baseline.values, run.values)
    return difference_of(metric, counted[0], counted[1], labels) if counted else None


def _items(line: str) -> tuple[Column, Items] | None:
    try:
        scores: dict[str, Any] = json.loads(line)
        column = column_of(scores)
        ids, values = scores["ids"], scores["after"]
        if values is None and not scores.get("system"):
            values = scores["before"]
        labels = scores.get("clusters") or ids
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    valid = all(isinstance(name, str) for name in column) and _are_labels(ids) and _are_labels(labels)
    valid = valid and are_values(column[2], values) and len(ids) == len(values) == len(labels)
    return (column, Items(ids, values, labels)) if valid else None


def _are_labels(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(label, str | int) for label in value)
