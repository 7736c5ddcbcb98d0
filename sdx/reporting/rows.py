"""The rows of a comparison: the untouched models, the runs, the systems of the runs, and means over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

from sdx.evaluation.statistics import Estimate
from sdx.reporting.finished import Column, Finished, Part, column_of, label
from sdx.reporting.tables import bracketed, plus_minus

Rows = list[tuple[str, dict[Column, str]]]
"""Name of a row, and its texts."""


@dataclass
class Entry:
    """A run among the others."""

    run: Finished
    parts: tuple[Part, ...]
    baseline: "Entry | None" = None
    gaps: dict[Column, Estimate] = field(default_factory=dict)
    """The own model's score minus the baseline's, in points of 100, paired over the same items."""

    @property
    def label(self) -> str:
        return label(self.parts)

    @cached_property
    def before(self) -> dict[Column, Estimate]:
        """Scores of the untouched model."""
        return {column_of(score): _estimate(score["before"]) for score in self.run.scores if not score["system"]}

    @cached_property
    def after(self) -> dict[Column, Estimate]:
        """Scores of the trained model."""
        return {column_of(score): _estimate(score["after"]) for score in self.run.scores if score["after"]}

    @property
    def own(self) -> dict[Column, Estimate]:
        """Scores of the trained model, of the untouched one where nothing was trained."""
        return self.before | self.after

    @cached_property
    def systems(self) -> dict[str, dict[Column, Estimate]]:
        """Scores of the other systems of the run, by name."""
        found: dict[str, dict[Column, Estimate]] = {}
        for score in self.run.scores:
            if score["system"]:
                found.setdefault(score["system"], {})[column_of(score)] = _estimate(score["before"])
        return found


def _estimate(read: Mapping[str, Any]) -> Estimate:
    return Estimate(read["value"], read["low"], read["high"], read["n"], read.get("p"))


def rows(found: Sequence[Entry], columns: Sequence[Column]) -> Rows:
    """All rows, in the order of the table."""
    return [*_before(found, columns), *_runs(found), *_systems(found), *_means(found, columns)]


def _before(found: Sequence[Entry], columns: Sequence[Column]) -> Rows:
    """The untouched models, a row for each backbone. Runs may have measured it in several ways."""
    backbones = dict.fromkeys(entry.run.backbone for entry in found if entry.before)
    made: Rows = []
    for backbone in backbones:
        alike = [entry.before for entry in found if entry.run.backbone == backbone]
        texts = {column: {plus_minus(one[column]) for one in alike if column in one} for column in columns}
        name = "before" if len(backbones) == 1 else f"before, {backbone}"
        made.append((name, {c: some.pop() if len(some) == 1 else "varies" for c, some in texts.items() if some}))
    return made


def _runs(found: Sequence[Entry]) -> Rows:
    made: Rows = []
    for entry in found:
        texts = {column: plus_minus(estimate) for column, estimate in entry.own.items()}
        texts |= {column: texts[column] + bracketed(gap) for column, gap in entry.gaps.items()}
        made.append((entry.label, texts))
    return made


def _systems(found: Sequence[Entry]) -> Rows:
    """A row for each system of each run, and one for runs whose system has the same scores.

    That one is named by what these runs have in common, if no run with another score has that, too.
    """
    made: Rows = []
    for system in _names(found):
        alike: dict[tuple[tuple[Column, str], ...], list[Entry]] = {}
        having = [entry for entry in found if system in entry.systems]
        for entry in having:
            texts = sorted((column, plus_minus(estimate)) for column, estimate in entry.systems[system].items())
            alike.setdefault(tuple(texts), []).append(entry)
        for key, some in alike.items():
            common = [part for part in some[0].parts if all(part in entry.parts for entry in some)]
            with_it = [entry for entry in having if {*common} <= {*entry.parts}]
            names = [common] if len(with_it) == len(some) else [entry.parts for entry in some]
            made += [(_named(parts, system), dict(key)) for parts in names]
    return made


def _names(found: Sequence[Entry]) -> list[str]:
    """The systems of the runs, each once."""
    return list(dict.fromkeys(system for entry in found for system in entry.systems))


def _named(parts: Sequence[Part], system: str) -> str:
    return " | ".join(filter(None, (label(parts), system)))


def _means(found: Sequence[Entry], columns: Sequence[Column]) -> Rows:
    """A row for the runs that differ in nothing but the seed. Without training a seed changes nothing."""
    groups: dict[tuple[Part, ...], list[Entry]] = {}
    for entry in found:
        groups.setdefault(tuple(part for part in entry.parts if part[0] != "seed"), []).append(entry)
    made: Rows = []
    for parts, alike in groups.items():
        for system in ("", *_names(alike)):
            scores = [entry.systems.get(system, {}) if system else entry.after for entry in alike]
            if len(alike) > 1 and (texts := _mean(scores, columns)) and not (system and _same(scores)):
                made.append((f"{_named(parts, system)}, mean of {len(alike)} seeds", texts))
    return made


def _mean(scores: Sequence[Mapping[Column, Estimate]], columns: Sequence[Column]) -> dict[Column, str]:
    """Mean and standard deviation of several seeds, where there are several scores."""
    values = {column: [one[column].value for one in scores if column in one] for column in columns}
    return {column: f"{fmean(some):.1f} ±{stdev(some):.1f}" for column, some in values.items() if len(some) > 1}


def _same(scores: Sequence[Mapping[Column, Estimate]]) -> bool:
    """Whether a system is one for all seeds."""
    return all(one == scores[0] for one in scores)
