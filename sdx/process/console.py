"""Tables and numbers for the terminal and for Markdown."""

import html
import sys
from collections.abc import Sequence
from typing import Any

import rich.console
from rich.table import Table
from rich.text import Text

from sdx.process.printable import escaped

NAME_WIDTH = 44
"""Longest first column of a wide table, in characters."""
BORDERS = 3
"""Characters of a column beside its text."""


class Console(rich.console.Console):
    """Escapes what foreign texts, such as a model's, could do to the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(escaped(text), **options)


def console(log_width: int = 118) -> Console:
    """As wide as the terminal, or `log_width` columns in a log."""
    return Console(width=None if sys.stdout.isatty() else log_width, highlight=False, markup=False)


def duration(hours: float | None) -> str:
    """In the unit that suits; empty below a tenth of a second, `?` if unknown."""
    if hours is None:
        return "?"
    seconds = hours * 3600
    if seconds < 0.5:
        return "<1 s" if seconds > 0.1 else ""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if hours < 2:
        return f"{hours * 60:.0f} min"
    return f"{hours:.1f} h" if hours < 100 else f"{hours / 24:.0f} days"


def short(count: float) -> str:
    """A count in at most five characters: 690, 9,500, 51.3k, 2.4M, 1.1B."""
    for least, unit, letter in ((1e9, 1e9, "B"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if count >= least:
            return f"{count / unit:.1f}{letter}"
    return f"{count:,.0f}"


def table(rows: Sequence[Sequence[str]], columns: Sequence[tuple[str, str]]) -> str:
    """A table in Markdown; each column has a name, and is `left` or `right`."""
    rules = ["---:" if justify == "right" else "---" for _, justify in columns]
    head, *body = [f"| {' | '.join(line)} |" for line in ([name for name, _ in columns], *rows)]
    return "\n".join([head, f"|{'|'.join(rules)}|", *body])


def plain(text: str) -> str:
    """A text as the content of one Markdown cell: characters that would end the cell or be invisible are escaped."""
    shown = html.escape(escaped(text.strip()), quote=False).replace("\\", "\\\\").replace("|", "\\|")
    return "<br>".join(shown.splitlines())


def wide(console: Console, corner: str, heads: Sequence[Sequence[str]], rows: Sequence[Sequence[str]]) -> None:
    """Prints as many columns side by side as fit the terminal, and the others in further tables below.

    `corner` heads the first column, which names the rows; `heads` are the lines above each other column; a row is a
    name and its entries.
    """
    names = min(max(map(len, [*corner.split("\n"), *(row[0] for row in rows)])), NAME_WIDTH)
    widths = [max(map(len, [*head, *(row[number] for row in rows)])) for number, head in enumerate(heads, 1)]
    first = 0
    while first < len(heads):
        room, end = console.width - names - 2 * BORDERS, first
        while end < len(heads) and (end == first or room >= widths[end] + BORDERS):
            room -= widths[end] + BORDERS
            end += 1
        shown = Table(header_style="bold")
        shown.add_column(corner, max_width=NAME_WIDTH, overflow="fold")
        for head in heads[first:end]:
            shown.add_column("\n".join(head), justify="right", no_wrap=True)
        for row in rows:
            shown.add_row(row[0], *row[first + 1 : end + 1])
        console.print(shown)
        first = end
