"""The synthetic data behind a trained model: what the filters dropped, and translations beside their sources."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import groupby
from typing import Any

from sdx.process.console import plain, table
from sdx.store.files import read_rows
from sdx.store.step import Step
from sdx.store.store import Store

SHOWN_TRANSLATIONS = 10
"""Of each filtered translation."""
SHOWN_LETTERS = 600
"""Of a text in report.md; translations.jsonl has all."""
SHOWN_FILTERS = 5
"""In the terminal; with more of them, those that dropped the most."""
KEPT = "kept"


def filters(store: Store, steps: Iterable[Step]) -> list[dict[str, Any]]:
    """What each filter among `steps` kept, and dropped by reason.

    Args:
        steps: those behind the trained model, all in the store. Translated test sets are not among them.
    """
    return [_filter(store, step) for step in steps if step.name == "filter"]


def _filter(store: Store, step: Step) -> dict[str, Any]:
    dropped = {reason: count for reason, count in store.manifest(step)["counts"].items() if reason != KEPT}
    kept = store.manifest(step)["counts"][KEPT]
    path = store.path(step) / "dropped.jsonl"
    return {
        **_about(step),
        "rows": kept + sum(dropped.values()),
        KEPT: kept,
        "dropped": dropped,
        "path": str(path),
    }


def _about(step: Step) -> dict[str, Any]:
    return {"what": step.about, "language": step.language.code if step.language else None}


def translations(store: Store, steps: Iterable[Step]) -> list[dict[str, Any]]:
    """Some rows of each translation that a filter among `steps` chose from, kept or dropped.

    They come in the order of a hash of their ids: a sample of all, and the same one in every run.
    """
    found: list[dict[str, Any]] = []
    for step in steps:
        if step.name == "filter" and any(inner.name == "translate" for inner in step.inputs.values()):
            path = store.path(step)
            rows = [{**row, "reason": KEPT} for row in read_rows(path / "rows.jsonl")]
            rows += read_rows(path / "dropped.jsonl")
            rows.sort(key=lambda row: sha256(row["id"].encode()).digest())
            shown = ({name: row[name] for name in ("id", "source", "text", "reason")} for row in rows)
            found += [{**_about(step), **row} for row, _ in zip(shown, range(SHOWN_TRANSLATIONS), strict=False)]
    return found


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
    names = ("what", "language", "rows", "kept", "dropped by reason", "dropped rows")
    columns = [(name, "right" if name in ("rows", "kept") else "left") for name in names]
    return table([_row(one) for one in found], columns)


def _row(one: Mapping[str, Any]) -> list[str]:
    def share(count: int) -> str:
        return f"{count} ({100 * count / max(one['rows'], 1):.1f} %)"

    reasons = ", ".join(f"{reason} {share(count)}" for reason, count in one["dropped"].items() if count)
    return [one["what"], one["language"] or "", str(one["rows"]), share(one[KEPT]), reasons or "-", f"`{one['path']}`"]


def translation_tables(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A heading and a table for each translation."""
    parts = []
    for title, some in groupby(rows, key=_title):
        shown = [[plain(row["id"]), _shown(row["source"]), _shown(row["text"]), row["reason"]] for row in some]
        names = ("id", "source", "translation", "kept or dropped for")
        parts += [f"**{title}**", table(shown, [(name, "left") for name in names])]
    return [*parts, "Rows in a fixed random order; long texts are cut here and whole in `translations.jsonl`."]


def _title(about: Mapping[str, Any]) -> str:
    return f"{about['what']}, {about['language']}" if about["language"] else str(about["what"])


def _shown(text: str | list[str]) -> str:
    """A text, or the texts that a row translates together, as a cell."""
    whole = text if isinstance(text, str) else "\n".join(text)
    return plain(whole if len(whole) <= SHOWN_LETTERS else f"{whole[:SHOWN_LETTERS]}...")
