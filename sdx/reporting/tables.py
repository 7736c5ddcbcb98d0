"""Tables in Markdown and in the terminal, and how their entries are written."""

from sdx.evaluation.statistics import Estimate


def plus_minus(estimate: Estimate) -> str:
    """`42.8 ±5.7`, the latter half of the interval."""
    return f"{estimate.value:.1f} ±{(estimate.high - estimate.low) / 2:.1f}"


def bracketed(gap: Estimate) -> str:
    """A difference behind an entry: ` (+21.8*)`, with * where its interval excludes 0."""
    return f" ({gap.value:+.1f}{'' if gap.low <= 0 <= gap.high else '*'})"
