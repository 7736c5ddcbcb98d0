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
    """The values behind a score of the trained model, of the untouched one where nothing was trained; never those of
    another system of the run."""

    ids: list[str]
    values: list[Value]
    labels: Sequence[Hashable]
    """Of the items' clusters."""


def write(directory: Path, found: Sequence[ItemScores]) -> None:
    write_rows(directory / ITEMS, scrub_all([vars(judged) for judged in found]))


def read(directory: Path) -> dict[Column, Items]:
    """What `write` wrote; a line that is damaged or of another version is left out, as is a file that is not there."""
    try:
        lines = (directory / ITEMS).read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError):
        return {}
    return dict(items for line in lines if (items := _items(line)))


def difference(baseline: Items, run: Items, metric: str) -> Estimate | None:
    """The run's score minus the baseline's, in percentage points (chrF++ and BLEU: points of 100).

    None where the two are of other items, or where no item has a value in both.
    """
    if baseline.ids != run.ids:
        return None
    labels, counted = decided(run.labels, baseline.values, run.values)
    return difference_of(metric, counted[0], counted[1], labels) if counted else None


def _items(line: str) -> tuple[Column, Items] | None:
    try:
        judged: dict[str, Any] = json.loads(line)
        where = column_of(judged)
        ids, values = judged["ids"], judged["after"]
        if values is None and not judged.get("system"):
            values = judged["before"]
        labels = judged.get("clusters") or ids
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not all(isinstance(name, str) for name in where) or not (_are_labels(ids) and _are_labels(labels)):
        return None
    same = are_values(where[2], values) and len(ids) == len(values) == len(labels)
    return (where, Items(ids, values, labels)) if same else None


def _are_labels(read: Any) -> bool:
    return isinstance(read, list) and all(isinstance(label, str | int) for label in read)
