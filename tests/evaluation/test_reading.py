"""The input of a model with a head: rows, validation, items and suites, from small files in the hub's formats."""

import csv
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sdx import InputError
from sdx.evaluation.suites import reading_suites, translated
from sdx.languages import language
from sdx.store.files import read_rows
from sdx.store.store import Store
from sdx.tasks.base import Mode
from sdx.tasks.items import items_step
from sdx.tasks.mmlu import MMLUHuman
from sdx.tasks.reading import ReadTask, training_step
from tests.kit.configs import tiny_config
from tests.kit.suites import Shouting, items_of
from tests.kit.task_files import (
    LANGUAGES,
    READ,
    Rows,
    assembled_rows,
    belebele_rows,
    hub_files,
    hub_task,
    jsonl,
    kardes_rows,
    nli_rows,
    parquet,
    read_files,
    read_task,
    task,
)

EN, TH = language("en"), language("th")
NLI = ["True", "Neither", "False"]
TESTED = {
    "xnli": LANGUAGES,
    "nusax": ("en", "ace_Latn", "su"),
    "americas_nli": ("ay", "gn", "qu"),
    "kardes_nlu": ("az", "kk", "ky", "ug", "uz"),
    "belebele_mc": ("en", "th", "sw"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return read_files(tmp_path_factory.mktemp("files"))


def split(made: ReadTask, tmp_path: Path, rows: int = 0, validation: int = 4) -> tuple[Rows, Rows, dict[str, int]]:
    store = Store(tmp_path / "cache")
    step = training_step(made, EN, rows, validation)
    out = store.realise(step)
    return read_rows(out / "train.jsonl"), read_rows(out / "validation.jsonl"), store.manifest(step)["counts"]


def read(made: ReadTask, tmp_path: Path, code: str, limit: int = 0) -> Rows:
    return read_rows(
        Store(tmp_path / "cache").realise(items_step(made, Mode.read, language(code), limit)) / "rows.jsonl"
    )


def hashed(rows: Rows) -> Rows:
    return sorted(rows, key=lambda row: sha256(row["id"].encode()).digest())


def asked(rows: Rows) -> set[tuple[str, ...]]:
    return {tuple(row["segments"][: len(row["segments"]) - row["choices"]]) for row in rows}


@pytest.mark.parametrize("name", READ)
def test_training_validation_and_test_have_no_texts_in_common(name: str, files: Path, tmp_path: Path) -> None:
    made = read_task(tmp_path, files, name)
    train, validation, counts = split(made, tmp_path)
    assert len(validation) == counts["validation"] == 4
    assert len(train) == counts["train"] > 4
    assert train == hashed(train)
    assert validation == hashed(validation)
    assert not asked(train) & asked(validation)
    for row in (*train, *validation):
        assert list(row) == ["id", "segments", "choices", "label"]
        assert 0 <= row["label"] < (row["choices"] or len(made.labels))
    assert split(made, tmp_path, rows=3)[:2] == (train[:3], validation)


@pytest.mark.parametrize("name", TESTED)
def test_items_pair_up_across_languages(name: str, files: Path, tmp_path: Path) -> None:
    made = read_task(tmp_path, files, name)
    rows = {code: read(made, tmp_path, code) for code in TESTED[name]}
    first, *others = rows.values()
    assert first == hashed(first)
    for other in others:
        assert [(row["id"], row["label"]) for row in other] == [(row["id"], row["label"]) for row in first]
        assert not asked(other) & asked(first)
    for code, some in rows.items():
        assert made.why_unsupported(language(code)) is None
        assert read(made, tmp_path, code, limit=2) == some[:2]
        # The items and right answers are those that are ranked.
        ranked = items_of(made, tmp_path, code)
        assert {row["id"]: row["label"] for row in some} == {id_: item.gold for id_, item in ranked.items()}
        assert all(row["fields"] == ranked[row["id"]].fields for row in some)


def test_segments_of_classification(files: Path, tmp_path: Path) -> None:
    made = read_task(tmp_path, files, "xnli")
    assert made.labels == tuple(NLI)
    train, validation, counts = split(made, tmp_path)
    assert counts["unlabelled"] == 10
    row = next(row for row in train if row["id"] == "3")
    assert row == {"id": "3", "segments": ["train premise 2 en", "hypothesis 2 en"], "choices": 0, "label": 1}
    assert all(row["segments"][0].startswith("v train premise") for row in validation)
    item = next(row for row in read(made, tmp_path, "th") if row["id"] == "4")
    texts = {"premise": "test premise 3 th", "hypothesis": "hypothesis 3 th"}
    assert item == {"id": "4", "segments": list(texts.values()), "choices": 0, "label": 2, "fields": texts}
    assert made.cluster(item) == "test premise 3 th"
    assert made.cluster({"id": "1", "question": "?", "fields": texts}) == "test premise 3 th"  # ranked, not read
    assert made.cluster({"id": "1", "segments": ["one", "two", "three"], "choices": 2}) == "1"


def test_segments_of_multiple_choice(files: Path, tmp_path: Path) -> None:
    made = read_task(tmp_path, files, "belebele_mc")
    assert made.labels == ()
    train, validation, _ = split(made, tmp_path)
    by_id = {row["id"]: row for row in (*train, *validation)}
    assert len(by_id) == 20  # all of them, the last four in hash order held out
    assert [*train, *validation] == hashed(list(by_id.values()))
    assert by_id["7"] == {
        "id": "7",
        "segments": ["Passage 6.\nIts end.", "Question 6?", *(f"answer 6 {k}" for k in range(1, 5))],
        "choices": 4,
        "label": 2,
    }
    items = {row["id"]: row for row in read(made, tmp_path, "sw")}
    assert sorted(items)[:3] == [f"https://en.wikibooks.org/0/{number}" for number in ("1", "1#2", "2")]
    assert items["https://en.wikibooks.org/0/1#2"]["segments"] == [
        "swh_Latn passage 0",
        "swh_Latn question 2?",
        *(f"swh_Latn answer 2 {k}" for k in range(1, 5)),
    ]
    assert [items[f"https://en.wikibooks.org/{n}"]["label"] for n in ("0/1", "0/2", "0/1#2", "1/1")] == [0, 1, 2, 3]
    ranked = items_of(made, tmp_path, "sw")["https://en.wikibooks.org/0/2"]
    assert ranked.prompt == "swh_Latn passage 0\nQ: swh_Latn question 1?\nA:"
    assert (ranked.choices[ranked.gold], made.prompt_template) == ("swh_Latn answer 1 2", "{question}")


def test_letters_of_answers_become_their_places(files: Path, tmp_path: Path) -> None:
    train, _, _ = split(read_task(tmp_path, files, "arc_easy_full"), tmp_path)
    row = train[0]
    number = row["id"].removeprefix("Q_")
    segments = [f"Which is Q {number}?", f"one {number}", f"two {number}", "three"]
    assert row == {"id": row["id"], "segments": segments, "choices": 3, "label": 1}


def test_words_for_labels(files: Path, tmp_path: Path) -> None:
    items = {row["id"]: row for row in read(read_task(tmp_path, files, "kardes_nlu"), tmp_path, "ug")}
    assert [items[id_]["label"] for id_ in ("5", "7", "9", "11")] == [0, 1, 2, 0]
    odd = jsonl(tmp_path / "uz.jsonl", [{**kardes_rows(1, "uz")[0], "gold_label": "maybe"}])
    with pytest.raises(
        InputError,
        match=r"line 1 has the label 'maybe' in `gold_label`, and the labels are entail.*test\.labels=",
    ):
        read(task(tmp_path, "kardes_nlu", test=odd.with_name("{language}.jsonl")), tmp_path, "uz")


def test_tables_as_their_authors_write_them(tmp_path: Path) -> None:
    """A .csv whose column of row numbers has no name; a .tsv with passages of several lines."""
    kardes, assembled = kardes_rows(6, "uz"), assembled_rows(20)
    table(tmp_path / "uz.csv", [{"": row.pop("Unnamed: 0"), **row} for row in kardes], ",")
    items = read(task(tmp_path, "kardes_nlu", test=tmp_path / "{language}.csv"), tmp_path, "uz")
    assert {row["id"]: row["label"] for row in items} == {"5": 0, "7": 1, "9": 2, "11": 0, "13": 1, "15": 2}
    jsonl(tmp_path / "eng_Latn.jsonl", belebele_rows(6, "en"))
    found = []
    for train in (jsonl(tmp_path / "a.jsonl", assembled), table(tmp_path / "b.tsv", assembled, "\t")):
        made = task(tmp_path, "belebele_mc", test=tmp_path / "{language}.jsonl", train=train)
        found.append(read_rows(Store(tmp_path / "cache").realise(training_step(made, EN, 0, 4)) / "train.jsonl"))
    assert found[0] == found[1]
    assert "\n" in found[0][0]["segments"][0]


def table(path: Path, rows: Rows, delimiter: str) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "xnli",
            {"label": 3},
            r"line 1 has 3 in `label`: it is 0 to 2 or -1; .* as task\.xnli\.train\.columns\.label=",
        ),
        ("belebele_mc", {"correct_answer_num": 0}, r"has 0 in `correct_answer_num`: it is 1 to 4; .*columns\.gold="),
        ("belebele_mc", {"correct_answer_num": 5}, r"has 5 in `correct_answer_num`: it is 1 to 4"),
        ("belebele_mc", {"answer4": None}, r"of 1 rows 0 are left \(dropped 1\)"),
    ],
)
def test_training_data_that_cannot_be_read(
    name: str, change: dict[str, Any], message: str, files: Path, tmp_path: Path
) -> None:
    row = nli_rows(2)[1] if name == "xnli" else assembled_rows(1)[0]
    train = jsonl(tmp_path / "train.jsonl", [{**row, **change}])
    made = read_task(tmp_path, files, name, f"task.{name}.train.path={train}")
    with pytest.raises(InputError, match=message):
        split(made, tmp_path)


