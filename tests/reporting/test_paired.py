"""Runs whose answers are written by hand, reported and then compared: the differences are those of the answers."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sdx.config import Config, LangConfig, Precision, TranslatorConfig
from sdx.evaluation.suites import Comparison, suites
from sdx.evaluation.translation_quality import translation_suites
from sdx.generation.hf import HFGenerator
from sdx.languages import language
from sdx.methods.self_translate_train import SelfTranslateTrainConfig
from sdx.process.events import watched
from sdx.reporting.compare import compare
from sdx.reporting.report import conclude
from sdx.store.files import read_json, read_rows
from sdx.store.step import Step
from sdx.store.store import Store
from tests.kit.configs import elsewhere, tiny_config
from tests.kit.plain_step import PlainStep
from tests.kit.suites import Noting, Shouting, published
from tests.kit.task_files import hub_files, hub_task

LONG = "This is certainly a long sentence in plain English, and the answer to the question is {}."
THAI = "คำตอบของคำถามนี้คือ {} และนี่เป็นประโยคภาษาไทยที่ยาวพอสมควร"
Answers = Mapping[tuple[str, str], Sequence[str]]
"""(task, language) -> the texts that a model wrote, in the order of the items."""


@dataclass
class Place:
    """Where runs are made of answers."""

    root: Path
    store: Store
    tasks: dict[str, Any]

    def config(self, mixture: str) -> Config:
        made = tiny_config()
        made.lang = LangConfig(source="en", targets={"th": "tha_Thai"})
        made.method = SelfTranslateTrainConfig(_target_="sdx.methods.x.X", name="stt", mixture=mixture)
        made.translator = TranslatorConfig(_target_="sdx.translation.x.X", name="shouting")
        return made

    def suites(self) -> list[Any]:
        corpus, languages = PlainStep("corpus", lambda _: None), (language("en"), [language("th")])
        return suites(tiny_config(), self.tasks, corpus, Shouting(), HFGenerator(4, Precision.fp32), *languages)[0]

    def outcome(self, suite: Any, texts: Sequence[str]) -> Step:
        """As if a model had written the texts."""
        ids = [row["id"] for row in read_rows(self.store.realise(suite.items) / "rows.jsonl")]
        rows = [{"id": id_, "text": text} for id_, text in zip(ids, texts, strict=True)]
        step = published("answers", suite.languages, rows)
        self.store.realise(step)
        return step

    def run(self, name: str, before: Answers, after: Answers, more: Sequence[Comparison] = ()) -> tuple[Path, Noting]:
        """A finished run of a mixture, and what its dashboard was sent."""
        directory = self.root / "runs" / name
        directory.mkdir(parents=True)
        model = published("model", name, [])
        self.store.realise(model)
        outcomes: list[Comparison] = []
        for suite in self.suites():
            where = suite.task.name, suite.languages
            outcomes.append(Comparison(suite, self.outcome(suite, before[where]), self.outcome(suite, after[where])))
        tracker = Noting()
        with watched(tracker):
            conclude(directory, elsewhere(self.config(name)), self.store, model, [*outcomes, *more], [], [], 0)
        return directory, tracker


@pytest.fixture
def place(tmp_path: Path) -> Place:
    files = hub_files(tmp_path / "files")
    return Place(tmp_path, Store(tmp_path / "cache"), {name: hub_task(tmp_path, files, name) for name in ("mgsm",)})


def numbers(place: Place, code: str, right: int, text: str) -> list[str]:
    """Answers to mgsm, the first `right` ones of them right."""
    [suite] = [one for one in place.suites() if one.languages == code]
    items = read_rows(place.store.realise(suite.items) / "rows.jsonl")
    return [text.format(row["references"][0] if n < right else "77") for n, row in enumerate(items)]


def compared(place: Place) -> dict[tuple[str, str, str], dict[str, str]]:
    compare([place.root / "runs"], "src")
    with (place.root / "runs/comparison.csv").open(newline="") as file:
        found = [row for row in csv.DictReader(file) if row["run"] == "stt method.mixture=src+tgt"]
    return {(row["task"], row["language"], row["metric"]): row for row in found}


def test_free_answers_with_an_accuracy_are_compared(place: Place, capsys: pytest.CaptureFixture[str]):
    def answers(english: int, thai: int, text: str) -> Answers:
        return {
            ("mgsm", "en"): numbers(place, "en", english, LONG),
            ("mgsm", "th"): numbers(place, "th", thai, text),
        }

    untouched = answers(0, 0, LONG)
    place.run("src", untouched, answers(2, 1, LONG))
    run, _ = place.run("src+tgt", untouched, answers(1, 4, THAI))
    found = compared(place)
    gaps = {(code, metric): float(row["to_baseline"]) for (_, code, metric), row in found.items()}
    assert gaps == {
        ("en", "accuracy"): -25,
        ("th", "accuracy"): 75,
        ("en", "answer language"): 0,
        ("th", "answer language"): 100,
    }
    assert capsys.readouterr().err == ""
    scores = read_json(run / "results.json")["scores"]
    items = read_rows(run / "items.jsonl")
    assert [(one["task"], one["language"], one["metric"]) for one in items] == [
        (one["task"], one["language"], one["metric"]) for one in scores
    ]
    thai = next(one for one in items if (one["language"], one["metric"]) == ("th", "accuracy"))
    assert (thai["before"], thai["after"], len(thai["ids"])) == ([False] * 4, [True] * 4, 4)


def test_overlaps_are_compared_and_the_undecidable_are_left_out(place: Place):
    place.tasks = {"xquad": hub_task(place.root, place.root / "files", "xquad")}
    nothing = {("xquad", "en"): ["?"] * 4, ("xquad", "th"): ["?"] * 4}
    [right] = {row["references"][0] for row in read_rows(place.store.realise(place.suites()[0].items) / "rows.jsonl")}
    half = f"{right} whatever"
    place.run("src", nothing, nothing | {("xquad", "en"): [half, half, "?", LONG]})
    place.run("src+tgt", nothing, nothing | {("xquad", "en"): [right, half, half, LONG]})
    found = compared(place)
    share = len(right.split())
    f_half = 2 * share / (2 * share + 1)
    assert float(found["xquad", "en", "F1"]["to_baseline"]) == pytest.approx(100 * (1 - f_half + f_half) / 4)
    assert float(found["xquad", "en", "F1"]["to_baseline_p"]) <= 1
    assert float(found["xquad", "en", "exact match"]["to_baseline"]) == 25
    assert float(found["xquad", "th", "F1"]["to_baseline"]) == 0
    assert ("xquad", "th", "answer language") not in found  # "?" is in no language


def test_translations_are_compared_and_a_dashboard_tells_their_benchmarks_apart(place: Place):
    place.tasks = {name: hub_task(place.root, place.root / "files", name) for name in ("mgsm", "xquad")}
    engines = translation_suites(tiny_config(), place.tasks, language("en"), [language("th")], [Shouting()])
    assert [suite.task.name for suite in engines] == ["mgsm", "xquad"]
    unknown = {(name, code): ["?"] * 4 for name in place.tasks for code in ("en", "th")}
    for mixture, share in (("src", 0), ("src+tgt", 2)):
        judged = []
        for suite in engines:
            rows = read_rows(place.store.realise(suite.items) / "rows.jsonl")
            texts = [row["reference"] if n < share else "?" for n, row in enumerate(rows)]
            judged.append(Comparison(suite, place.outcome(suite, texts)))
        run, dashboard = place.run(mixture, unknown, unknown, judged)
    found = compared(place)
    for metric in ("chrF++", "BLEU (char)"):
        assert float(found["translation by shouting", "en-th", metric]["to_baseline"]) > 0
    logged = dashboard.summary
    assert "score/mgsm/th/accuracy/before" in logged
    for benchmark in ("mgsm", "xquad"):
        assert f"score/translation by shouting/{benchmark}/en-th/chrF++/before" in logged
    scores = read_json(run / "results.json")["scores"]
    assert len(logged) == sum(one[moment] is not None for one in scores for moment in ("before", "after", "difference"))
