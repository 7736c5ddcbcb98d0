"""How a score and a difference are written, and tables in Markdown."""

from collections.abc import Collection, Sequence

from sdx.evaluation.statistics import Estimate
from sdx.process.console import table


def plus_minus(score: Estimate) -> str:
    """`42.8 ±5.7`, with half of the interval."""
    return f"{score.value:.1f} ±{(score.high - score.low) / 2:.1f}"


def direction(gap: Estimate | None) -> int:
    """1 or -1 if the interval of a difference excludes 0, else 0."""
    return (gap.low > 0) - (gap.high < 0) if gap else 0


def in_brackets(gap: Estimate) -> str:
    """` (+21.8*)`, with * if the interval excludes 0."""
    return f" ({gap.value:+.1f}{'*' if direction(gap) else ''})"


def with_interval(gap: Estimate) -> str:
    """`+21.8 [+10.2, +33.4]`."""
    return f"{gap.value:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}]"


def markdown_table(names: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str] = ()) -> str:
    """A table in Markdown whose columns in `right` are right-aligned."""
    return table(rows, [(name, "right" if name in right else "left") for name in names])