def test_test_items_that_cannot_be_read(tmp_path: Path) -> None:
    row = belebele_rows(1, "eng_Latn")[0]
    for change, message in (
        ({"mc_answer2": " "}, r'line 1 has "" in `mc_answer2`: a test item needs a text there'),
        ({"correct_answer_num": "E"}, r'line 1 has "E" in `correct_answer_num`: that is no whole number'),
        ({"link": None}, r"line 1 has no id in `link/question_number`"),
        ({"flores_passage": ""}, r'line 1 has "" in `flores_passage`: a test item needs a text there'),
    ):
        made = task(tmp_path, "belebele_mc", test=jsonl(tmp_path / "eng_Latn.jsonl", [{**row, **change}]))
        with pytest.raises(InputError, match=message):
            read(made, tmp_path, "en")


def test_what_is_in_the_test_or_in_validation_is_not_learnt(files: Path, tmp_path: Path) -> None:
    rows = nli_rows(12)[1:4]
    seen = [{**rows[0], "premise": " TEST  premise 1 en", "hypothesis": "hypothesis 1 en"}]
    seen += [{**rows[1], "premise": "v train premise 2 en"}]
    train = parquet(tmp_path / "train.parquet", [*rows, rows[0], *seen])
    made = read_task(tmp_path, files, "xnli", f"task.xnli.train.path={train}")
    kept, _, counts = split(made, tmp_path, validation=2)
    assert sorted(row["id"] for row in kept) == ["1", "2", "3"]
    assert counts == {"train": 3, "validation": 2, "in_test": 1, "in_validation": 1, "dropped": 0, "repeated": 1}


