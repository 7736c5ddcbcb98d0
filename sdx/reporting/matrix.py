"""The systems of a run beside its method: a table for each metric of a benchmark, with a column for each language."""

from collections.abc import Sequence
from dataclasses import dataclass

from sdx.evaluation.scores import Score
from sdx.reporting.tables import bracketed, plus_minus

DIFFERENCES = ("benchmark", "language", "metric", "system", "n", "difference [95 %]", "p")
"""Columns of the table of differences."""


@dataclass(frozen=True)
class Matrix:
    task: str
    metric: str
    heads: list[tuple[str, str, str]]
    """Of each column the language, whose items they are, and how many."""
    rows: list[list[str]]
    """A name and the entries; the method comes last."""


def matrices(scores: Sequence[Score], method: str) -> list[Matrix]:
    """One for each metric of each benchmark that has scores of systems."""
    found: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        if score.system:
            found.setdefault((score.task, score.metric), []).append(score)
    return [_matrix(some, method) for some in found.values()]


def _matrix(scores: Sequence[Score], method: str) -> Matrix:
    """Of the scores of one metric."""
    systems = dict.fromkeys(score.system for score in scores)
    of = {(score.language, score.origin, score.system): score for score in scores}
    own = {(score.language, score.origin): score.after for score in scores if score.after}
    items = {(score.language, score.origin): (score.after or score.before).n for score in scores}
    rows = [[system, *(_entry(of.get((*place, system))) for place in items)] for system in systems]
    rows.append([method, *(plus_minus(own[place]) if place in own else "-" for place in items)])
    return Matrix(scores[0].task, scores[0].metric, [(*place, f"n={n}") for place, n in items.items()], rows)


def _entry(score: Score | None) -> str:
    """A system's own score, and in brackets what the method adds to it."""
    if score is None:
        return "-"
    return plus_minus(score.before) + (bracketed(score.difference) if score.difference else "")


def legend(method: str) -> str:
    return (
        f"± is half of the 95 % interval over the items; in brackets {method} minus that system, paired over the same "
        "items, with * where the 95 % interval of the difference excludes 0"
    )


def differences(scores: Sequence[Score]) -> list[list[str]]:
    """A row for each score of a system, see `DIFFERENCES`: the method minus that system."""
    return [
        [
            *(score.task, score.language, score.metric, score.system, str(gap.n)),
            f"{gap.value:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}]",
            "-" if gap.p is None else f"{gap.p:.2g}",
        ]
        for score in scores
        if score.system and (gap := score.difference)
    ]
