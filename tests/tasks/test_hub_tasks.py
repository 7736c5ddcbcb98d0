"""The paper's benchmarks from small files in the formats of the hub and of the authors, through the suites."""

from pathlib import Path
from typing import Any

import pytest

from sdx import InputError
from sdx.languages import language, languages
from sdx.run import build
from sdx.store.store import Store
from sdx.tasks.base import Item, Mode
from sdx.tasks.files import FLORES_PLUS
from sdx.tasks.hub import MKQA, ROMANISED, Belebele, Flores, XLSum
from sdx.tasks.items import items_step
from sdx.tasks.normalisation import Normalisation
from tests.kit.task_files import ENGLISH, THAI, Rows, compose, flores_rows, jsonl, mkqa_row, mkqa_rows, xlsum_rows


def questions(code: str, count: int = 5) -> Rows:
    return [
        {
            "link": f"https://en.wikibooks.org/wiki/{number // 2}",
            "question_number": number % 2 + 1,
            "flores_passage": f"Passage {number // 2} in {code}. ",
            "question": f"What is {number}?",
            **{f"mc_answer{n}": f"answer {n}" for n in (1, 2, 3, 4)},
            "correct_answer_num": str(number % 4 + 1),
            "dialect": code,
            "ds": "2023-05-03",
        }
        for number in range(count)
    ]


def read(store: Store, task: Any, asked: str, answered: str) -> dict[str, Item]:
    """Items by id."""
    pair = language(asked), language(answered)
    paths = {name: store.realise(step) for name, step in task.inputs(*pair).items()}
    return {item.id: item for item in task.read(paths, *pair)}


def local(task: type, path: Path | str) -> Any:
    return task(0, str(path), None, None, None)


def test_belebele(tmp_path: Path) -> None:
    rows = questions("tha_Thai")
    rows.append({**rows[0], "flores_passage": "Another passage of the same page.", "correct_answer_num": 3})
    jsonl(tmp_path / "tha_Thai.jsonl", rows)
    task, store = local(Belebele, tmp_path / "{language}.jsonl"), Store(tmp_path / "cache")
    items = [*read(store, task, "th", "th").values()]
    assert task.prompt_template is None
    assert len({item.id for item in items}) == len(items) == 6
    item = next(item for item in items if item.id == "https://en.wikibooks.org/wiki/1/2")
    assert item.prompt == "Passage 1 in tha_Thai.\nWhat is 3?"
    assert (item.choices, item.gold) == ([f"answer {n}" for n in (1, 2, 3, 4)], 3)
    assert next(item for item in items if item.id.endswith("#2")).gold == 2
    assert sorted(task.cluster({"question": item.prompt})[:9] for item in items) == sorted(
        ["Passage 0", "Passage 1"] * 2 + ["Passage 2", "Another p"]
    )
    assert task.origin(language("th")) == "human-translated"
    assert task.origin(language("en")) == "original"
    assert not task.needs_translation(language("th"), language("en"))