def test_without_a_split_for_validation_the_last_rows_are_held_out(files: Path, tmp_path: Path) -> None:
    none = [f"task.xnli.validation.{key}=null" for key in ("path", "hub_id", "revision", "file", "codes")]
    made = read_task(tmp_path, files, "xnli", *none)
    train, validation, counts = split(made, tmp_path, validation=7)
    assert (len(train), len(validation)) == (23, 7)
    assert [*train, *validation] == hashed([*train, *validation])
    assert counts == {"train": 23, "validation": 7, "in_test": 0, "dropped": 0, "repeated": 0, "unlabelled": 10}
    with pytest.raises(
        InputError, match=r"has 30 rows, no more than the 30 to hold out .*task\.xnli\.validation\.path="
    ):
        split(made, tmp_path, validation=30)


def test_the_authors_split_of_belebeles_training_set(files: Path, tmp_path: Path) -> None:
    dev = [{**row, "question": f"Chosen by {n}?"} for n, row in enumerate(assembled_rows(4))]
    given = f"task.belebele_mc.validation.path='{jsonl(tmp_path / 'dev.jsonl', dev)}'"
    train, validation, _ = split(read_task(tmp_path, files, "belebele_mc", given), tmp_path)
    assert len(train) == 20
    assert {row["segments"][1] for row in validation} == {f"Chosen by {n}?" for n in range(4)}
    held_out = read_task(tmp_path, files, "belebele_mc").split_description["validation"]
    assert held_out == {"columns": {}, "half": 0, "file": None}  # the key is that of a task without a validation split


def test_the_authors_files_of_americas_nli(files: Path, tmp_path: Path) -> None:
    """As described in the comment of conf/task/americas_nli.yaml."""
    words = ("entailment", "neutral", "contradiction")
    for code in ("aym", "gn", "quy"):
        lines = [f"{code}\tpremise {n} {code}\thypothesis {n}\t{words[n % 3]}\n" for n in range(6)]
        (tmp_path / f"{code}.tsv").write_text("".join(lines), encoding="utf-8")
    columns = "task.americas_nli.test.columns={premise: '1', hypothesis: '2', label: '3'}"
    labels = f"task.americas_nli.test.labels=[{','.join(words)}]"
    path = f"task.americas_nli.test.path='{tmp_path}/{{language}}.tsv'"
    made = read_task(tmp_path, files, "americas_nli", path, columns, labels)
    items = {row["id"]: row for row in read(made, tmp_path, "gn")}
    assert items["2"]["segments"] == ["premise 1 gn", "hypothesis 1"]
    assert [items[str(n + 1)]["label"] for n in range(6)] == [0, 1, 2, 0, 1, 2]


