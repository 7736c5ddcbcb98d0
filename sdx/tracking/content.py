"""The end of a run as figures and tables, named alike for every dashboard.

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

RUN = "run"
"""Begins the names of figures of the process that finished the run."""
FILTER = "filter"
KEPT = "kept"
DIFFERENCE = "difference"
MOST_ROWS = 200
"""Of a table."""


@dataclass(frozen=True)
class Results:
    """What is known at the end of a run."""

    summary: Mapping[str, float]
    """Figures of the whole run by name."""
    tables: Mapping[str, Rows]
    """Rows of text and numbers, all rows of a table with the same columns."""
    reports: Sequence[Path]
    """Files to read."""

    @property
    def lasting(self) -> dict[str, float]:
        """The figures that are the same when the same command finds everything done."""
        return {name: value for name, value in self.summary.items() if not name.startswith(f"{RUN}/")}


def filter_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """What a filter step kept and dropped, from the counts of its manifest: rows by `<reason>_rows`."""
    return {"rows": sum(counts.values()), **{f"{reason}_rows": count for reason, count in counts.items()}}


def score_values(scores: Rows) -> dict[str, float]:
    """Scores by name, in percent or points of 100.

    Between the engine of a translation and the languages stands the benchmark that the texts are from. A system has
    `<system>` and `difference to <system>` in place of `before` and `difference`.

    Args:
        scores: as in results.json.
    """
    values = {}
    for one in scores:
        task = one["task"] if one["benchmark"] in ("", one["task"]) else f"{one['task']}/{one['benchmark']}"
        name, system = f"score/{task}/{one['language']}/{one['metric']}", one["system"]
        gap = f"{DIFFERENCE} to {system}" if system else DIFFERENCE
        for part, estimate in ((system or "before", one["before"]), ("after", one["after"]), (gap, one[DIFFERENCE])):
            if estimate is not None:
                values[f"{name}/{part}"] = round(estimate["value"], 4)
    return values


def results_of(results: Mapping[str, Any], run_dir: Path) -> Results:
    """What is shown of a finished run.

    Args:
        results: as in results.json.
        run_dir: has the samples and the report.
    """
    summary = {**score_values(results["scores"]), **_funnel(results["filters"])}
    summary |= {f"{RUN}/{name}": results[name] for name in ("seconds", "peak_memory_bytes")}
    reports = [path for path in (run_dir / "report.md", run_dir / "report.html") if path.exists()]
    tables = {
        "evaluation": [_score(one) for one in results["scores"]],
        "filters": [_filter(one) for one in results["filters"]],
        "steps": [_chosen(one, ("name", "what", "language", "seconds")) for one in results["steps"]],
        **{name: read_rows(run_dir / f"{name}.jsonl") for name in ("samples", "translations")},
    }
    return Results(summary, {name: _even(rows[:MOST_ROWS]) for name, rows in tables.items() if rows}, reports)


def _funnel(filters: Rows) -> dict[str, float]:
    """What each filter did, and all of them together."""
    total: Counter[str] = Counter()
    values: dict[str, float] = {}
    for one in filters:
        counts = filter_counts({KEPT: one[KEPT], **one["dropped"]})
        total.update(counts)
        values |= {f"{FILTER}/{one['what']}/{one['language'] or 'any'}/{what}": n for what, n in counts.items()}
    return {**values, **{f"{FILTER}/all/{what}": n for what, n in total.items()}}


def _score(one: Mapping[str, Any]) -> dict[str, Any]:
    row = _chosen(one, ("task", "benchmark", "language", "metric", "origin", "system"))
    for part in ("before", "after", DIFFERENCE):
        estimate = one[part] or {}
        row |= {part: estimate.get("value"), f"{part}_low": estimate.get("low"), f"{part}_high": estimate.get("high")}
    return {**row, "p": (one[DIFFERENCE] or {}).get("p"), "items": one["before"]["n"]}


def _filter(one: Mapping[str, Any]) -> dict[str, Any]:
    dropped = ", ".join(f"{reason} {count}" for reason, count in one["dropped"].items() if count)
    return {**_chosen(one, ("what", "language", "rows", KEPT)), "dropped by reason": dropped}


def _chosen(one: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: one[name] for name in names}


def _even(rows: Rows) -> list[dict[str, Any]]:
    """All rows with all columns; what is neither a text nor a number becomes a text."""
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: _plain(row.get(name)) for name in columns} for row in rows]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (int, float)):
        return value
    return escaped(value if isinstance(value, str) else "\n".join(map(str, value)))
