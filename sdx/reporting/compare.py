"""Several runs in one table: a row for each, a column for each benchmark, language and metric."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from sdx import InputError
from sdx.process.console import console as new_console
from sdx.process.console import plain, wide
from sdx.process.disk import writing
from sdx.process.printable import escaped
from sdx.process.secret import scrub
from sdx.reporting import paired
from sdx.reporting.baselines import assign
from sdx.reporting.finished import FinishedRun, column_of, name_parts, read_runs
from sdx.reporting.rows import ComparedRun, rows, systems
from sdx.reporting.tables import markdown_table
from sdx.store.run_dir import RESULTS


def compare(paths: Sequence[Path], baseline: str | None = None) -> None:
    """Prints the table of the runs in and below `paths`, and writes comparison.md and comparison.csv.

    The files go into the first path, or beside it if it is a run itself. Raises InputError without a finished run.

    Args:
        baseline: names the runs that the others are compared with, see `sdx.reporting.baselines`.
    """
    finished, warnings = read_runs(paths)
    warn(warnings)
    if not finished:
        given = " ".join(map(str, paths))
        raise InputError(f"no finished run in {given}: no {RESULTS} there or below; give the runs_dir of your runs")
    first = paths[0]
    runs, warnings = compared(finished, baseline)
    warn(warnings)
    publish(runs, first if not (first / RESULTS).exists() else first.resolve().parent)


def warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        print(f"sdx: warning: {warning}", file=sys.stderr)


def compared(finished: Sequence[FinishedRun], baseline: str | None) -> tuple[list[ComparedRun], list[str]]:
    """The runs with their names and, if a baseline is given, their differences to it; and warnings."""
    runs = [ComparedRun(run, parts) for run, parts in zip(finished, name_parts(finished), strict=True)]
    if baseline is None:
        return runs, []
    baselines, warnings = assign(baseline, [run.parts for run in runs])
    items = {number: paired.read(finished[number].directory) for number in {*baselines, *baselines.values()}}
    for number, match in baselines.items():
        run = runs[number]
        run.baseline = runs[match]
        for column in items[number].keys() & items[match].keys() & run.own.keys():
            if gap := paired.difference(items[match][column], items[number][column], column[2]):
                run.gaps[column] = gap
    if lacking := [runs[number].label for number in sorted(items) if runs[number].own.keys() - items[number].keys()]:
        warnings.append(
            f"{paired.ITEMS} is missing, damaged or of another version, which leaves out the differences of "
            f"{', '.join(lacking)}; start these runs again; their steps are cached"
        )
    return runs, warnings


def publish(runs: Sequence[ComparedRun], directory: Path) -> None:
    """Prints the comparison and writes it into a directory."""
    columns = list(dict.fromkeys(column_of(score) for run in runs for score in run.finished.scores))
    triples = [column[:3] for column in columns]
    # The origin of the items, only if a column differs from another in nothing else.
    heads = [column[:3] if triples.count(column[:3]) == 1 else column for column in columns]
    texts = [[name, *(texts.get(column, "-") for column in columns)] for name, texts in rows(runs)]
    legend = _legend(runs)
    names = [", ".join(head) for head in heads]
    markdown = markdown_table(["run", *names], [[plain(text) for text in row] for row in texts], names)
    directories = "\n".join(f"- {run.label}: `{run.finished.directory}`" for run in runs)
    console = new_console()
    console.print()
    wide(console, "run", heads, texts)
    for line in legend:
        console.print(line, style="dim")
    with writing(directory):
        content = "\n\n".join(["# Comparison", markdown, *legend, directories])
        (directory / "comparison.md").write_text(escaped(scrub(content)) + "\n", encoding="utf-8")
        _write_csv(directory / "comparison.csv", runs)
    print(f"table    {directory / 'comparison.md'}, {directory / 'comparison.csv'}")


def _legend(runs: Sequence[ComparedRun]) -> list[str]:
    lines = [
        "Percent (chrF++ and BLEU: points of 100) after training, of the untouched model where nothing was trained; "
        "± is half of the 95 % interval over the items, of a mean the standard deviation over the seeds."
    ]
    if systems(runs):
        lines.append("After | stands another system that runs were compared with; equal scores share a row.")
    if names := list(dict.fromkeys(run.baseline.label for run in runs if run.baseline)):
        which = " or ".join(names) if len(names) < 3 else f"its own of {len(names)} baselines (see comparison.csv)"
        lines.append(
            f"In brackets the difference to {which}, paired over the same items; * its 95 % interval excludes 0."
        )
    return lines


def _write_csv(path: Path, runs: Sequence[ComparedRun]) -> None:
    """A line for each run and score, in full precision; `before` is the score of the system, if one is named."""
    about = ["run", "method", "backbone", "seed", "directory", "task", "language", "metric", "items", "system", "n"]
    moments = ("before", "after", "difference")
    sides = [f"{moment}{end}" for moment in moments for end in ("", "_low", "_high")]
    against = ["baseline", "to_baseline", "to_baseline_low", "to_baseline_high", "to_baseline_p"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*about, *sides, *against])
        for run in runs:
            config, directory = run.finished.config, run.finished.directory
            names = [run.label, *(config[group]["name"] for group in ("method", "backbone")), config["seed"], directory]
            for score in run.finished.scores:
                gap = run.gaps.get(column_of(score))
                values = [(score[moment] or {}).get(end, "") for moment in moments for end in ("value", "low", "high")]
                writer.writerow(
                    [*names, *column_of(score), score["system"], score["before"]["n"], *values]
                    + [run.baseline.label if run.baseline else ""]
                    + ([gap.value, gap.low, gap.high, gap.p] if gap else [""] * 4)
                )
