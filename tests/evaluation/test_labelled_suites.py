"""Tasks with labels end to end: suites, machine-translated items, a tiny model before and after, scores."""

from pathlib import Path
from typing import Any

import pytest

from sdx.config import Precision
from sdx.evaluation.scores import judge, score
from sdx.evaluation.suites import suites
from sdx.generation.hf import HFGenerator
from sdx.languages import language
from sdx.store.files import read_rows
from sdx.store.store import Store
from tests.kit.configs import tiny_config
from tests.kit.plain_step import PlainStep
from tests.kit.suites import Shouting, scored, scores
from tests.kit.task_files import LANGUAGES, hub_files, hub_task, jsonl, task
from tests.kit.tiny import tiny_model

NAMES = ("arc_easy_full", "xnli", "xquad", "mgsm")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = hub_files(tmp_path_factory.mktemp("files"))
    tiny_model(root / "one", seed=0)
    tiny_model(root / "two", seed=1)
    return root


def planned(tasks: dict[str, Any], targets: tuple[str, ...], **scale: int) -> tuple[list[Any], list[str]]:
    corpus, languages = PlainStep("corpus", lambda _: None), [language(code) for code in targets]
    generator = HFGenerator(4, Precision.fp32)
    return suites(tiny_config(**scale), tasks, lambda: corpus, Shouting(), generator, language("en"), languages)


