"""How a sweep is doing: `python -m sdx.status runs/` shows its runs until Ctrl-C, `--once` or a pipe one time.

Nothing heavy is imported here: it answers at once.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from sdx.process import terminal
from sdx.process.printable import escaped

if TYPE_CHECKING:
    from rich.table import Table

    from sdx.sweeps.watch import RunStatus

DAY_S = 86400
LOG_WIDTH = 160
"""Columns where the output is no terminal."""
HEADS = ("run", "state", "stage", "steps", "progress", "rate", "ETA", "job", "updated", "last error")
NUMBERS = ("steps", "progress", "rate", "ETA", "updated")
LEAVE_FIRST = ("job", "updated", "steps", "rate", "stage", "last error", "ETA", "progress")
"""Columns that a narrow terminal does without, in this order."""
BORDERS = 3
"""Characters that a column has beside its text."""
ERROR_WIDTH = 30
"""Room that errors have at least if they need it; they are cut at the end of the line."""
STYLES = {"failed": "bold red", "lost": "red", "running": "green", "interrupted": "yellow", "queued": "cyan"}
FRAME = 7
"""Lines on the screen beside runs and files: borders, head, how many more, counts, cursor."""
MOST_FILES = 5
"""On a live screen."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(_fail(f"{message}; python -m sdx.status --help explains"))


def main() -> None:
    terminal.outlive()
    parser = _Parser(prog="python -m sdx.status", description="Shows what the runs of a sweep do, until Ctrl-C.")
    parser.add_argument("directory", type=Path, metavar="RUNS_DIR", help="the runs_dir of a sweep, or one run's")
    parser.add_argument("--once", action="store_true", help="show it once, as where the output is no terminal")
    parser.add_argument("--interval", type=float, default=5.0, metavar="S", help="seconds between looks (default 5)")
    arguments = parser.parse_args()
    if not (0 < arguments.interval <= DAY_S):
        parser.error(f"--interval {arguments.interval:g} cannot be waited for; give seconds, above 0 and up to a day")
    with suppress(KeyboardInterrupt):  # how one leaves it
        _show(arguments.directory, arguments.once, arguments.interval)


def _show(directory: Path, once: bool, interval_s: float) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from sdx.process.console import console as new_console
    from sdx.sweeps.watch import Watch

    if not directory.is_dir():
        sys.exit(_fail(f"{directory} is no directory; give the runs_dir of your runs"))
    live = sys.stdout.isatty() and not once
    console = new_console(LOG_WIDTH)
    watch = Watch(directory)
    runs = watch.look()
    if not runs:
        sys.exit(_fail(f"no run in {directory} or below; give the runs_dir of your runs"))
    if not live:
        console.print(table(directory, runs, console.width))
        for line in (counts(runs), *files(directory, runs)):
            console.print(line, soft_wrap=True)
        return
    with Live(console=console, auto_refresh=False) as screen:
        while True:
            named = files(directory, runs, MOST_FILES)
            room = max(1, console.height - FRAME - sum(1 + len(line) // console.width for line in named))
            more = [f"... and {len(runs) - room} more; a higher window shows them"] if len(runs) > room else []
            lines = [Text(line, overflow="fold") for line in (*more, counts(runs), *named)]
            screen.update(Group(table(directory, runs[:room], console.width), *lines), refresh=True)
            time.sleep(interval_s)
            runs = watch.look()


def table(directory: Path, runs: Sequence["RunStatus"], width: int) -> "Table":
    """One line a run; what has nothing to say is left out, and what tells least where it is narrow."""
    from rich.table import Table
    from rich.text import Text

    rows = [_row(directory, run) for run in runs]
    found = Table()
    shown = _fitting([head for head in HEADS if any(row[head] for row in rows)], rows, width)
    for head in shown:
        found.add_column(head, justify="right" if head in NUMBERS else "left", no_wrap=head != HEADS[-1])
    for row in rows:
        styles = [STYLES.get(row[head], "") if head == "state" else "" for head in shown]
        texts = [
            Text(row[head], style, no_wrap=True, overflow="ellipsis") for head, style in zip(shown, styles, strict=True)
        ]
        found.add_row(*texts)
    return found


def _row(directory: Path, run: "RunStatus") -> dict[str, str]:
    from sdx.tracking.state import describe

    told = dict.fromkeys(HEADS, "")
    if run.record is not None:
        told |= describe(run.record, run.age_s)
    if run.state.value not in ("running", "lost"):
        told |= {"rate": "", "ETA": ""}  # nothing moves
    told |= {
        "run": name_of(directory, run),
        "state": run.state.value,
        "job": run.job or "",
        "last error": run.note,
    }
    return {head: _plain(text) for head, text in told.items()}


def _fitting(heads: Sequence[str], rows: Sequence[dict[str, str]], width: int) -> list[str]:
    """The columns that have room beside each other, where errors are cut."""
    kept = list(heads)
    sizes = {head: max(len(head), *(len(row[head]) for row in rows)) + BORDERS for head in heads}
    if HEADS[-1] in sizes:
        sizes[HEADS[-1]] = min(sizes[HEADS[-1]], ERROR_WIDTH)
    for head in LEAVE_FIRST:
        if head in kept and sum(sizes[one] for one in kept) >= width:
            kept.remove(head)
    return kept


def counts(runs: Sequence["RunStatus"]) -> str:
    """`1 failed, 3 running`, in the order of the table."""
    return ", ".join(f"{count} {state}" for state, count in Counter(run.state.value for run in runs).items())


def files(directory: Path, runs: Sequence["RunStatus"], most: int | None = None) -> list[str]:
    """A line for each run that ended badly: where more is written about it."""
    from sdx.process.failure import ERROR

    lines = []
    for run in runs:
        error = run.directory / ERROR
        where = error if run.state.value == "failed" and error.exists() else run.log
        if run.state.value in ("failed", "lost") and where:
            lines.append(_plain(f"{run.state.value:<8} {where}"))
    rest = len(lines) - len(lines[:most])
    return [*lines[:most], *([f"... and {rest} more; --once names all"] if rest else [])]


def name_of(directory: Path, run: "RunStatus") -> str:
    """Its path below the directory; its own name where it is the directory."""
    return run.directory.resolve().name if run.directory == directory else str(run.directory.relative_to(directory))


def _plain(text: str) -> str:
    """One line that does nothing to a terminal."""
    return escaped(" ".join(text.split("\n")).replace("\t", " ").replace("\r", " "))


def _fail(message: str) -> int:
    print(f"sdx: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
