"""Tables in Markdown and in the terminal, and how their entries are written."""

import html
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from sdx.evaluation.statistics import Estimate
from sdx.printable import escaped

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


def plus_minus(estimate: Estimate) -> str:
    """`42.8 ±5.7`, the latter half of the interval."""
    return f"{estimate.value:.1f} ±{(estimate.high - estimate.low) / 2:.1f}"


def bracketed(gap: Estimate) -> str:
    """A difference behind an entry: ` (+21.8*)`, with * where its interval excludes 0."""
    return f" ({gap.value:+.1f}{'' if gap.low <= 0 <= gap.high else '*'})"


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
