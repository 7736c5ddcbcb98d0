"""The end of a run as figures and tables, with the same names on every dashboard.

score/<task>/<language>/<metric>/before, after, difference      percent, points of 100
filter/all/<reason>_rows, filter/<what>/<language>/<reason>_rows
run/seconds, run/peak_memory_bytes
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdx.process.printable import escaped
from sdx.store.files import read_rows

Rows = Sequence[Mapping[str, Any]]

FILTER, DIFFERENCE = "filter", "difference"
MOST_ROWS = 200
"""Rows of a table that a dashboard shows."""


@dataclass(frozen=True)
class Results:
    """What is known at the end of a run."""

    summary: Mapping[str, float]
    """Figures of the whole run by name."""
    tables: Mapping[str, Rows]
    """Rows of texts and numbers; all rows of a table have the same columns."""
    reports: Sequence[Path]

    @property
    def lasting(self) -> dict[str, float]:
        """The figures that stay the same when the same command finds everything done: not those of its process."""
        return {name: value for name, value in self.summary.items() if not name.startswith("run/")}


def filter_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Figures of a filter step, from the counts of its manifest: all rows, and rows by reason."""
    return {"rows": sum(counts.values()), **{f"{reason}_rows": count for reason, count in counts.items()}}


def score_values(scores: Rows) -> dict[str, float]:
    """The scores of results.json by name, in percent or points of 100.

    If items were translated, `<task>` is `<task>/<benchmark that the texts are from>`. A comparison with another system
    has `<system>` and `difference to <system>` instead of `before` and `difference`.
    """
    values = {}
    for score in scores:
        task, benchmark, system = score["task"], score["benchmark"], score["system"]
        name = f"score/{task}" if benchmark in ("", task) else f"score/{task}/{benchmark}"
        gap = f"{DIFFERENCE} to {system}" if system else DIFFERENCE
        for part, field in ((system or "before", "before"), ("after", "after"), (gap, DIFFERENCE)):
            if score[field] is not None:
                values[f"{name}/{score['language']}/{score['metric']}/{part}"] = round(score[field]["value"], 4)
    return values


def results_of(results: Mapping[str, Any], run_dir: Path) -> Results:
    """What a dashboard shows of a finished run, from the content of results.json and the files beside it."""
    summary = {**score_values(results["scores"]), **_filter_values(results["filters"])}
    summary |= {f"run/{name}": results[name] for name in ("seconds", "peak_memory_bytes")}
    reports = [path for path in (run_dir / "report.md", run_dir / "report.html") if path.exists()]
    tables = {
        "evaluation": [_score_row(score) for score in results["scores"]],
        "filters": [_filter_row(counts) for counts in results["filters"]],
        "steps": [_select(step, ("name", "what", "language", "seconds")) for step in results["steps"]],
        **{name: read_rows(run_dir / f"{name}.jsonl") for name in ("samples", "translations")},
    }
    return Results(summary, {name: _table(rows[:MOST_ROWS]) for name, rows in tables.items() if rows}, reports)


def _filter_values(filters: Rows) -> dict[str, float]:
    """The figures of each filter, and of all filters together."""
    total: Counter[str] = Counter()
    values: dict[str, float] = {}
    for step in filters:
        counts = filter_counts({"kept": step["kept"], **step["dropped"]})
        total.update(counts)
        values |= {f"{FILTER}/{step['what']}/{step['language'] or 'any'}/{name}": n for name, n in counts.items()}
    return values | {f"{FILTER}/all/{name}": n for name, n in total.items()}


def _score_row(score: Mapping[str, Any]) -> dict[str, Any]:
    row = _select(score, ("task", "benchmark", "language", "metric", "origin", "system"))
    for part in ("before", "after", DIFFERENCE):
        estimate = score[part] or {}
        row |= {part: estimate.get("value"), f"{part}_low": estimate.get("low"), f"{part}_high": estimate.get("high")}
    return {**row, "p": (score[DIFFERENCE] or {}).get("p"), "items": score["before"]["n"]}


def _filter_row(step: Mapping[str, Any]) -> dict[str, Any]:
    dropped = ", ".join(f"{reason} {count}" for reason, count in step["dropped"].items() if count)
    return {**_select(step, ("what", "language", "rows", "kept")), "dropped by reason": dropped}


def _select(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: row[name] for name in names}


def _table(rows: Rows) -> list[dict[str, Any]]:
    """All rows with all columns; a value that is neither text nor number becomes text."""
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: _plain(row.get(name)) for name in columns} for row in rows]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (int, float)):
        return value
    return escaped(value if isinstance(value, str) else "\n".join(map(str, value)))
