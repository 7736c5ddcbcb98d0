"""From the outcomes of a suite before and after training to scores with intervals, and to readable samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdx.artifacts import Store, read_rows
from sdx.evaluation.statistics import (
    Estimate,
    bootstrap_corpus,
    bootstrap_corpus_difference,
    paired_difference,
    proportion,
)
from sdx.evaluation.suites import ChoiceSuite, InstructionSuite, Suite, Texts


@dataclass(frozen=True)
class Score:
    """One metric of one suite, in percent (chrF++: points of 100). The difference is after minus before."""

    task: str
    language: str
    metric: str
    origin: str
    """original, human-translated or by which engine the items (for chrF++: the references) are translated."""
    before: Estimate
    after: Estimate | None = None
    difference: Estimate | None = None
    note: str = ""


def scores(suite: Suite, store: Store, before: Path, after: Path | None) -> list[Score]:
    """The scores of a suite.

    Args:
        before, after: what the suite's outcomes published; no `after` where nothing was trained.
    """
    outcomes = [read_rows(path / "rows.jsonl") for path in (before, after) if path]
    if isinstance(suite, ChoiceSuite):
        return _choice_scores(suite, outcomes)
    return [*_language_rate(suite, outcomes), _chrf(suite, store, outcomes)]


def _choice_scores(suite: ChoiceSuite, outcomes: Sequence[list[dict[str, Any]]]) -> list[Score]:
    correct = [[row["acc"] for row in rows] for rows in outcomes]
    return [_proportions(suite, "accuracy", correct)]


def _proportions(suite: Suite, metric: str, values: Sequence[list[bool]], note: str = "") -> Score:
    estimates = [proportion(some) for some in values]
    after = estimates[1] if len(values) > 1 else None
    difference = paired_difference(values[0], values[1]) if len(values) > 1 else None
    return Score(suite.task.name, suite.language.code, metric, suite.origin, estimates[0], after, difference, note)


def _language_rate(suite: InstructionSuite, outcomes: Sequence[list[dict[str, Any]]]) -> list[Score]:
    """How many of the answers are in the language of the instruction; the undecidable are left out, in pairs."""
    from sdx.evaluation.metrics import in_language

    verdicts = [[in_language(row["text"], suite.language) for row in rows] for rows in outcomes]
    decided = [pair for pair in zip(*verdicts, strict=True) if None not in pair]
    if not decided:
        return []
    left_out = len(verdicts[0]) - len(decided)
    note = f"{left_out} answers too short to tell their language are left out" if left_out else ""
    return [_proportions(suite, "answer language", [list(values) for values in zip(*decided, strict=True)], note)]


def _chrf(suite: InstructionSuite, store: Store, outcomes: Sequence[list[dict[str, Any]]]) -> Score:
    from sdx.evaluation.metrics import chrf_score, chrf_statistics

    references = list(_texts(store, suite.references).values())
    counts = [chrf_statistics([row["text"] for row in rows], references) for rows in outcomes]
    estimates = [bootstrap_corpus(some, chrf_score) for some in counts]
    after = estimates[1] if len(counts) > 1 else None
    difference = bootstrap_corpus_difference(counts[0], counts[1], chrf_score) if len(counts) > 1 else None
    return Score(suite.task.name, suite.language.code, "chrF++", suite.origin, estimates[0], after, difference)


def samples(suite: InstructionSuite, store: Store, before: Path, after: Path | None) -> list[dict[str, Any]]:
    """The answers before and after side by side with the reference, in the order of the held-out rows."""
    from sdx.evaluation.metrics import language_of

    references = _texts(store, suite.references)
    outcomes = {"before": before, "after": after}
    answers = {name: read_rows(path / "rows.jsonl") for name, path in outcomes.items() if path}
    rows = []
    for number, row in enumerate(answers["before"]):
        sample = {"id": row["id"], "language": suite.language.code, "instruction": row["prompt"]}
        for name, completions in answers.items():
            sample[name] = completions[number]["text"]
            sample[f"{name}_language"] = language_of(sample[name], suite.language)
        rows.append({**sample, "reference": references[row["id"]], "reference_origin": suite.origin})
    return rows


def _texts(store: Store, texts: Texts) -> dict[str, str]:
    step, file, field = texts
    return {row["id"]: row[field] for row in read_rows(store.path(step) / file)}
