"""Tables in Markdown."""

import html
from collections.abc import Sequence


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
    """Any text as the content of one cell: what would end the cell, or vanish as HTML, is escaped."""
    escaped = html.escape(text.strip(), quote=False).replace("\\", "\\\\").replace("|", "\\|")
    return "<br>".join(escaped.splitlines())
