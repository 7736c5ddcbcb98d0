"""Suites of benchmarks without a run: their models and answers are given, and their scores are computed."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdx.evaluation.scores import Score, judge, score
from sdx.evaluation.suites import Suite
from sdx.languages import language
from sdx.process.events import Listener
from sdx.store.files import write_rows
from sdx.store.step import Step, Workspace
from sdx.store.store import Store
from sdx.tasks.base import Item, shuffled
from sdx.tracking.content import score_values
from sdx.translation.base import Translator
from tests.kit.plain_step import PlainStep


class NoTranslator:
    name = "none"

    def supports(self, *_: str) -> bool:
        return False


def model_step(source: Path) -> Step:
    def run(work: Workspace) -> None:
        shutil.copytree(source, work.dir / "model", dirs_exist_ok=True)

    return PlainStep("backbone", run, {"model": source.name})


def scores(suite: Suite, store: Store, before: Path, after: Path | None) -> list[Score]:
    """The scores of a suite from the outputs of its outcomes."""
    return [score(judged) for judged in judge(suite, store, before, after)]


def scored(found: list[Any], store: Store, one: Path, two: Path) -> list[Score]:
    """The scores of all suites, with one model before and another after."""
    before, after = model_step(one), model_step(two)
    rows: list[Score] = []
    for suite in found:
        outcomes = suite.outcome(before, "before"), suite.outcome(after, "after")
        for step in (suite.items, *outcomes):
            store.realise(step)
        rows += scores(suite, store, *(store.path(step) for step in outcomes))
    return rows


class Shouting(Translator):
    """Into capitals, and numbers stay."""

    name = "shouting"
    version = "1"

    def why_unsupported(self, source: str, target: str) -> None:
        return None

    def translate_sentences(self, sentences: list[str], source: str, target: str) -> list[str]:
        return [sentence.upper() for sentence in sentences]


def items_of(made: Any, tmp_path: Path, code: str) -> dict[str, Item]:
    """Test items by id."""
    store, asked = Store(tmp_path / "cache"), language(code)
    directories = {name: store.realise(step) for name, step in made.inputs(asked, asked).items()}
    return {item.id: item for item in shuffled(made.read(directories, asked, asked))}


def published(name: str, key: Any, rows: list[dict[str, Any]]) -> Step:
    def run(work: Workspace) -> None:
        write_rows(work.dir / "rows.jsonl", rows)
        (work.dir / "model").mkdir(exist_ok=True)

    return PlainStep(name, run, {"key": key, "rows": rows})


class Noting(Listener):
    """Keeps what a dashboard would be sent."""

    def __init__(self) -> None:
        self.summary: dict[str, float] = {}

    def finished(self, results: Mapping[str, Any]) -> None:
        self.summary = score_values(results["scores"])
