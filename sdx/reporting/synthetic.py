"""The synthetic data behind a trained model: what the filters dropped, and translations beside their sources."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import groupby
from typing import Any

from sdx.process.console import plain
from sdx.reporting.tables import markdown_table
from sdx.store.files import read_rows
from sdx.store.inventory import subject
from sdx.store.step import Step
from sdx.store.store import Store

SHOWN_TRANSLATIONS = 10
"""Rows for each filtered translation."""
SHOWN_LETTERS = 600
"""Length of a text in report.md; translations.jsonl has the whole text."""
SHOWN_FILTERS = 5
"""Lines in the terminal, for the filters that dropped the largest shares."""
KEPT = "kept"
DROPPED = "dropped.jsonl"
"""A filter publishes its dropped rows in this file."""


def filters(store: Store, steps: Iterable[Step]) -> list[dict[str, Any]]:
    """What each filter among `steps` kept, and dropped by reason.

    Args:
        steps: published steps behind the trained model; translated test sets are not among them.
    """
    found = []
    for step in _filters(store, steps):
        counts = store.manifest(step)["counts"]
        dropped = {reason: count for reason, count in counts.items() if reason != KEPT}
        rows = {"rows": sum(counts.values()), KEPT: counts[KEPT], "dropped": dropped}
        found.append({**subject(step), **rows, "path": str(store.path(step) / DROPPED)})
    return found


def translations(store: Store, steps: Iterable[Step]) -> list[dict[str, Any]]:
    """Some rows of each filtered translation, kept or dropped, in the order of a hash of their ids: the same random
    sample in every run."""
    found: list[dict[str, Any]] = []
    for step in _filters(store, steps):
        path = store.path(step)
        rows = [{**row, "reason": KEPT} for row in read_rows(path / "rows.jsonl")] + read_rows(path / DROPPED)
        rows = [row for row in rows if "source" in row]  # rows of other filters have a prompt
        rows.sort(key=lambda row: sha256(row["id"].encode()).digest())
        found += [
            {**subject(step), **{name: row[name] for name in ("id", "source", "text", "reason")}}
            for row in rows[:SHOWN_TRANSLATIONS]
        ]
    return found


def _filters(store: Store, steps: Iterable[Step]) -> list[Step]:
    return [step for step in steps if (store.path(step) / DROPPED).is_file()]


def lines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The filters for the terminal, a line each."""
    shown = list(found)
    if len(found) > SHOWN_FILTERS:
        shown = sorted(found, key=lambda one: one[KEPT] / max(one["rows"], 1))[:SHOWN_FILTERS]
    texts = []
    for one in shown:
        reasons = ", ".join(f"{reason} {count}" for reason, count in one["dropped"].items() if count)
        texts.append(f"filters  {_title(one)}: {one[KEPT]} of {one['rows']} kept{f' ({reasons})' if reasons else ''}")
    if more := len(found) - len(shown):
        texts.append(f"filters  {more} more, which dropped less, are in report.md")
    return texts


def filter_table(found: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for one in found:
        percent = 100 / max(one["rows"], 1)
        kept = f"{one[KEPT]} ({percent * one[KEPT]:.1f} %)"
        dropped = (f"{reason} {count} ({percent * count:.1f} %)" for reason, count in one["dropped"].items() if count)
        reasons = ", ".join(dropped) or "-"
        rows.append([one["what"], one["language"] or "", str(one["rows"]), kept, reasons, f"`{one['path']}`"])
    names = ("what", "language", "rows", "kept", "dropped by reason", "dropped rows")
    return markdown_table(names, rows, ("rows", "kept"))


def translation_tables(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A heading and a table for each translation."""
    parts = []
    for title, some in groupby(rows, key=_title):
        cells = [[plain(row["id"]), _cell(row["source"]), _cell(row["text"]), row["reason"]] for row in some]
        parts += [f"**{title}**", markdown_table(("id", "source", "translation", "kept or dropped for"), cells)]
    return [*parts, "Rows in a fixed random order; long texts are cut here and whole in `translations.jsonl`."]


def _title(about: Mapping[str, Any]) -> str:
    return ", ".join(filter(None, (about["what"], about["language"])))


def _cell(text: str | list[str]) -> str:
    """A text, or the texts that a row translates together."""
    whole = text if isinstance(text, str) else "\n".join(text)
    return plain(whole if len(whole) <= SHOWN_LETTERS else f"{whole[:SHOWN_LETTERS]}...")