def test_the_key_follows_what_decides_the_rows(files: Path, tmp_path: Path) -> None:
    made = read_task(tmp_path, files, "xnli")
    step = training_step(made, EN, 0, 4)
    assert {
        "task": "xnli",
        "language": "eng_Latn",
        "rows": 0,
        "fields": ["premise", "hypothesis", "answer"],
    }.items() <= (step.config.items())
    other = read_task(tmp_path, files, "xnli", "task.xnli.validation.columns.premise=hypothesis")
    keys = {step.key, training_step(made, EN, 3, 4).key, training_step(made, EN, 0, 5).key}
    keys |= {training_step(other, EN, 0, 4).key, made.training(EN, 0).key}
    assert len(keys) == 5
    assert training_step(read_task(tmp_path, files, "xnli"), EN, 0, 4).key == step.key


def test_missing_training_data(files: Path, tmp_path: Path) -> None:
    made = task(tmp_path, "belebele_mc")
    with pytest.raises(InputError, match=r"train has no file: .*give a copy as task\.belebele_mc\.train\.path=\.\.\."):
        training_step(made, EN, 0, 4)
    with pytest.raises(InputError, match=r"task\.xnli has no training data in Thai"):
        training_step(task(tmp_path, "xnli"), TH, 0, 4)
    with pytest.raises(
        InputError, match=r"validation\.columns has the texts premise, train\.columns premise, hypothesis"
    ):
        task(tmp_path, "xnli", "~task.xnli.validation.columns.hypothesis")


def test_every_segment_is_translated_for_translate_test(files: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    for name, code in (("belebele_mc", "sw"), ("nusax", "su")):
        items = items_step(read_task(tmp_path, files, name), Mode.read, language(code), 3)
        step = translated(items, Shouting(), language(code), EN)
        rows, english = (read_rows(store.realise(one) / "rows.jsonl") for one in (items, step))
        assert english == [
            {"id": row["id"], "segments": Shouting().translate(row["segments"], language(code).flores, EN)}
            | {key: row[key] for key in ("choices", "label")}
            for row in rows
        ]


def test_suites_are_of_the_languages_that_the_benchmark_has(files: Path, tmp_path: Path) -> None:
    names = ("xnli", "americas_nli", "kardes_nlu", "nusax", "arc_easy_full")
    tasks = {name: read_task(tmp_path, files, name) for name in names}
    tasks |= {"mmlu_human": MMLUHuman(0), "mgsm": hub_task(tmp_path, hub_files(tmp_path / "hub"), "mgsm")}
    cell = tiny_config(eval_items=2)
    found, skipped = reading_suites(cell, tasks, EN, [TH, language("ay"), language("uz")])
    assert [(suite.task.name, suite.language.code, suite.origin) for suite in found] == [
        ("xnli", "en", "original"),
        ("xnli", "th", "human-translated"),
        ("americas_nli", "ay", "human-translated"),
        ("kardes_nlu", "uz", "human-translated"),
        ("nusax", "en", "original"),
        ("arc_easy_full", "en", "original"),
    ]
    assert skipped == [
        *(f"xnli in {name}: XNLI does not have the language." for name in ("Central Aymara", "Northern Uzbek")),
        *(f"americas_nli in {name}: AmericasNLI does not have the language." for name in ("English", "Thai")),
        "americas_nli in Northern Uzbek: AmericasNLI does not have the language.",
        *(f"kardes_nlu in {name}: Kardeş-NLU does not have the language." for name in ("English", "Thai")),
        "kardes_nlu in Central Aymara: Kardeş-NLU does not have the language.",
        *(f"nusax in {name}: NusaX does not have the language." for name in ("Thai", "Central Aymara")),
        "nusax in Northern Uzbek: NusaX does not have the language.",
        *(
            f"arc_easy_full in {name}: the benchmark does not have the language, and items that are read are not "
            "machine-translated."
            for name in ("Thai", "Central Aymara", "Northern Uzbek")
        ),
        "mmlu_human: it is not classification or multiple choice with training data.",
        "mgsm: it is not classification or multiple choice with training data.",
    ]
    store = Store(tmp_path / "cache")
    assert all(len(read_rows(store.realise(suite.items) / "rows.jsonl")) == 2 for suite in found)
    with pytest.raises(InputError, match=r"task=kardes_nlu: nothing can be evaluated; kardes_nlu in English: its file"):
        reading_suites(cell, {"kardes_nlu": task(tmp_path, "kardes_nlu")}, EN, [TH])
