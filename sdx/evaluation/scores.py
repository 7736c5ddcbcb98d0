"""From the outcomes of a suite before and after training to scores with intervals, and to readable samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdx.evaluation import values
from sdx.evaluation.metrics import BLEU, CHRF, bleu_tokenizer, corpus_statistics
from sdx.evaluation.statistics import Estimate
from sdx.evaluation.suites import Suite
from sdx.evaluation.values import ItemScores, Value
from sdx.store.files import read_rows
from sdx.store.store import Store
from sdx.tasks.base import GenerativeTask, Mode
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
    """The task with the items, as in `ItemScores`."""
    system: str = ""
    """The system of `before`, as in `ItemScores`."""


Rows = list[dict[str, Any]]
Measure = Callable[[Rows], Sequence[Value]]
"""The values of the rows of an outcome."""


def judge(suite: Suite, store: Store, before: Path, after: Path | None, system: str = "") -> list[ItemScores]:
    """The values of each metric for each item of a suite, without metrics that have no value for any item.

    Args:
        before, after: what the suite's outcomes published; no `after` if nothing was trained.
        system: the system of `before`, see `sdx.evaluation.suites.Comparison`.
    """
    outcomes = [read_rows(path / "rows.jsonl") for path in (before, after) if path]
    ids = [str(row["id"]) for row in outcomes[0]]
    items = read_rows(store.realise(suite.items) / suite.file)
    clusters = None if suite.engine else values.numbered([suite.task.cluster(row) for row in items])
    found = []
    for metric, measure in _measures(suite, items, outcomes).items():
        first, *second = (list(measure(rows)) for rows in outcomes)
        if values.decided(ids, first, *second)[0]:
            about = suite.name, suite.languages, metric, suite.origin, ids
            last = second[0] if second else None
            found.append(ItemScores(*about, first, last, suite.task.name, system, clusters))
    return found


def score(judged: ItemScores) -> Score:
    """The score; the difference is over the items that have a value both before and after.

    A system's score and that of the model after are each over their own items: `after` is the same beside all systems.
    """
    outcomes = [judged.before] if judged.after is None else [judged.before, judged.after]
    labels = judged.clusters or judged.ids
    left, both = values.decided(labels, *outcomes)
    own = [values.decided(labels, one) for one in outcomes] if judged.system else [(left, [one]) for one in both]
    before, *after = (values.estimate(judged.metric, some, those) for those, [some] in own)
    gap = values.difference(judged.metric, both[0], both[1], left) if after else None
    left_out = len(judged.ids) - len(left)
    note = f"{left_out} answers whose language cannot be told are left out" if left_out else ""
    about = judged.task, judged.language, judged.metric, judged.origin
    return Score(*about, before, after[0] if after else None, gap, note, judged.benchmark, judged.system)


def _measures(suite: Suite, items: Rows, outcomes: list[Rows]) -> dict[str, Measure]:
    """The metrics of a suite by their names in tables."""
    if suite.has_metrics:

        def published(metric: str) -> Measure:
            return lambda rows: [row["metrics"].get(metric) for row in rows]

        return {metric: published(metric) for row in outcomes[0] for metric in row["metrics"]}
    if suite.mode is not Mode.generate:
        return {values.ACCURACY: lambda rows: [bool(row["acc"]) for row in rows]}
    written = _written_measures(suite, [row[suite.references] for row in items])
    return dict(written[metric] for metric in suite.metrics)


def _written_measures(suite: Suite, given: list[str | list[str]]) -> dict[str, tuple[str, Measure]]:
    """Metric -> name in tables and values of written answers. `given` holds one or several references of each item."""
    from sdx.evaluation import overlap
    from sdx.text.identification import in_language

    language, task = suite.language, suite.task
    rules = task.normalisation if isinstance(task, GenerativeTask) else Normalisation.unicode
    references = [[texts] if isinstance(texts, str) else texts for texts in given]
    tokenizer = bleu_tokenizer(language)

    def answers(rows: Rows) -> list[str]:
        return [row["text"] if suite.engine else task.answer(row["text"]) for row in rows]

    def corpus(statistics: Callable[[list[str], list[str]], np.ndarray]) -> Measure:
        return lambda rows: statistics(answers(rows), [first for first, *_ in references]).tolist() if rows else []

    def each(measure: Callable[[str, list[str]], Value]) -> Measure:
        return lambda rows: [measure(*pair) for pair in zip(answers(rows), references, strict=True)]

    def languages(rows: Rows) -> list[Value]:
        return [in_language(row["text"], language) for row in rows]  # None if the language cannot be told

    bleu = BLEU if tokenizer == "13a" else f"{BLEU} ({tokenizer})"
    exact = partial(overlap.exact_match, language=language, normalisation=rules)
    f1 = partial(overlap.f1, language=language, normalisation=rules)
    return {
        values.ANSWER_LANGUAGE: (values.ANSWER_LANGUAGE, languages),
        values.ACCURACY: (values.ACCURACY, each(lambda text, right: text in right)),
        values.ROUGE_L: (values.ROUGE_L, each(partial(overlap.rouge_l, language=language))),
        values.EXACT_MATCH: (rules.named(values.EXACT_MATCH), each(exact)),
        values.F1: (rules.named(values.F1), each(f1)),
        CHRF: (CHRF, corpus(partial(corpus_statistics, CHRF))),
        BLEU: (bleu, corpus(partial(corpus_statistics, BLEU, tokenizer=tokenizer))),
    }


def samples(suite: Suite, store: Store, before: Path, after: Path | None) -> list[dict[str, Any]]:
    """The answers before and after side by side with the reference, in the order of the held-out rows."""
    from sdx.text.identification import language_of

    references = {row["id"]: row[suite.references] for row in read_rows(store.realise(suite.items) / suite.file)}
    paths = ("before", before), ("after", after)
    answers = {name: read_rows(path / "rows.jsonl") for name, path in paths if path}
    rows = []
    for number, row in enumerate(answers["before"]):
        sample = {"id": row["id"], "language": suite.language.code, "instruction": row["prompt"]}
        for name, completions in answers.items():
            sample[name] = completions[number]["text"]
            sample[f"{name}_language"] = language_of(sample[name], suite.language)
        rows.append({**sample, "reference": references[row["id"]], "reference_origin": suite.origin})
    return rows