def test_flores_in_both_directions_from_both_formats(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    jsonl(tmp_path / "devtest/cmn_Hans.jsonl", flores_rows(["猫在桌子上。", "狗在桌子下。", "今天下雨。"]))
    jsonl(tmp_path / "devtest/eng_Latn.jsonl", list(reversed(flores_rows(ENGLISH))))
    plus = local(Flores, tmp_path / "devtest/{flores_plus}.jsonl")
    english, chinese = language("en"), language("zh")
    assert plus.pairs(english, chinese) == [(english, chinese), (chinese, english)]
    assert plus.pairs(english, english) == []

    assert read(store, plus, "en", "zh")["1"] == Item(
        "1",
        "Translate the following sentence from English to Chinese (Simplified).\n\nThe dog is under the table.",
        references=["狗在桌子下。"],
    )
    assert read(store, plus, "zh", "en")["1"].references == [ENGLISH[1]]
    # The lines of the original tarball.
    for code, sentences in (("eng_Latn", ENGLISH), ("zho_Hans", THAI)):
        (tmp_path / f"{code}.tsv").write_text("".join(f"{text}\n" for text in sentences), encoding="utf-8")
    lines = read(store, local(Flores, tmp_path / "{language}.tsv"), "en", "zh").values()
    assert [item.references for item in lines] == [[text] for text in THAI]


def test_flores_codes() -> None:
    codes = {entry.flores for entry in languages()}
    assert set(FLORES_PLUS) | ROMANISED <= codes
    assert not set(FLORES_PLUS.values()) & codes
    assert len(codes - ROMANISED) == 204


def test_xlsum(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    (tmp_path / "thai/test").mkdir(parents=True)
    write_table(pyarrow.Table.from_pylist(xlsum_rows()), tmp_path / "thai/test/0000.parquet")
    task, store = local(XLSum, tmp_path / "{language}/test/0000.parquet"), Store(tmp_path / "cache")
    rows = [*read(store, task, "th", "th").values()]
    assert len(rows) == 4
    assert rows[2].references == ["สรุป 2"]
    assert rows[2].prompt.startswith("Summarize the following article in one sentence in Thai.\n\nข่าว ข่าว")


def test_mkqa_asks_what_has_a_short_answer(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "mkqa.jsonl.gz", mkqa_rows())
    task, store = local(MKQA, path), Store(tmp_path / "cache")
    rows = [*read(store, task, "th", "th").values()]
    assert [row.id for row in rows] == ["-7449157003522518870", "2"]
    assert rows[0].references == ["กรุงเทพ", "กรุงเทพฯ"]
    assert rows[0].prompt == (
        "Answer the following question in Thai in a few words.\n\nquery -7449157003522518870 in th"
    )
    english = read(store, task, "en", "en").values()
    assert [item.references[0] for item in english] == ["Bangkok", "12", "1999"]


@pytest.mark.parametrize(
    ("task", "covered", "lacking", "count"),
    [
        (Belebele, "ben_Latn", "ace_Latn", 122),
        (Flores, "ace_Latn", "ben_Latn", 204),
        (XLSum, "th", "de", 43),
        (MKQA, "da", "sw", 26),
    ],
)
def test_languages_that_a_benchmark_lacks(task: type, covered: str, lacking: str, count: int) -> None:
    made = local(task, "/x.jsonl")
    assert made.why_unsupported(language(covered)) is None
    assert made.why_unsupported(language(lacking)).endswith("does not have the language.")
    assert sum(made.why_unsupported(entry) is None for entry in languages()) == count
    if task is Flores:
        assert made.pairs(language(lacking), language("th")) == []


HASH = "0123456789" * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((None, "a/b", None, "x.jsonl"), r"task\.mkqa\.revision=None does not pin task\.mkqa\.hub_id=a/b"),
        ((None, "a/b", "main", "x.jsonl"), r"task\.mkqa\.revision=main does not pin"),
        ((None, "a/b", HASH, None), r"needs task\.mkqa\.file=\.\.\."),
        (("/x.xlsx", None, None, None), r"task\.mkqa\.path=/x\.xlsx cannot be read by its ending"),
    ],
)
def test_sources_that_cannot_work(options: tuple[str | None, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MKQA(0, *options)


def test_without_a_file_it_is_not_run() -> None:
    assert "task.mkqa.path=" in (MKQA(0, None, None, None, None).why_unsupported(language("th")) or "")


def test_a_path_is_read_instead_of_the_hubs_dataset(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "tha_Thai.jsonl", questions("tha_Thai"))
    task = Belebele(0, str(path), "facebook/belebele", HASH, "data/{language}.jsonl")
    assert (
        Store(tmp_path / "cache")
        .realise(task.inputs(language("th"), language("th"))["asset"])
        .joinpath(path.name)
        .is_file()
    )


def test_from_the_hub_the_commit_and_the_file_decide_the_key() -> None:
    def key(code: str, revision: str = HASH) -> str:
        made = Belebele(0, None, "facebook/belebele", revision, "data/{language}.jsonl")
        return items_step(made, Mode.rank, language(code), 0).key

    assert len({key("th"), key("sw"), key("th", HASH[::-1])}) == 3
    assert key("th") == key("th")


def test_missing_files_and_columns_are_named(tmp_path: Path) -> None:
    thai, store = language("th"), Store(tmp_path / "cache")

    def made(task: Any) -> None:
        asked, answered = task.pairs(language("en"), thai)[0]
        store.realise(items_step(task, task.mode, asked, 0, answered))

    with pytest.raises(InputError, match=r"task\.belebele\.path=.*/tha_Thai\.jsonl: there is no such file"):
        made(local(Belebele, tmp_path / "{language}.jsonl"))
    with pytest.raises(InputError, match=r"\{lang\} is no placeholder"):
        made(local(XLSum, tmp_path / "{lang}.jsonl"))
    wrong = questions("tha_Thai")
    del wrong[1]["flores_passage"]
    with pytest.raises(InputError, match=r"path=.*line 2 has no column `flores_passage`, only link, .*own file"):
        made(local(Belebele, jsonl(tmp_path / "passage.jsonl", wrong)))
    wrong = [{**questions("tha_Thai")[0], "correct_answer_num": "5"}]
    with pytest.raises(InputError, match=r"line 1 has 5 in `correct_answer_num`: it is 1 to 4; .*own file"):
        made(local(Belebele, jsonl(tmp_path / "gold.jsonl", wrong)))
    with pytest.raises(InputError, match=r"empty\.jsonl has no rows"):
        made(local(Belebele, jsonl(tmp_path / "empty.jsonl", [])))
    with pytest.raises(InputError, match=r"line 1 has \"\" in `summary`: a test item needs a text there; .*own file"):
        made(local(XLSum, jsonl(tmp_path / "x.jsonl", [{"id": "1", "text": "t", "summary": " "}])))
    with pytest.raises(InputError, match=r"line 1 has no column `answers\.th`"):
        made(local(MKQA, jsonl(tmp_path / "m.jsonl", [{"example_id": 1, "queries": {"th": "q"}, "answers": {}}])))
    with pytest.raises(InputError, match=r"line 1 has no column `queries\.th`"):
        made(local(MKQA, jsonl(tmp_path / "q.jsonl", [mkqa_row(1, {"en": []})])))
    jsonl(tmp_path / "f/eng_Latn.jsonl", flores_rows(ENGLISH))
    jsonl(tmp_path / "f/tha_Thai.jsonl", flores_rows(THAI[:2]))
    with pytest.raises(InputError, match=r"3 sentences of .*eng_Latn\.jsonl and the 2 of .*do not belong together"):
        made(local(Flores, tmp_path / "f/{language}.jsonl"))
    jsonl(tmp_path / "d/eng_Latn.jsonl", flores_rows(ENGLISH) * 2)
    jsonl(tmp_path / "d/tha_Thai.jsonl", flores_rows(THAI) * 2)
    with pytest.raises(InputError, match="line 4 has the id 0 again; give a file of one language"):
        made(local(Flores, tmp_path / "d/{language}.jsonl"))
    jsonl(tmp_path / "g/eng_Latn.jsonl", flores_rows(ENGLISH))
    jsonl(tmp_path / "g/tha_Thai.jsonl", [{"id": 0, "satz": "x"}])
    with pytest.raises(InputError, match=r"line 1 has no column `text`, only id, satz"):
        made(local(Flores, tmp_path / "g/{language}.jsonl"))


def test_generative_benchmarks_are_asked_without_examples() -> None:
    with pytest.raises(InputError, match=r"task\.mkqa\.shots=2: mkqa is asked without examples; write 0"):
        MKQA(2, "/x.jsonl", None, None, None)
    assert Belebele(5, "/x.jsonl", None, None, None).shots == 5


def test_mkqa_by_its_authors_evaluation(tmp_path: Path) -> None:
    overrides = ("task=mkqa", "task.mkqa.path=/mkqa.jsonl.gz", "task.mkqa.normalisation=mkqa")
    (tmp_path / "other").mkdir()
    made = build(compose(tmp_path, *overrides)["mkqa"])
    assert made.normalisation is Normalisation.mkqa
    assert made.why_unsupported(language("th")) is None
    mlqa = build(compose(tmp_path / "other", *overrides[:2], "task.mkqa.normalisation=mlqa")["mkqa"])
    assert "MLQA's evaluation has" in mlqa.why_unsupported(language("th"))
