"""The systems of a run beside its method: a table for each metric of a benchmark, with a column for each language."""

from collections.abc import Sequence
from dataclasses import dataclass

from sdx.evaluation.scores import Score
from sdx.reporting.tables import in_brackets, plus_minus, with_interval

DIFFERENCES = ("benchmark", "language", "metric", "system", "n", "difference [95 %]", "p")
"""Columns of the table of differences."""


@dataclass(frozen=True)
class Matrix:
    task: str
    metric: str
    heads: list[tuple[str, str, str]]
    """For each column its language, the origin of the items, and their number."""
    rows: list[list[str]]
    """A name and its scores; the method comes last."""


def matrices(scores: Sequence[Score], method: str) -> list[Matrix]:
    """One for each metric of each benchmark that has scores of systems."""
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        if score.system:
            groups.setdefault((score.task, score.metric), []).append(score)
    made = []
    for names, group in groups.items():
        rows: dict[str, dict[tuple[str, str], str]] = {}
        own, items = {}, {}
        for score in group:
            column = score.language, score.origin
            gap = in_brackets(score.difference) if score.difference else ""
            rows.setdefault(score.system, {})[column] = plus_minus(score.before) + gap
            items[column] = (score.after or score.before).n
            if score.after:
                own[column] = plus_minus(score.after)
        heads = [(*column, f"n={n}") for column, n in items.items()]
        texts = [[name, *(row.get(c, "-") for c in items)] for name, row in [*rows.items(), (method, own)]]
        made.append(Matrix(*names, heads, texts))
    return made


def legend(method: str) -> str:
    return (
        f"± is half of the 95 % interval over the items; in brackets {method} minus that system, paired over the same "
        "items, with * where the 95 % interval of the difference excludes 0"
    )


def differences(scores: Sequence[Score]) -> list[list[str]]:
    """The method minus each system, a row for each score of a system."""
    return [
        [
            *(score.task, score.language, score.metric, score.system, str(gap.n), with_interval(gap)),
            "-" if gap.p is None else f"{gap.p:.2g}",
        ]
        for score in scores
        if score.system and (gap := score.difference)
    ]
