"""Several cells in one table: a row for each, a column for each benchmark, language and metric."""

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from sdx.config import InputError
from sdx.evaluation.statistics import Estimate
from sdx.reporting import paired
from sdx.reporting.baselines import assign
from sdx.reporting.cells import RESULTS, Column, Finished, Part, column_of, distinct, find, label
from sdx.reporting.tables import plain, table

LOG_WIDTH = 118
LABEL_WIDTH = 44
BORDERS = 3
"""Characters that a column has beside its text."""


@dataclass
class Entry:
    """A cell among the others."""

    cell: Finished
    parts: tuple[Part, ...]
    scores: dict[Column, dict[str, Any]]
    baseline: "Entry | None" = None
    gaps: dict[Column, Estimate] = field(default_factory=dict)
    """After training minus the baseline's, in points of 100, paired over the same items."""

    @property
    def label(self) -> str:
        return label(self.parts)


Rows = list[tuple[str, dict[Column, str]]]
"""Name of a row, and its texts."""


def compare(paths: Sequence[Path], baseline: str | None = None) -> None:
    """Prints the table of the cells in and below `paths`; writes comparison.md and comparison.csv.

    The files go into the first path, or beside it where it is a cell itself.

    Args:
        baseline: which cells the others are compared with, see `sdx.reporting.baselines`.

    Raises:
        InputError: there is no finished cell, or none is called like the baseline.
    """
    cells, warnings = find(paths)
    _warn(warnings)
    if not cells:
        given = " ".join(map(str, paths))
        raise InputError(f"no finished cell in {given}: no {RESULTS} there or below; give the runs_dir of your runs")
    first = paths[0]
    found, warnings = entries(cells, baseline)
    _warn(warnings)
    publish(found, first if not (first / RESULTS).exists() else first.resolve().parent)


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        print(f"sdx: warning: {warning}", file=sys.stderr)


def entries(cells: Sequence[Finished], baseline: str | None) -> tuple[list[Entry], list[str]]:
    """The cells with their names and, where a baseline is given, their differences to it; and warnings.

    Raises:
        InputError: no cell is called like the baseline.
    """
    made = []
    for cell, parts in zip(cells, distinct(cells), strict=True):
        made.append(Entry(cell, parts, {column_of(score): dict(score) for score in cell.scores}))
    if baseline is None:
        return made, []
    found = assign(baseline, [entry.parts for entry in made])
    if not found.hits:
        names = "; ".join(entry.label for entry in made)
        raise InputError(f"baseline {baseline!r} is no cell; give a part of one of these names: {names}")
    warnings = [found.warning] if found.warning else []
    items = {number: paired.read(made[number].cell.directory) for number in {*found.of, *found.of.values()}}
    for number, hit in found.of.items():
        entry = made[number]
        entry.baseline = made[hit]
        for where in items[number].keys() & items[hit].keys() & entry.scores.keys():
            if gap := paired.difference(items[hit][where], items[number][where], where[2]):
                entry.gaps[where] = gap
    if torn := [made[number].label for number in sorted(items) if made[number].scores.keys() - items[number].keys()]:
        warnings.append(
            f"{paired.ITEMS} is not there, damaged or of another version, which leaves out differences of "
            f"{', '.join(torn)}; run these cells again, from the cache"
        )
    return made, warnings


