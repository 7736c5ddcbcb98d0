"""Tables and lines for the terminal, and tables in Markdown."""

import html
import sys
from collections.abc import Sequence
from typing import Any

import rich.console
from rich.table import Table
from rich.text import Text

from sdx.process.printable import escaped

LOG_WIDTH = 118
"""Columns of a table in a log."""


class Console(rich.console.Console):
    """Rich's, on which a text that others wrote, such as a model, can do nothing but be read."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(escaped(text), **options)


def console(log_width: int = LOG_WIDTH) -> Console:
    """As wide as the terminal, or as a log."""
    return Console(width=None if sys.stdout.isatty() else log_width, highlight=False, markup=False)


def duration(hours: float | None) -> str:
    """For people, in the unit that suits; empty below a tenth of a second."""
    if hours is None:
        return "?"
    if hours < 0.5 / 3600:
        return "<1 s" if hours > 0.1 / 3600 else ""
    for unit, size, below in (("s", 1 / 3600, 120 / 3600), ("min", 1 / 60, 2.0), ("h", 1.0, 100.0)):
        if hours < below:
            digits = 1 if unit == "h" else 0
            return f"{hours / size:.{digits}f} {unit}"
    return f"{hours / 24:.0f} days"


def short(count: float) -> str:
    """A count in at most five characters: 690, 9,500, 51.3k, 2.4M, 1.1B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if count >= size:
            unit = 1e3 if letter == "k" else size
            return f"{count / unit:.1f}{letter}"
    return f"{count:,.0f}"


NAME_WIDTH = 44
"""Of the first column of a wide table."""
BORDERS = 3
"""Characters that a column has beside its text."""


def table(rows: Sequence[Sequence[str]], columns: Sequence[tuple[str, str]]) -> str:
    """A table of cells in Markdown.

    Args:
        columns: name, and `left` or `right`.
    """
    lines = [
        "| " + " | ".join(name for name, _ in columns) + " |",
        "|" + "|".join("---:" if justify == "right" else "---" for _, justify in columns) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines)


def plain(text: str) -> str:
    """Any text as the content of one cell: what would end the cell, vanish as HTML or not be seen, is escaped."""
    shown = html.escape(escaped(text.strip()), quote=False).replace("\\", "\\\\").replace("|", "\\|")
    return "<br>".join(shown.splitlines())


def wide(console: Console, corner: str, heads: Sequence[Sequence[str]], rows: Sequence[Sequence[str]]) -> None:
    """Prints as many columns beside each other as the terminal has room for, the others in a table below.

    Args:
        corner: head of the first column, which names the rows.
        heads: the lines over each other column.
        rows: a name and the entries.
    """
    names = min(max(map(len, [*corner.split("\n"), *(row[0] for row in rows)])), NAME_WIDTH)
    widths = [max(map(len, [*head, *(row[number] for row in rows)])) for number, head in enumerate(heads, 1)]
    left = list(range(len(heads)))
    while left:
        room, taken = console.width - names - 2 * BORDERS, 0
        while taken < len(left) and (not taken or room >= widths[left[taken]] + BORDERS):
            room -= widths[left[taken]] + BORDERS
            taken += 1
        shown = Table(header_style="bold")
        shown.add_column(corner, max_width=NAME_WIDTH, overflow="fold")
        for number in left[:taken]:
            shown.add_column("\n".join(heads[number]), justify="right", no_wrap=True)
        for row in rows:
            shown.add_row(row[0], *(row[number + 1] for number in left[:taken]))
        console.print(shown)
        left = left[taken:]
