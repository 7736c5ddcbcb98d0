"""From the outcomes of a suite before and after training to scores with intervals, and to readable samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdx.artifacts import Store, read_rows
from sdx.evaluation.generative import GenerativeSuite
from sdx.evaluation.statistics import (
    Estimate,
    bootstrap_corpus,
    bootstrap_corpus_difference,
    mean_score,
    paired_difference,
    proportion,
)
from sdx.evaluation.suites import ChoiceSuite, InstructionSuite, Texts
from sdx.evaluation.translation_quality import Scored, TranslationSuite

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Score:
    """One metric of one suite, in percent (chrF++ and BLEU: points of 100). The difference is after minus before."""

    task: str
    language: str
    """The language's code; of a translation benchmark both, as `en-th`."""
    metric: str
    origin: str
    """original, human-translated or by which engine the items (for chrF++ and BLEU: the references) are translated."""
    before: Estimate
    after: Estimate | None = None
    difference: Estimate | None = None
    note: str = ""


Rows = list[dict[str, Any]]


def scores(suite: Scored, store: Store, before: Path, after: Path | None) -> list[Score]:
    """The scores of a suite.

    Args:
        before, after: what the suite's outcomes published; no `after` where nothing was trained.
    """
    outcomes = [read_rows(path / "rows.jsonl") for path in (before, after) if path]
    if isinstance(suite, ChoiceSuite):
        return [_proportions(suite, "accuracy", [[row["acc"] for row in rows] for rows in outcomes])]
    if isinstance(suite, TranslationSuite):
        return _translation(suite, store, outcomes)
    if isinstance(suite, GenerativeSuite):
        right = [row["references"] for row in read_rows(store.path(suite.items) / "rows.jsonl")]
        answers = [[suite.task.answer(row["text"]) for row in rows] for rows in outcomes]
        overlaps = [_overlap(suite, metric, answers, right) for metric in suite.task.metrics]
        return [*overlaps, *_language_rate(suite, outcomes)]
    references = list(_texts(store, suite.references).values())
    answers = [[row["text"] for row in rows] for rows in outcomes]
    return [*_language_rate(suite, outcomes), _chrf(suite, answers, references)]


def named(suite: Scored) -> tuple[str, str]:
    """Task and language of a suite, as its scores name them."""
    if isinstance(suite, TranslationSuite):
        return f"translation by {suite.engine}", suite.languages
    return suite.task.name, suite.languages if isinstance(suite, GenerativeSuite) else suite.language.code


def origin(suite: Scored) -> str:
    """Whose items or references they are, as its scores say it."""
    return f"{suite.origin} ({suite.benchmark})" if isinstance(suite, TranslationSuite) else suite.origin


def _translation(suite: TranslationSuite, store: Store, outcomes: Sequence[Rows]) -> list[Score]:
    """chrF++ and BLEU of an engine; nothing where the benchmark's languages share no text."""
    from sdx.evaluation.metrics import bleu_score, bleu_statistics, bleu_tokenizer

    references = [row["reference"] for row in read_rows(store.path(suite.pairs) / "rows.jsonl")]
    if not references:
        return []
    answers = [[row["text"] for row in rows] for rows in outcomes]
    tokenizer = bleu_tokenizer(suite.language)
    statistics = [bleu_statistics(texts, references, tokenizer) for texts in answers]
    name = "BLEU" if tokenizer == "13a" else f"BLEU ({tokenizer})"
    return [_chrf(suite, answers, references), _resampled(suite, name, statistics, bleu_score)]


def _proportions(suite: Scored, metric: str, values: Sequence[list[bool]], note: str = "") -> Score:
    estimates = [proportion(some) for some in values]
    difference = paired_difference(values[0], values[1]) if len(values) > 1 else None
    return _score(suite, metric, estimates, difference, note)


def _resampled(
    suite: Scored, metric: str, statistics: Sequence[np.ndarray], score: Callable[[np.ndarray], np.ndarray]
) -> Score:
    """A score of summed statistics, [item, k] of each outcome, with the bootstrap's intervals."""
    estimates = [bootstrap_corpus(some, score) for some in statistics]
    difference = bootstrap_corpus_difference(statistics[0], statistics[1], score) if len(statistics) > 1 else None
    return _score(suite, metric, estimates, difference)


def _score(
    suite: Scored, metric: str, estimates: Sequence[Estimate], difference: Estimate | None, note: str = ""
) -> Score:
    after = estimates[1] if len(estimates) > 1 else None
    return Score(*named(suite), metric, origin(suite), estimates[0], after, difference, note)


def _overlap(suite: GenerativeSuite, metric: str, answers: Sequence[list[str]], references: list[list[str]]) -> Score:
    """One of a generative benchmark's own metrics."""
    import numpy as np

    from sdx.evaluation.overlap import exact_match, f1, rouge_l

    if metric == "chrF++":
        return _chrf(suite, answers, [first for first, *_ in references])
    if metric == "accuracy":
        same = [[text in right for text, right in zip(texts, references, strict=True)] for texts in answers]
        return _proportions(suite, metric, same)
    measure = {"ROUGE-L": rouge_l, "F1": f1, "exact match": exact_match}[metric]
    values = [
        [measure(text, right, suite.language) for text, right in zip(texts, references, strict=True)]
        for texts in answers
    ]
    if metric == "exact match":
        return _proportions(suite, metric, [[bool(value) for value in some] for some in values])
    return _resampled(suite, metric, [np.array([[value, 1.0] for value in some]) for some in values], mean_score)


def _language_rate(suite: InstructionSuite | GenerativeSuite, outcomes: Sequence[Rows]) -> list[Score]:
    """How many of the answers are in the language they should be; the undecidable are left out, in pairs."""
    from sdx.data.identification import in_language

    verdicts = [[in_language(row["text"], suite.language) for row in rows] for rows in outcomes]
    decided = [pair for pair in zip(*verdicts, strict=True) if None not in pair]
    if not decided:
        return []
    left_out = len(verdicts[0]) - len(decided)
    note = f"{left_out} answers too short to tell their language are left out" if left_out else ""
    return [_proportions(suite, "answer language", [list(values) for values in zip(*decided, strict=True)], note)]


def _chrf(suite: Scored, answers: Sequence[list[str]], references: list[str]) -> Score:
    from sdx.evaluation.metrics import chrf_score, chrf_statistics

    return _resampled(suite, "chrF++", [chrf_statistics(texts, references) for texts in answers], chrf_score)


def samples(suite: InstructionSuite, store: Store, before: Path, after: Path | None) -> list[dict[str, Any]]:
    """The answers before and after side by side with the reference, in the order of the held-out rows."""
    from sdx.data.identification import language_of

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
