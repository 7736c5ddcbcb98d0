"""The rows of a comparison: the untouched models, the runs, the systems of the runs, and means over seeds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from sdx.evaluation.statistics import Estimate
from sdx.reporting.finished import Column, FinishedRun, Part, column_of, label
from sdx.reporting.tables import in_brackets, plus_minus

Scores = dict[Column, Estimate]
Rows = list[tuple[str, dict[Column, str]]]
"""Name of a row, and its texts."""


@dataclass
class ComparedRun:
    finished: FinishedRun
    parts: tuple[Part, ...]
    baseline: "ComparedRun | None" = None
    gaps: Scores = field(default_factory=dict)
    """The run's score minus the baseline's, in points of 100, paired over the same items."""
    before: dict[str, Scores] = field(default_factory=dict)
    """Scores of each other system, and under "" of the untouched model."""
    after: Scores = field(default_factory=dict)
    """Scores of the trained model."""

    def __post_init__(self) -> None:
        for score in self.finished.scores:
            column = column_of(score)
            self.before.setdefault(score["system"], {})[column] = _estimate(score["before"])
            if score["after"]:
                self.after[column] = _estimate(score["after"])

    @property
    def label(self) -> str:
        return label(self.parts)

    @property
    def own(self) -> Scores:
        """Scores of the trained model, or of the untouched model if nothing was trained."""
        return self.before.get("", {}) | self.after


def _estimate(values: Mapping[str, Any]) -> Estimate:
    return Estimate(values["value"], values["low"], values["high"], values["n"])


def rows(runs: Sequence[ComparedRun]) -> Rows:
    """All rows, in the order of the table."""
    return [*_before(runs), *_own(runs), *_systems(runs), *_means(runs)]


def _before(runs: Sequence[ComparedRun]) -> Rows:
    """The untouched models, a row for each backbone; several runs may have scored the same backbone differently."""
    texts: dict[str, dict[Column, str]] = {}
    for run in runs:
        for column, score in run.before.get("", {}).items():
            row, text = texts.setdefault(run.finished.config["backbone"]["name"], {}), plus_minus(score)
            if row.setdefault(column, text) != text:
                row[column] = "varies"
    return [("before" if len(texts) == 1 else f"before, {backbone}", row) for backbone, row in texts.items()]


def _own(runs: Sequence[ComparedRun]) -> Rows:
    made: Rows = []
    for run in runs:
        brackets = {column: in_brackets(gap) for column, gap in run.gaps.items()}
        texts = {column: plus_minus(score) + brackets.get(column, "") for column, score in run.own.items()}
        made.append((run.label, texts))
    return made


def _systems(runs: Sequence[ComparedRun]) -> Rows:
    """A row for each system of each run, and a single row for runs whose system has the same scores.

    A single row is named by what its runs have in common, unless a run with other scores has that, too.
    """
    made: Rows = []
    for system in systems(runs):
        with_system = [run for run in runs if system in run.before]
        groups: dict[tuple[tuple[Column, str], ...], list[ComparedRun]] = {}
        for run in with_system:
            texts = sorted((column, plus_minus(score)) for column, score in run.before[system].items())
            groups.setdefault(tuple(texts), []).append(run)
        for key, group in groups.items():
            common = [part for part in group[0].parts if all(part in run.parts for run in group)]
            is_unique = sum({*common} <= {*run.parts} for run in with_system) == len(group)
            names = [common] if is_unique else [run.parts for run in group]
            made += [(_named(parts, system), dict(key)) for parts in names]
    return made


def systems(runs: Iterable[ComparedRun]) -> list[str]:
    """Names of the other systems of the runs, each once."""
    return list(dict.fromkeys(system for run in runs for system in run.before if system))


def _named(parts: Sequence[Part], system: str) -> str:
    return " | ".join(filter(None, (label(parts), system)))


def _means(runs: Sequence[ComparedRun]) -> Rows:
    """A row for runs that differ in nothing but the seed; none for a system that is the same for all seeds."""
    groups: dict[tuple[Part, ...], list[ComparedRun]] = {}
    for run in runs:
        groups.setdefault(tuple(part for part in run.parts if part[0] != "seed"), []).append(run)
    made: Rows = []
    for parts, group in groups.items():
        for system in ("", *systems(group)):
            scores = [run.before.get(system, {}) if system else run.after for run in group]
            varies = not system or any(one != scores[0] for one in scores)
            if varies and (texts := _mean(scores)):
                made.append((f"{_named(parts, system)}, mean of {len(group)} seeds", texts))
    return made


def _mean(scores: Sequence[Scores]) -> dict[Column, str]:
    """Mean and standard deviation of the columns that several seeds have."""
    values: dict[Column, list[float]] = {}
    for column, score in (item for one in scores for item in one.items()):
        values.setdefault(column, []).append(score.value)
    return {column: f"{fmean(some):.1f} ±{stdev(some):.1f}" for column, some in values.items() if len(some) > 1}