@pytest.mark.whole
def test_four_forms_before_and_after(files: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    found, skipped = planned({name: hub_task(tmp_path, files, name) for name in NAMES}, ("th", "de"))
    assert skipped == []
    rows = scored(found, store, files / "one", files / "two")
    own = [(row.task, row.language, row.metric, row.origin, row.before.n) for row in rows if row.metric[:6] != "answer"]
    people = (("en", "original"), ("th", "human-translated"), ("de", "human-translated"))
    machine = "machine-translated (shouting)"
    arc = (("en", "original"), ("th", machine), ("de", machine))
    assert own == [
        *(("arc_easy_full", code, "accuracy", origin, 5) for code, origin in arc),
        *(("xnli", code, "accuracy", origin, 6) for code, origin in people),
        *(("xquad", code, metric, origin, 4) for code, origin in people for metric in ("F1", "exact match")),
        *(("mgsm", code, "accuracy", origin, 4) for code, origin in people),
    ]
    assert all(row.after and row.difference for row in rows)


def test_items_pair_up_by_id_across_languages(files: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    for name in NAMES:
        found, _ = planned({name: hub_task(tmp_path, files, name)}, LANGUAGES[1:], eval_items=3)
        rows = [read_rows(store.realise(suite.items) / "rows.jsonl") for suite in found]
        assert len(rows) == len(LANGUAGES)
        assert len({tuple(row["id"] for row in some) for some in rows}) == 1
        wanted = [name for name in found[0].task.translated if name != "answer"]
        assert all(list(row["fields"]) == wanted and all(row["fields"].values()) for some in rows for row in some)
        assert rows[0][0]["fields"] != rows[1][0]["fields"]


def test_questions_of_math_are_machine_translated_where_there_are_none(tmp_path: Path) -> None:
    rows = [{"id": n, "question": f"How much is {n} and 1?", "answer": f"Add.\n#### {n + 1},000"} for n in range(3)]
    path = jsonl(tmp_path / "math.jsonl", rows)
    made, store = task(tmp_path, "gsm8k", train=path, test=path), Store(tmp_path / "cache")
    found, skipped = planned({"gsm8k": made}, ("th",))
    assert skipped == []
    english, thai = found
    assert thai.origin == "machine-translated (shouting)"
    assert (thai.item_language, thai.language, thai.languages) == (language("th"), language("th"), "th")
    items = {row["id"]: row for row in read_rows(store.realise(thai.items) / "rows.jsonl")}
    assert items["1"] == {
        "id": "1",
        "prompt": made.prompt({"question": "HOW MUCH IS 1 AND 1?"}),
        "references": ["2000"],
        "fields": {"question": "HOW MUCH IS 1 AND 1?"},
    }
    assert english.items.key in {step.key for step in thai.items.inputs.values()}


def test_the_model_under_test_translates_no_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = jsonl(tmp_path / "math.jsonl", [{"id": 1, "question": "1?", "answer": "#### 1"}])
    monkeypatch.setattr(Shouting, "is_external", False)
    found, skipped = planned({"gsm8k": task(tmp_path, "gsm8k", train=path, test=path)}, ("th",))
    assert [suite.languages for suite in found] == ["en"]
    assert skipped == [
        "gsm8k in Thai: translator=shouting is the model under test and does not write its own questions."
    ]


def test_a_language_without_items_is_skipped(tmp_path: Path) -> None:
    _, skipped = planned({name: task(tmp_path, name) for name in ("xnli", "xquad", "mgsm")}, ("ja",))
    assert skipped == [
        "xnli in Japanese: XNLI does not have the language.",
        "xquad in Japanese: XQuAD does not have the language.",
    ]


@pytest.mark.parametrize(
    ("name", "code", "completions", "values"),
    [
        # The gold numbers are 0, 1000, 2000 and 3000, for the ids 1 to 4.
        (
            "mgsm",
            "th",
            {"1": "9 - 9\n#### ๐", "2": "#### ๑,๐๐๐ บาท\n", "3": "First 5.\nSo it is 2.000", "4": "#### 300"},
            {"accuracy": 75},
        ),
        ("mgsm", "ru", {"1": "3\n#### 1", "2": "1 000 рублей", "3": "", "4": "3000,00\n\n#### 5"}, {"accuracy": 25}),
        (
            "xquad",
            "zh",
            {"s0": "巴黎", "s1": "\n巴黎。\nmore", "s2": "巴", "s3": "no"},
            {"F1": 200 / 3, "exact match": 50},
        ),
        ("xquad", "ru", {"s0": "париж", "s1": "в Париж", "s2": "", "s3": "no"}, {"F1": 125 / 3, "exact match": 25}),
    ],
)
def test_scores_of_known_completions(
    name: str, code: str, completions: dict[str, str], values: dict[str, float], files: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "cache")
    found, _ = planned({name: hub_task(tmp_path, files, name)}, (code,))
    suite = found[-1]
    ids = [row["id"] for row in read_rows(store.realise(suite.items) / "rows.jsonl")]
    jsonl(tmp_path / "out" / "rows.jsonl", [{"id": id_, "text": completions[id_]} for id_ in ids])
    given = {score.metric: score.before.value for score in scores(suite, store, tmp_path / "out", None)}
    assert {metric: given[metric] for metric in values} == pytest.approx(values)


def test_questions_on_one_passage_are_a_cluster(files: Path, tmp_path: Path) -> None:
    """All four are on one passage, so they do not show how questions on other passages would be answered."""
    store = Store(tmp_path / "cache")
    [*_, suite], _ = planned({"xquad": hub_task(tmp_path, files, "xquad")}, ("zh",))
    ids = [row["id"] for row in read_rows(store.realise(suite.items) / "rows.jsonl")]
    jsonl(tmp_path / "out" / "rows.jsonl", [{"id": id_, "text": "巴黎"} for id_ in ids])
    judged = {one.metric: one for one in judge(suite, store, tmp_path / "out", None)}
    assert judged["exact match"].clusters == judged["F1"].clusters == [0, 0, 0, 0]
    exact = score(judged["exact match"]).before
    assert (exact.value, exact.n) == (100, 4)
    assert exact.low < 5


@pytest.mark.parametrize(
    ("answers", "references"),
    [
        ({"text": ["Paris", " Paris ", "the city of Paris", None, ""]}, ["Paris", "the city of Paris"]),
        ({"text": ["1994", 1995]}, ["1994", "1995"]),
        ({"text": "Paris"}, ["Paris"]),
    ],
)
def test_each_of_several_gold_answers_is_right(answers: dict[str, Any], references: list[str], tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t.jsonl", [{"id": "1", "context": "Paris.", "question": "q", "answers": answers}])
    store, made = Store(tmp_path / "cache"), task(tmp_path, "xquad", train=path, test=path)
    suite = planned({"xquad": made}, ())[0][0]
    [row] = read_rows(store.realise(suite.items) / "rows.jsonl")
    assert row["references"] == references
    for text in references:
        jsonl(tmp_path / "out" / "rows.jsonl", [{"id": "1", "text": text}])
        given = {score.metric: score.before.value for score in scores(suite, store, tmp_path / "out", None)}
        assert given["F1"] == given["exact match"] == 100


@pytest.mark.parametrize(
    ("rules", "code", "values"),
    [
        ("unicode", "zh", {"F1": 100 * (8 / 9 + 1) / 2, "exact match": 50}),
        ("mlqa", "zh", {"F1 (MLQA)": 100 * (2 / 3 + 1) / 2, "exact match (MLQA)": 50}),
        ("mkqa", "zh", {"F1 (MKQA)": 100 * (8 / 9 + 1) / 2, "exact match (MKQA)": 50}),
        ("squad", "zh", {"F1 (SQuAD)": 50, "exact match (SQuAD)": 50}),
    ],
)
def test_published_evaluations_are_named(rules: str, code: str, values: dict[str, float], tmp_path: Path) -> None:
    rows = [{"id": n, "context": f"c{n}", "question": "q", "answers": {"text": [n]}} for n in ("1994", "北京")]
    path, _ = (jsonl(tmp_path / f"t-{name}.jsonl", rows) for name in ("en", code))
    made = task(
        tmp_path, "xquad", f"task.xquad.normalisation={rules}", train=path, test=tmp_path / "t-{language}.jsonl"
    )
    store = Store(tmp_path / "cache")
    suite = planned({"xquad": made}, (code,))[0][-1]
    written = {"1994": "1994年", "北京": "北京"}
    ids = [row["id"] for row in read_rows(store.realise(suite.items) / "rows.jsonl")]
    jsonl(tmp_path / "out" / "rows.jsonl", [{"id": id_, "text": written[id_]} for id_ in ids])
    given = {score.metric: score.before.value for score in scores(suite, store, tmp_path / "out", None)}
    given.pop("answer language", None)
    assert given == pytest.approx(values)


def test_a_language_that_a_published_evaluation_lacks_is_skipped(files: Path, tmp_path: Path) -> None:
    made = hub_task(tmp_path, files, "xquad", "task.xquad.normalisation=mlqa")
    found, skipped = planned({"xquad": made}, ("th", "zh"))
    assert [suite.languages for suite in found] == ["en", "zh"]
    assert skipped == [
        "xquad in Thai: MLQA's evaluation has ar, de, en, es, hi, vi, zh only; choose normalisation=squad or unicode."
    ]
