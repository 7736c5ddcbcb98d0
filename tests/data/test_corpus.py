"""The corpus: what is shipped, column maps of the known sets, what is refused, and that the split never moves."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from sdx import InputError
from sdx.config import CorpusColumns, CorpusConfig, ScaleConfig
from sdx.data.corpus import SEED_CORPUS, corpus_step, read_corpus, split
from sdx.languages import language
from sdx.store.files import read_rows
from sdx.store.store import Store

EN, FR, TH = language("en"), language("fr"), language("th")
PLAIN = CorpusColumns()
CONF = Path(__file__).parents[2] / "conf" / "corpus"
SMALL = ScaleConfig(heldout_rows=1)


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def conf(option: str, **given: Any) -> CorpusConfig:
    """An option of conf/corpus/, with some of its values replaced."""
    values = OmegaConf.load(CONF / f"{option}.yaml")
    assert values.pop("defaults") == ["schema", "_self_"]
    corpus = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(CorpusConfig), values, given))
    assert isinstance(corpus, CorpusConfig)
    return corpus


def realise(config: CorpusConfig, cache: Path, source: Any = EN) -> tuple[dict[str, dict[str, str]], dict[str, Any]]:
    """(rows of both files by instruction, counts of the manifest)."""
    store = Store(cache)
    step = corpus_step(config, SMALL, source)
    path = store.realise(step)
    rows = read_rows(path / "train.jsonl") + read_rows(path / "heldout.jsonl")
    return {row["instruction"]: row for row in rows}, store.manifest(step)["counts"]


def parts(rows: list[dict[str, Any]], *sizes: int) -> list[list[dict[str, Any]]]:
    return [[rows[number] for number in part] for part in split(rows, *sizes)]


def test_the_shipped_corpus_is_large_varied_and_clean(tmp_path: Path):
    rows = read_corpus(SEED_CORPUS)
    assert len(rows) == conf("seed").rows
    assert len({row["instruction"].lower() for row in rows}) == len(rows)
    assert len({row["answer"] for row in rows}) == len(rows)
    categories = Counter(row["id"].rpartition("-")[0] for row in rows)
    assert len(categories) >= 20
    assert max(categories.values()) < 0.1 * len(rows)
    realised, counts = realise(conf("seed"), tmp_path)
    assert sorted(realised) == sorted(row["instruction"] for row in rows)
    assert counts == {"train": len(rows) - 1, "heldout": 1, "dropped": 0, "repeated": 0}


def test_split_is_disjoint_and_does_not_depend_on_the_order_of_the_file():
    rows = read_corpus(SEED_CORPUS)
    train, heldout = parts(rows, 100, 20)
    again = parts(rows[::-1], 300, 20)
    assert (len(train), len(heldout)) == (100, 20)
    assert again[1] == heldout
    assert again[0][:100] == train
    assert not {row["id"] for row in train} & {row["id"] for row in heldout}


def test_the_split_of_the_shipped_corpus_is_that_of_earlier_results():
    _, heldout = parts(read_corpus(SEED_CORPUS), ScaleConfig().corpus_rows, 3)
    assert [row["id"] for row in heldout] == ["summarize-26", "how_to-01", "compare-21"]


ALPACA = [
    {
        "instruction": "Give three tips for staying healthy.",
        "input": "",
        "output": "1. Eat well. \n2. Exercise. \n3. Sleep.",
        "text": "Below is an instruction that describes a task.",
    },
    {
        "instruction": "Identify the odd one out.",
        "input": "Twitter, Instagram, Telegram",
        "output": "Telegram",
        "text": "Below is an instruction, paired with an input.",
    },
    {"instruction": "Write a short poem about the sea.", "input": "", "output": "", "text": "Below is"},
    {"instruction": "Identify the odd one out.", "input": "cat, dog, car", "output": "The car.", "text": ""},
]
DOLLY = [
    {
        "instruction": "When did Virgin Australia start operating?",
        "context": "Virgin Australia commenced services on 31 August 2000 as Virgin Blue.\n",
        "response": "On 31 August 2000.",
        "category": "closed_qa",
    },
    {"instruction": "Why can camels survive so long?", "context": "", "response": "Fat.", "category": "open_qa"},
    {"instruction": "Which is a species of fish? Tope or Rope", "context": "", "response": "Tope", "category": "x"},
]
BACTRIAN = [
    {"instruction": "ให้คำแนะนำสามข้อ", "input": "", "output": "1. กินดี", "id": "alpaca-0"},
    {"instruction": "สรุปข้อความนี้", "input": "หุ่นยนต์", "output": "หุ่นยนต์เติบโต", "id": "alpaca-107"},
    {"instruction": "ทำไมอูฐจึงอยู่ได้นาน", "input": None, "output": "ไขมัน", "id": "dolly-3"},
]


def as_local(option: str, path: Path) -> CorpusConfig:
    """The option with a local copy instead of the hub, as the messages advise."""
    return conf(option, hub_id=None, path=str(path))


def test_alpaca(tmp_path: Path):
    import pyarrow
    from pyarrow.parquet import write_table

    path = tmp_path / "train-00000-of-00001-a09b74b3ef9c3b56.parquet"
    write_table(pyarrow.Table.from_pylist(ALPACA), path)
    rows, counts = realise(as_local("alpaca", path), tmp_path)
    assert set(rows) == {
        "Give three tips for staying healthy.",
        "Identify the odd one out.\n\nTwitter, Instagram, Telegram",
        "Identify the odd one out.\n\ncat, dog, car",
    }
    assert rows["Identify the odd one out.\n\ncat, dog, car"]["answer"] == "The car."
    assert counts == {"train": 2, "heldout": 1, "dropped": 1, "repeated": 0}


def test_dolly(tmp_path: Path):
    rows, counts = realise(as_local("dolly", write(tmp_path / "databricks-dolly-15k.jsonl", *DOLLY)), tmp_path)
    assert counts["train"] + counts["heldout"] == 3
    asked = "When did Virgin Australia start operating?"
    assert f"{asked}\n\nVirgin Australia commenced services on 31 August 2000 as Virgin Blue." in rows
    assert rows["Why can camels survive so long?"]["answer"] == "Fat."


def test_bactrian_x_takes_the_file_of_the_source_language(tmp_path: Path):
    (tmp_path / "th.json.gz").write_bytes(gzip.compress(json.dumps(BACTRIAN).encode()))
    config = as_local("bactrian_x", tmp_path / "{language}.json.gz")
    rows, _ = realise(config, tmp_path, TH)
    assert {row["id"] for row in rows.values()} == {"alpaca-0", "alpaca-107", "dolly-3"}
    assert rows["สรุปข้อความนี้\n\nหุ่นยนต์"]["answer"] == "หุ่นยนต์เติบโต"
    with pytest.raises(InputError, match=r"fr\.json\.gz: there is no such file"):
        corpus_step(config, SMALL, FR)


@pytest.mark.parametrize("option", [path.stem for path in CONF.glob("*.yaml")])
def test_every_option_can_work_and_pins_what_it_fetches(option: str, tmp_path: Path):
    config = conf(option, **{"path": str(write(tmp_path / "a.jsonl", GOOD))} if option == "file" else {})
    assert config.name == option
    assert corpus_step(config, SMALL, EN).language == EN
    if config.hub_id:
        assert re.fullmatch("[0-9a-f]{40}", config.revision or "")
        assert config.rows
        assert corpus_step(config, SMALL, EN).key != corpus_step(conf("seed"), SMALL, EN).key


def test_columns_of_any_kind(tmp_path: Path):
    lines = [
        {"turns": [{"text": "Hi?"}, {"text": "Hello."}], "n": 0, "in": {"put": " a text \n"}},
        {"turns": [{"text": "Why?"}, {"text": " Because. "}], "n": 2.5},
    ]
    columns = CorpusColumns(instruction="turns.0.text", input="in.put", answer="turns.1.text", id="n")
    rows = read_corpus(write(tmp_path / "a.jsonl", *lines), columns)
    assert rows == [
        {"id": "0", "instruction": "Hi?\n\na text", "answer": "Hello."},
        {"id": "2.5", "instruction": "Why?", "answer": "Because."},
    ]


def test_no_row_goes_missing_by_its_id_and_no_instruction_comes_twice(tmp_path: Path):
    lines = [
        {"id": 7, "instruction": "a", "answer": "1"},
        {"id": 7, "instruction": "b", "answer": "2"},
        {"id": "8", "instruction": "c", "answer": "3"},
        {"id": "9", "instruction": " c", "answer": "4"},
        {"id": "", "instruction": "d", "answer": "5"},
        {"instruction": "e", "answer": "6"},
        {"id": None, "instruction": "f", "answer": " "},
    ]
    left_out: Counter[str] = Counter()
    rows = read_corpus(write(tmp_path / "a.jsonl", *lines), CorpusColumns(id="id"), left_out=left_out)
    assert left_out == {"dropped": 1, "repeated": 1}
    assert [(row["instruction"], row["answer"]) for row in rows] == [
        *[("a", "1"), ("b", "2"), ("c", "3"), ("d", "5"), ("e", "6")]
    ]
    assert len({row["id"] for row in rows}) == 5
    assert [row["id"].startswith("7-") for row in rows] == [True, True, False, False, False]
    again = read_corpus(write(tmp_path / "b.jsonl", *lines[::-1]), CorpusColumns(id="id"))
    assert {row["instruction"]: row["id"] for row in again if row["instruction"] != "c"} == {
        row["instruction"]: row["id"] for row in rows if row["instruction"] != "c"
    }


GOOD = {"instruction": "a", "answer": "b"}


@pytest.mark.parametrize(
    ("lines", "columns", "message"),
    [
        ([GOOD, "{'instruction': 'a'}"], PLAIN, "line 2 is not JSON"),
        ([["a", "b"]], PLAIN, "line 1 is a JSON array"),
        (["", ""], PLAIN, "has no rows"),
        ([GOOD, {"instruction": "c"}], PLAIN, "line 2 has no column `answer`, only instruction; .*columns.answer=..."),
        (ALPACA, PLAIN, "line 1 has no column `answer`, only instruction, input, output, text; .*columns.answer=..."),
        (
            DOLLY,
            CorpusColumns(answer="response", input="input"),
            "`input`, only instruction, context, .*columns.input=",
        ),
        ([GOOD], CorpusColumns(id="id"), "has no column `id`, only instruction, answer; .*corpus.columns.id=..."),
        ([{}], PLAIN, "line 1 has no column `instruction`, only none"),
        ([{"instruction": " ", "answer": "b"}], PLAIN, "1 of 1 rows have no text in `instruction` or `answer`"),
        ([GOOD, {**GOOD, "answer": ""}, {**GOOD, "answer": None}], PLAIN, "2 of 3 rows have no text in"),
        ([{**GOOD, "answer": 5}], PLAIN, "line 1 has no text in `answer` but 5; make it a string"),
        ([{**GOOD, "answer": []}], PLAIN, r"line 1 has no text in `answer` but \[\]; make it a string"),
        ([{**GOOD, "answer": ["x"]}], PLAIN, r"but answer.0; name one of them as corpus.columns.answer=..."),
        ([{**GOOD, "instruction": {"en": "x", "th": "y"}}], PLAIN, "but instruction.en, instruction.th; name one"),
    ],
)
def test_bad_files_are_refused_with_place_and_fix(
    tmp_path: Path, lines: list[object], columns: CorpusColumns, message: str
):
    path = write(tmp_path / "corpus.jsonl", *lines)
    config = CorpusConfig(name="x", path=str(path), columns=columns)
    with pytest.raises(InputError, match=message) as error:
        Store(tmp_path).realise(corpus_step(config, SMALL, EN))
    assert str(error.value).startswith(f"corpus.path={path}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "source", "message"),
    [
        (
            conf("seed"),
            FR,
            "corpus.language=en is not source=fr: corpus=seed is in English; give instructions in French as "
            "corpus.path=... with corpus.language=fr, or take corpus=bactrian_x",
        ),
        (conf("dolly"), TH, "corpus=dolly is in English"),
        (conf("file"), EN, "corpus.path= is empty; give the path of a file, as in corpus.path=/data/mine.jsonl"),
        (CorpusConfig(name="x", path="a.xlsx"), EN, "corpus.path=a.xlsx cannot be read by its ending"),
        (CorpusConfig(name="x", path="/none.jsonl"), EN, "corpus.path=/none.jsonl: there is no such file"),
        (CorpusConfig(name="x", path="/{lang}.json"), EN, r"\{lang\} is no placeholder \(there are \{language\}\)"),
        (
            CorpusConfig(name="x", hub_id="a/b", file="a.json"),
            EN,
            "corpus.revision=None does not pin .*corpus.revision=",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_read(config: CorpusConfig, source: Any, message: str):
    with pytest.raises(InputError, match=message):
        corpus_step(config, SMALL, source)


def test_any_spelling_of_the_source_language_will_do(tmp_path: Path):
    path = str(write(tmp_path / "a.jsonl", GOOD))
    for code in ("en", "eng", "eng_Latn", "EN", None):
        corpus_step(CorpusConfig(name="x", language=code, path=path), SMALL, EN)


def test_a_corpus_that_is_all_held_out():
    with pytest.raises(InputError, match=r"scale.heldout_rows=5 leaves none of the corpus's 1 rows"):
        split([{"id": "a"}], 0, 5)


def test_the_key_follows_the_content_and_the_columns_not_the_place(tmp_path: Path):
    def key(path: Path, **options: Any) -> str:
        return corpus_step(CorpusConfig(name="x", path=str(path), **options), SMALL, EN).key

    (tmp_path / "elsewhere").mkdir()
    first, second = write(tmp_path / "a.jsonl", GOOD), write(tmp_path / "elsewhere" / "a.jsonl", GOOD)
    before = key(first)
    assert key(second) == key(first, rows=5, language="en") == before
    assert key(first, columns=CorpusColumns(answer="instruction")) != before
    write(first, GOOD, {**GOOD, "instruction": "c"})
    assert key(first) != before
