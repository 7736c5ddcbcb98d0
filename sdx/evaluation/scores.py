"""From the outcomes of a suite before and after training to scores with intervals, and to readable samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdx.evaluation import values
from sdx.evaluation.statistics import Estimate
from sdx.evaluation.suites import Suite
from sdx.evaluation.values import ItemScores, Value
from sdx.store.files import read_rows
from sdx.store.store import Store
from sdx.tasks.base import GenerativeTask, Who
from sdx.tasks.normalisation import Normalisation

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Score:
    """One metric of one suite, in percent (chrF++ and BLEU: points of 100). The difference is after minus before."""

    task: str
    language: str
    metric: str
    origin: str
    before: Estimate
    after: Estimate | None = None
    difference: Estimate | None = None
    note: str = ""
    benchmark: str = ""
    """The task that the items are from, as in `ItemScores`."""
    system: str = ""
    """What `before` is of, as in `ItemScores`."""


Rows = list[dict[str, Any]]
Judge = Callable[[Rows], Sequence[Value]]
"""The values of the rows of an outcome."""


def scores(suite: Suite, store: Store, before: Path, after: Path | None) -> list[Score]:
    """The scores of a suite, see `judge`."""
    return [score(one) for one in judge(suite, store, before, after)]


def judge(suite: Suite, store: Store, before: Path, after: Path | None, system: str = "") -> list[ItemScores]:
    """What each metric says of each item of a suite; nothing of a metric that can tell of none.

    Args:
        before, after: what the suite's outcomes published; no `after` where nothing was trained.
        system: what `before` is of, see `sdx.evaluation.comparison`.
    """
    outcomes = [read_rows(path / "rows.jsonl") for path in (before, after) if path]
    ids = [str(row["id"]) for row in outcomes[0]]
    references = read_rows(store.realise(suite.items) / suite.file)
    clusters = None if suite.engine else values.numbered([suite.task.shared(row) for row in references])
    found = []
    for metric, judged in _judges(suite, references, outcomes).items():
        one, *more = (list(judged(rows)) for rows in outcomes)
        if values.decided(ids, one, *more)[0]:
            other = more[0] if more else None
            about = suite.name, suite.languages, metric, suite.origin
            found.append(ItemScores(*about, ids, one, other, suite.task.name, system, clusters))
    return found


def score(judged: ItemScores) -> Score:
    """The score; of both moments only items for which both have a value.

    A system's score and that of the model after are each over their own items: `after` is the same beside all systems.
    """
    each = [judged.before] if judged.after is None else [judged.before, judged.after]
    labels = judged.labels
    left, both = values.decided(labels, *each)
    own = [values.decided(labels, one) for one in each] if judged.system else [(left, [one]) for one in both]
    before, *after = (values.estimate(judged.metric, some, those) for those, [some] in own)
    gap = values.difference(judged.metric, both[0], both[1], left) if after else None
    left_out = len(judged.ids) - len(left)
    note = f"{left_out} answers whose language cannot be told are left out" if left_out else ""
    about = judged.task, judged.language, judged.metric, judged.origin
    return Score(*about, before, after[0] if after else None, gap, note, judged.benchmark, judged.system)


def _judges(suite: Suite, items: Rows, outcomes: list[Rows]) -> dict[str, Judge]:
    """The metrics of a suite by name, each with its references."""
    if suite.judged:
        metrics = dict.fromkeys(metric for row in outcomes[0] for metric in row["metrics"])
        return {metric: partial(_given, metric) for metric in metrics}
    if suite.who is not Who.generate:
        return {values.ACCURACY: lambda rows: [bool(row["acc"]) for row in rows]}
    references = [_each(row[suite.references]) for row in items]
    return dict(_judge(suite, metric, references) for metric in suite.metrics)


def _judge(suite: Suite, metric: str, references: list[list[str]]) -> tuple[str, Judge]:
    """A metric of written answers, under its name in tables."""
    from sdx.evaluation import metrics, overlap
    from sdx.text.identification import in_language

    language, task = suite.language, suite.task
    rules = task.normalisation if isinstance(task, GenerativeTask) else Normalisation.unicode

    def answers(rows: Rows) -> list[str]:
        return [row["text"] if suite.engine else task.answer(row["text"]) for row in rows]

    def corpus(statistics: Callable[[list[str], list[str]], np.ndarray]) -> Judge:
        return lambda rows: statistics(answers(rows), [first for first, *_ in references]).tolist() if rows else []

    def each(measure: Callable[[str, list[str]], Value]) -> Judge:
        return lambda rows: [measure(*pair) for pair in zip(answers(rows), references, strict=True)]

    if metric == values.ANSWER_LANGUAGE:  # None for the undecidable
        return metric, lambda rows: [in_language(row["text"], language) for row in rows]
    if metric == values.CHRF:
        return metric, corpus(metrics.chrf_statistics)
    if metric == values.BLEU:
        tokenizer = metrics.bleu_tokenizer(language)
        name = metric if tokenizer == "13a" else f"{metric} ({tokenizer})"
        return name, corpus(partial(metrics.bleu_statistics, tokenizer=tokenizer))
    measures: dict[str, Callable[[str, list[str]], Value]] = {
        values.ACCURACY: lambda text, right: text in right,
        values.ROUGE_L: partial(overlap.rouge_l, language=language),
        values.EXACT_MATCH: partial(overlap.exact_match, language=language, normalisation=rules),
        values.F1: partial(overlap.f1, language=language, normalisation=rules),
    }
    return rules.named(metric) if metric in (values.EXACT_MATCH, values.F1) else metric, each(measures[metric])


def samples(suite: Suite, store: Store, before: Path, after: Path | None) -> list[dict[str, Any]]:
    """The answers before and after side by side with the reference, in the order of the held-out rows."""
    from sdx.text.identification import language_of

    items = read_rows(store.realise(suite.items) / suite.file)
    references = {row["id"]: row[suite.references] for row in items}
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


def _given(metric: str, rows: Rows) -> list[Value]:
    return [row["metrics"].get(metric) for row in rows]


def _each(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts
