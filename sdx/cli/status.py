"""How a sweep is doing: `python -m sdx.status runs/` shows its runs until Ctrl-C; `--once` or a pipe, only once."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sdx import InputError
from sdx.cli.command import LOG_WIDTH, Parser, command, one_line

if TYPE_CHECKING:
    from rich.table import Table

    from sdx.sweeps.watch import RunStatus

DAY_S = 86400
HEADS = ("run", "state", "stage", "steps", "progress", "rate", "ETA", "job", "updated", "last error")
NUMBERS = ("steps", "progress", "rate", "ETA", "updated")
LEAST_IMPORTANT = ("job", "updated", "steps", "rate", "stage", "last error", "ETA", "progress")
"""Columns that a narrow terminal leaves out, in this order."""
BORDERS = 3
"""Characters of a column beside its text."""
ERROR_WIDTH = 30
"""Columns that errors get at least if they need them; a longer error is cut at the end of the line."""
STYLES = {"failed": "bold red", "lost": "red", "running": "green", "interrupted": "yellow", "queued": "cyan"}
FRAME = 7
"""Lines on the screen beside runs and files: borders, head, how many more, counts, cursor."""
MOST_FILES = 5
"""Files named on a live screen."""


@command()
def main() -> None:
    parser = Parser(prog="python -m sdx.status", description="Shows what the runs of a sweep do, until Ctrl-C.")
    parser.add_argument("directory", type=Path, metavar="RUNS_DIR", help="the runs_dir of a sweep, or one run's")
    parser.add_argument("--once", action="store_true", help="show the runs once, as if the output is no terminal")
    parser.add_argument("--interval", type=float, default=5.0, metavar="S", help="seconds between updates (default 5)")
    arguments = parser.parse_args()
    if not (0 < arguments.interval <= DAY_S):
        parser.error(f"--interval {arguments.interval:g} is out of range; give seconds, above 0 and up to a day")
    with suppress(KeyboardInterrupt):
        _show(arguments.directory, arguments.once, arguments.interval)


def _show(directory: Path, once: bool, interval_s: float) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from sdx.process.console import console as new_console
    from sdx.sweeps.watch import Watch

    if not directory.is_dir():
        raise InputError(f"{directory} is not a directory; give the runs_dir of your runs")
    console = new_console(LOG_WIDTH)
    watch = Watch(directory)
    runs = watch.look()
    if not runs:
        raise InputError(f"no run in {directory} or below; give the runs_dir of your runs")
    if once or not sys.stdout.isatty():
        console.print(_table(directory, runs, console.width))
        for line in (_counts(runs), *_files(runs)):
            console.print(line, soft_wrap=True)
        return
    with Live(console=console, auto_refresh=False) as screen:
        while True:
            files = _files(runs, MOST_FILES)
            room = max(1, console.height - FRAME - sum(1 + len(line) // console.width for line in files))
            more = [f"... and {len(runs) - room} more; a taller window shows them"] if len(runs) > room else []
            lines = [Text(line, overflow="fold") for line in (*more, _counts(runs), *files)]
            screen.update(Group(_table(directory, runs[:room], console.width), *lines), refresh=True)
            time.sleep(interval_s)
            runs = watch.look()


def _table(directory: Path, runs: Sequence["RunStatus"], width: int) -> "Table":
    """One line for each run, without empty columns and without those that do not fit."""
    from rich.table import Table
    from rich.text import Text

    rows = [_row(directory, run) for run in runs]
    heads = _fitting([head for head in HEADS if any(row[head] for row in rows)], rows, width)
    table = Table()
    for head in heads:
        table.add_column(head, justify="right" if head in NUMBERS else "left", no_wrap=head != "last error")
    for row in rows:
        styles = {"state": STYLES.get(row["state"], "")}
        table.add_row(*(Text(row[head], styles.get(head, ""), no_wrap=True, overflow="ellipsis") for head in heads))
    return table


def _row(directory: Path, run: "RunStatus") -> dict[str, str]:
    from sdx.tracking.state import describe

    name = directory.resolve().name if run.directory == directory else str(run.directory.relative_to(directory))
    row = dict.fromkeys(HEADS, "")
    if run.record is not None:
        row |= describe(run.record, run.age_s)
    if run.state.value not in ("running", "lost"):
        row |= {"rate": "", "ETA": ""}
    row |= {"run": name, "state": run.state.value, "job": run.job or "", "last error": run.note}
    return {head: one_line(text) for head, text in row.items()}


def _fitting(heads: Sequence[str], rows: Sequence[dict[str, str]], width: int) -> list[str]:
    """The columns that fit beside each other if errors are cut."""
    sizes = {head: max(len(head), *(len(row[head]) for row in rows)) + BORDERS for head in heads}
    if "last error" in sizes:
        sizes["last error"] = min(sizes["last error"], ERROR_WIDTH)
    for head in LEAST_IMPORTANT:
        if sum(sizes.values()) >= width:
            sizes.pop(head, None)
    return list(sizes)


def _counts(runs: Sequence["RunStatus"]) -> str:
    """`1 failed, 3 running`, in the order of the table."""
    return ", ".join(f"{count} {state}" for state, count in Counter(run.state.value for run in runs).items())


def _files(runs: Sequence["RunStatus"], most: int | None = None) -> list[str]:
    """A line for each run that ended badly, with the file that tells more."""
    from sdx.process.failure import ERROR

    lines = []
    for run in runs:
        error = run.directory / ERROR
        file = error if run.state.value == "failed" and error.exists() else run.log
        if run.state.value in ("failed", "lost") and file:
            lines.append(one_line(f"{run.state.value:<8} {file}"))
    rest = len(lines) - len(lines[:most])
    return [*lines[:most], *([f"... and {rest} more; --once names all"] if rest else [])]


if __name__ == "__main__":
    main()