def publish(found: Sequence[Entry], directory: Path) -> None:
    """Prints the comparison and writes it into a directory."""
    columns = list(dict.fromkeys(column for entry in found for column in entry.scores))
    heads = [_head(column, columns) for column in columns]
    rows = [*_before(found, columns), *_cells(found), *_means(found, columns)]
    texts = [[name, *(texts.get(column, "-") for column in columns)] for name, texts in rows]
    legend = _legend(found)
    markdown = table(
        [[plain(text) for text in row] for row in texts],
        [("cell", "left"), *((", ".join(head), "right") for head in heads)],
    )
    places = "\n".join(f"- {entry.label}: `{entry.cell.directory}`" for entry in found)
    parts = ["# Comparison", markdown, *legend, places]
    (directory / "comparison.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    _write_csv(directory / "comparison.csv", found)
    _print(texts, heads, legend)
    print(f"table    {directory / 'comparison.md'}, {directory / 'comparison.csv'}")


def _head(column: Column, columns: Sequence[Column]) -> list[str]:
    """Task, language and metric; whose items they are where there are others, too."""
    alone = sum(other[:3] == column[:3] for other in columns) == 1
    return list(column[:3] if alone else column)


def _text(estimate: dict[str, Any]) -> str:
    return f"{estimate['value']:.1f} ±{(estimate['high'] - estimate['low']) / 2:.1f}"


def _before(found: Sequence[Entry], columns: Sequence[Column]) -> Rows:
    """The untouched models, a row for each backbone. Cells may have measured it in several ways."""
    backbones = dict.fromkeys(entry.cell.backbone for entry in found)
    rows: Rows = []
    for backbone in backbones:
        alike = [entry for entry in found if entry.cell.backbone == backbone]
        texts = {
            column: {_text(one.scores[column]["before"]) for one in alike if column in one.scores} for column in columns
        }
        name = "before" if len(backbones) == 1 else f"before, {backbone}"
        rows.append((name, {c: some.pop() if len(some) == 1 else "varies" for c, some in texts.items() if some}))
    return rows


def _cells(found: Sequence[Entry]) -> Rows:
    rows: Rows = []
    for entry in found:
        texts = {}
        for column, score in entry.scores.items():
            texts[column] = _text(score["after"] or score["before"])
            if gap := entry.gaps.get(column):
                texts[column] += f" ({gap.value:+.1f}{'' if gap.low <= 0 <= gap.high else '*'})"
        rows.append((entry.label, texts))
    return rows


def _means(found: Sequence[Entry], columns: Sequence[Column]) -> Rows:
    """A row for the cells that differ in nothing but the seed. Without training a seed changes nothing."""
    groups: dict[tuple[Part, ...], list[Entry]] = {}
    for entry in found:
        groups.setdefault(tuple(part for part in entry.parts if part[0] != "seed"), []).append(entry)
    rows: Rows = []
    for parts, alike in groups.items():
        if len(alike) < 2:
            continue
        texts = {}
        for column in columns:
            trained = [entry.scores[column]["after"] for entry in alike if column in entry.scores]
            values = [estimate["value"] for estimate in trained if estimate]
            if len(values) > 1:
                texts[column] = f"{fmean(values):.1f} ±{stdev(values):.1f}"
        if texts:
            rows.append((f"{label(parts)}, mean of {len(alike)} seeds", texts))
    return rows


def _legend(found: Sequence[Entry]) -> list[str]:
    lines = [
        "Percent (chrF++ and BLEU: points of 100) after training, of the untouched model where nothing was trained; "
        "± is half of the 95 % interval over the items, of a mean the standard deviation over the seeds."
    ]
    if names := list(dict.fromkeys(entry.baseline.label for entry in found if entry.baseline)):
        which = " or ".join(names) if len(names) < 3 else f"its own of {len(names)} baselines (see comparison.csv)"
        lines.append(
            f"In brackets the difference to {which}, paired over the same items; * its 95 % interval excludes 0."
        )
    return lines


def _print(texts: Sequence[Sequence[str]], heads: Sequence[Sequence[str]], legend: Sequence[str]) -> None:
    """As many columns beside each other as the terminal has room for, the others in a table below."""
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH, highlight=False, markup=False)
    names = min(max(len(row[0]) for row in texts), LABEL_WIDTH)
    widths = [max(map(len, [*head, *(row[number] for row in texts)])) for number, head in enumerate(heads, 1)]
    console.print()
    left = list(range(len(heads)))
    while left:
        room, taken = console.width - names - 2 * BORDERS, 0
        while taken < len(left) and (not taken or room >= widths[left[taken]] + BORDERS):
            room -= widths[left[taken]] + BORDERS
            taken += 1
        shown = Table(header_style="bold")
        shown.add_column("cell", max_width=LABEL_WIDTH, overflow="fold")
        for number in left[:taken]:
            shown.add_column("\n".join(heads[number]), justify="right", no_wrap=True)
        for row in texts:
            shown.add_row(row[0], *(row[number + 1] for number in left[:taken]))
        console.print(shown)
        left = left[taken:]
    for line in legend:
        console.print(line, style="dim")


def _write_csv(path: Path, found: Sequence[Entry]) -> None:
    """A line for each cell and score, in full precision."""
    names = ["cell", "method", "backbone", "seed", "directory", "task", "language", "metric", "items", "n"]
    sides = [f"{moment}{end}" for moment in ("before", "after", "difference") for end in ("", "_low", "_high")]
    against = ["baseline", "to_baseline", "to_baseline_low", "to_baseline_high", "to_baseline_p"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, *sides, *against])
        for entry in found:
            config = entry.cell.config
            about = [entry.label, config["method"]["name"], entry.cell.backbone, config["seed"], entry.cell.directory]
            for column, score in entry.scores.items():
                values = [
                    score[moment][name] if score[moment] else ""
                    for moment in ("before", "after", "difference")
                    for name in ("value", "low", "high")
                ]
                gap, other = entry.gaps.get(column), entry.baseline.label if entry.baseline else ""
                to_other = [gap.value, gap.low, gap.high, gap.p] if gap else ["", "", "", ""]
                writer.writerow([*about, *column, score["before"]["n"], *values, other, *to_other])
