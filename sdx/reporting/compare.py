"""Several runs in one table: a row for each, a column for each benchmark, language and metric."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from sdx import InputError
from sdx.process.console import console as new_console
from sdx.process.console import plain, table, wide
from sdx.process.disk import writing
from sdx.process.printable import escaped
from sdx.process.secret import scrub
from sdx.reporting import paired
from sdx.reporting.baselines import assign
from sdx.reporting.finished import Column, Finished, column_of, distinct, find
from sdx.reporting.rows import Entry, rows
from sdx.store.run_dir import RESULTS


def compare(paths: Sequence[Path], baseline: str | None = None) -> None:
    """Prints the table of the runs in and below `paths`; writes comparison.md and comparison.csv.

    The files go into the first path, or beside it where it is a run itself.

    Args:
        baseline: which runs the others are compared with, see `sdx.reporting.baselines`.

    Raises:
        InputError: there is no finished run, or none is called like the baseline.
    """
    runs, warnings = find(paths)
    _warn(warnings)
    if not runs:
        given = " ".join(map(str, paths))
        raise InputError(f"no finished run in {given}: no {RESULTS} there or below; give the runs_dir of your runs")
    first = paths[0]
    found, warnings = entries(runs, baseline)
    _warn(warnings)
    publish(found, first if not (first / RESULTS).exists() else first.resolve().parent)


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        print(f"sdx: warning: {warning}", file=sys.stderr)


def entries(runs: Sequence[Finished], baseline: str | None) -> tuple[list[Entry], list[str]]:
    """The runs with their names and, where a baseline is given, their differences to it; and warnings.

    Raises:
        InputError: no run is called like the baseline.
    """
    made = [Entry(run, parts) for run, parts in zip(runs, distinct(runs), strict=True)]
    if baseline is None:
        return made, []
    found = assign(baseline, [entry.parts for entry in made])
    if not found.matches:
        names = "; ".join(entry.label for entry in made)
        raise InputError(f"baseline {baseline!r} is no run; give a part of one of these names: {names}")
    warnings = [found.warning] if found.warning else []
    items = {number: paired.read(made[number].run.directory) for number in {*found.of, *found.of.values()}}
    for number, match in found.of.items():
        entry = made[number]
        entry.baseline = made[match]
        for where in items[number].keys() & items[match].keys() & entry.own.keys():
            if gap := paired.difference(items[match][where], items[number][where], where[2]):
                entry.gaps[where] = gap
    if torn := [made[number].label for number in sorted(items) if made[number].own.keys() - items[number].keys()]:
        warnings.append(
            f"{paired.ITEMS} is not there, damaged or of another version, which leaves out differences of "
            f"{', '.join(torn)}; run these runs again, from the cache"
        )
    return made, warnings


def publish(found: Sequence[Entry], directory: Path) -> None:
    """Prints the comparison and writes it into a directory."""
    columns = list(dict.fromkeys(column_of(score) for entry in found for score in entry.run.scores))
    heads = [_head(column, columns) for column in columns]
    texts = [[name, *(texts.get(column, "-") for column in columns)] for name, texts in rows(found, columns)]
    legend = _legend(found)
    markdown = table(
        [[plain(text) for text in row] for row in texts],
        [("run", "left"), *((", ".join(head), "right") for head in heads)],
    )
    places = "\n".join(f"- {entry.label}: `{entry.run.directory}`" for entry in found)
    parts = ["# Comparison", markdown, *legend, places]
    console = new_console()
    console.print()
    wide(console, "run", heads, texts)
    for line in legend:
        console.print(line, style="dim")
    with writing(directory):
        (directory / "comparison.md").write_text(escaped(scrub("\n\n".join(parts))) + "\n", encoding="utf-8")
        _write_csv(directory / "comparison.csv", found)
    print(f"table    {directory / 'comparison.md'}, {directory / 'comparison.csv'}")


def _head(column: Column, columns: Sequence[Column]) -> list[str]:
    """Task, language and metric; whose items they are where there are others, too."""
    alone = sum(other[:3] == column[:3] for other in columns) == 1
    return list(column[:3] if alone else column)


def _legend(found: Sequence[Entry]) -> list[str]:
    lines = [
        "Percent (chrF++ and BLEU: points of 100) after training, of the untouched model where nothing was trained; "
        "± is half of the 95 % interval over the items, of a mean the standard deviation over the seeds."
    ]
    if any(entry.systems for entry in found):
        lines.append("Behind | stands another system that runs were compared with; one row where its scores agree.")
    if names := list(dict.fromkeys(entry.baseline.label for entry in found if entry.baseline)):
        which = " or ".join(names) if len(names) < 3 else f"its own of {len(names)} baselines (see comparison.csv)"
        lines.append(
            f"In brackets the difference to {which}, paired over the same items; * its 95 % interval excludes 0."
        )
    return lines


def _write_csv(path: Path, found: Sequence[Entry]) -> None:
    """A line for each run and score, in full precision; `before` is of the system, if one is named."""
    names = ["run", "method", "backbone", "seed", "directory", "task", "language", "metric", "items", "system", "n"]
    sides = [f"{moment}{end}" for moment in ("before", "after", "difference") for end in ("", "_low", "_high")]
    against = ["baseline", "to_baseline", "to_baseline_low", "to_baseline_high", "to_baseline_p"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, *sides, *against])
        for entry in found:
            config = entry.run.config
            about = [entry.label, config["method"]["name"], entry.run.backbone, config["seed"], entry.run.directory]
            for score in entry.run.scores:
                column, system = column_of(score), score["system"]
                values = [
                    score[moment][name] if score[moment] else ""
                    for moment in ("before", "after", "difference")
                    for name in ("value", "low", "high")
                ]
                gap, other = entry.gaps.get(column), entry.baseline.label if entry.baseline else ""
                to_other = [gap.value, gap.low, gap.high, gap.p] if gap else ["", "", "", ""]
                writer.writerow([*about, *column, system, score["before"]["n"], *values, other, *to_other])
