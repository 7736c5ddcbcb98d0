"""From the outcomes of a suite before and after training to scores with intervals, and to readable samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sdx.evaluation import values
from sdx.evaluation.generative import GenerativeSuite
from sdx.evaluation.reading import ReadingSuite
from sdx.evaluation.statistics import Estimate
from sdx.evaluation.suites import ChoiceSuite, InstructionSuite, Texts
from sdx.evaluation.translation_quality import Scored, TranslationSuite
from sdx.evaluation.values import Judged, Value
from sdx.languages import Language
from sdx.store.files import read_rows
from sdx.store.store import Store


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
    """The task that the items are from, as in `Judged`."""
    system: str = ""
    """What `before` is of, as in `Judged`."""


Rows = list[dict[str, Any]]
Judge = Callable[[Rows], Sequence[Value]]
"""The values of the rows of an outcome."""


def scores(suite: Scored, store: Store, before: Path, after: Path | None) -> list[Score]:
    """The scores of a suite, see `judge`."""
    return [score(one) for one in judge(suite, store, before, after)]


def judge(suite: Scored, store: Store, before: Path, after: Path | None, system: str = "") -> list[Judged]:
    """What each metric says of each item of a suite; nothing of a metric that can tell of none.

    Args:
        before, after: what the suite's outcomes published; no `after` where nothing was trained.
        system: what `before` is of, see `sdx.evaluation.outcome`.
    """
    outcomes = [read_rows(path / "rows.jsonl") for path in (before, after) if path]
    ids = [str(row["id"]) for row in outcomes[0]]
    task, language = named(suite)
    benchmark = suite.benchmark if isinstance(suite, TranslationSuite) else suite.task.name
    clusters = _clusters(suite, store)
    found = []
    for metric, judged in _judges(suite, store).items():
        one, *more = (list(judged(rows)) for rows in outcomes)
        if values.decided(ids, one, *more)[0]:
            other = more[0] if more else None
            about = task, language, metric, origin(suite)
            found.append(Judged(*about, ids, one, other, benchmark, system, clusters))
    return found


def _clusters(suite: Scored, store: Store) -> list[int] | None:
    """Which items of a benchmark share a text, in the order of the items."""
    if isinstance(suite, TranslationSuite | InstructionSuite):
        return None
    return values.numbered([suite.task.shared(row) for row in read_rows(store.realise(suite.items) / "rows.jsonl")])


def score(judged: Judged) -> Score:
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


def named(suite: Scored) -> tuple[str, str]:
    """Task and language of a suite, as its scores name them."""
    if isinstance(suite, TranslationSuite):
        return f"translation by {suite.engine}", suite.languages
    return suite.task.name, suite.languages if isinstance(suite, GenerativeSuite) else suite.language.code


def origin(suite: Scored) -> str:
    """Whose items or references they are, as its scores say it."""
    return f"{suite.origin} ({suite.benchmark})" if isinstance(suite, TranslationSuite) else suite.origin


def _judges(suite: Scored, store: Store) -> dict[str, Judge]:
    """The metrics of a suite by name, each with its references."""
    if isinstance(suite, ChoiceSuite | ReadingSuite):
        return {values.ACCURACY: lambda rows: [bool(row["acc"]) for row in rows]}
    if isinstance(suite, TranslationSuite):
        wanted = [row["reference"] for row in read_rows(store.realise(suite.pairs) / "rows.jsonl")]
        return {values.CHRF: _chrf(wanted, _text), **_bleu(wanted, suite.language)}
    spoken: dict[str, Judge] = {values.ANSWER_LANGUAGE: _in_language(suite.language)}
    if isinstance(suite, GenerativeSuite):
        right = [row["references"] for row in read_rows(store.realise(suite.items) / "rows.jsonl")]
        found = dict(_overlap(suite, metric, right) for metric in suite.task.metrics)
        return found | spoken
    return spoken | {values.CHRF: _chrf(list(_texts(store, suite.references).values()), _text)}


def _overlap(suite: GenerativeSuite, metric: str, references: list[list[str]]) -> tuple[str, Judge]:
    """One of a generative benchmark's own metrics, under its name in tables."""
    from sdx.evaluation.overlap import exact_match, f1, rouge_l

    def answer(row: dict[str, Any]) -> str:
        return suite.task.answer(row["text"])

    if metric == values.CHRF:
        return metric, _chrf([first for first, *_ in references], answer)
    normalisation, name = suite.task.normalisation, metric
    if metric in (values.EXACT_MATCH, values.F1):
        name = normalisation.named(metric)
    measures: dict[str, Callable[[str, list[str], Language], Value]] = {
        values.ACCURACY: lambda text, right, _: text in right,
        values.EXACT_MATCH: partial(exact_match, normalisation=normalisation),
        values.F1: partial(f1, normalisation=normalisation),
        values.ROUGE_L: rouge_l,
    }
    measure = measures[metric]
    return name, lambda rows: [
        measure(answer(row), right, suite.language) for row, right in zip(rows, references, strict=True)
    ]


def _in_language(expected: Language) -> Judge:
    """Whether the answers are in the language they should be; None for the undecidable."""
    from sdx.text.identification import in_language

    return lambda rows: [in_language(row["text"], expected) for row in rows]


def _chrf(references: list[str], answer: Callable[[dict[str, Any]], str]) -> Judge:
    from sdx.evaluation.metrics import chrf_statistics

    def judged(rows: Rows) -> list[Value]:
        return list(chrf_statistics([answer(row) for row in rows], references).tolist()) if rows else []

    return judged


def _bleu(references: list[str], language: Language) -> dict[str, Judge]:
    """The metric's name and the metric."""
    from sdx.evaluation.metrics import bleu_statistics, bleu_tokenizer

    tokenizer = bleu_tokenizer(language)

    def judged(rows: Rows) -> list[Value]:
        return list(bleu_statistics([_text(row) for row in rows], references, tokenizer).tolist()) if rows else []

    return {values.BLEU if tokenizer == "13a" else f"{values.BLEU} ({tokenizer})": judged}


def _text(row: dict[str, Any]) -> str:
    return str(row["text"])


def samples(suite: InstructionSuite, store: Store, before: Path, after: Path | None) -> list[dict[str, Any]]:
    """The answers before and after side by side with the reference, in the order of the held-out rows."""
    from sdx.text.identification import language_of

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
    return {row["id"]: row[field] for row in read_rows(store.realise(step) / file)}
