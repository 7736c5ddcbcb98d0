"""The benchmarks from small files in the asset's formats and from the installed harness."""

import gzip
import json
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest

from sdx.config import InputError
from sdx.evaluation.tasks import ArcEasy, Instructions, Kind, MMLUHuman
from sdx.languages import language

TRANSLATIONS = ("de", "es", "fr", "hi", "it", "pt", "th")


def write_arc(root: Path, count: int) -> None:
    """As in the asset: a request per answer, and again without the question under another `doc_id`."""
    path = root / ArcEasy.requests
    path.parent.mkdir(parents=True)
    with gzip.open(path, "wt", encoding="utf-8") as lines:
        for number in range(count):
            query = f"Question: Which is number {number}?\nNot\nAnswer: 3?\nAnswer:"
            doc = {"id": f"Q_{number}", "query": query, "choices": ["one", "é", "three"], "gold": number % 3}
            for offset, context in ((0, query), (1_000_000, "Answer:")):
                for index, choice in enumerate(doc["choices"]):
                    row = {
                        "doc": doc,
                        "request": {"context": context, "continuation": f" {choice}"},
                        "idx": index,
                        "doc_id": number + offset,
                        "native_id": doc["id"],
                        "label": doc["gold"],
                    }
                    lines.write(json.dumps(row) + "\n")


def write_english_mmlu(root: Path, golds: dict[str, list[int]]) -> None:
    import pyarrow

    for subject, letters in golds.items():
        path = root / MMLUHuman.english / subject / "dev" / "data-00000-of-00001.arrow"
        path.parent.mkdir(parents=True)
        rows = [
            {"question": f"{subject} {n}?", "subject": subject, "choices": list("wxyz"), "answer": gold}
            for n, gold in enumerate(letters)
        ]
        table = pyarrow.Table.from_pylist(rows)
        with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)


def test_arc_easy(tmp_path: Path) -> None:
    write_arc(tmp_path, ArcEasy.count)
    task = ArcEasy(shots=0)
    items = task.read(tmp_path, language("en"))
    assert len(items) == 2376
    assert len({item["id"] for item in items}) == 2376
    item = next(item for item in items if item["id"] == "Q_4")
    assert item == {
        "id": "Q_4",
        "question": "Which is number 4?\nNot\nAnswer: 3?",
        "choices": ["one", "é", "three"],
        "gold": 1,
    }
    assert items == task.read(tmp_path, language("en"))
    first = [int(item["id"][2:]) for item in items[:300]]
    assert first != sorted(first)
    assert 1000 < sum(first) / 300 < 1400  # a sample of all, not the beginning
    assert task.kind is Kind.answers
    assert not task.needs_translation(language("en"), language("fr"))
    assert task.needs_translation(language("fr"), language("fr"))
    assert task.original(language("fr")).code == "en"
    assert task.obstacle(language("th")) is None


def test_incomplete_arc_easy(tmp_path: Path) -> None:
    write_arc(tmp_path, 7)
    with pytest.raises(InputError, match="holds 7 questions instead of 2376"):
        ArcEasy(shots=0).read(tmp_path, language("en"))


@pytest.mark.parametrize("code", TRANSLATIONS)
def test_human_translations_of_mmlu(code: str) -> None:
    task = MMLUHuman(shots=0)
    items = task.read(None, language(code))
    assert len(items) == 285
    assert set(Counter(item["id"].split("/")[0] for item in items).values()) == {5}
    assert all(len(item["choices"]) == 4 and 0 <= item["gold"] < 4 for item in items)
    assert all(text.strip() for item in items for text in (item["question"], *item["choices"]))
    # Right answers stand at the letters of the English set, all 285: the hash is that of the asset's.
    letters = "".join("ABCD"[item["gold"]] for item in sorted(items, key=lambda item: item["id"]))
    assert sha256(letters.encode()).hexdigest()[:16] == "d41739eb69d99cdc"
    assert task.obstacle(language(code)) is None
    assert not task.needs_translation(language(code), language("en"))
    assert task.origin(language(code)) == "human-translated"


def test_mmlu_languages_are_aligned_in_order(tmp_path: Path) -> None:
    task = MMLUHuman(shots=0)
    portuguese = task.read(None, language("pt"))
    golds: dict[str, list[int]] = {}
    for item in sorted(portuguese, key=lambda item: item["id"]):
        golds.setdefault(item["id"].split("/")[0], []).append(item["gold"])
    write_english_mmlu(tmp_path, golds)
    english = task.read(tmp_path, language("en"))
    assert [(item["id"], item["gold"]) for item in english] == [(item["id"], item["gold"]) for item in portuguese]
    assert english[0]["choices"] == list("wxyz")
    assert task.origin(language("en")) == "original"
    assert len({item["id"].split("/")[0] for item in english[:57]}) > 25  # the first ones are of many subjects


def test_mmlu_says_where_it_cannot_be_run() -> None:
    able = "English, French, German, Hindi, Italian, Portuguese, Spanish, Thai"
    reason = MMLUHuman(shots=0).obstacle(language("sw"))
    assert reason == f"human translations exist for {able} only."


def test_instructions_are_translated_from_the_source() -> None:
    task = Instructions(shots=0)
    assert task.kind is Kind.instructions
    assert task.asset is None
    assert task.original(language("fr")).code == "fr"
    assert task.needs_translation(language("th"), language("fr"))
    assert not task.needs_translation(language("fr"), language("fr"))


def test_shots() -> None:
    assert ArcEasy(shots=3).shots == 3
    with pytest.raises(InputError, match=r"task\.arc_easy\.shots=-1"):
        ArcEasy(shots=-1)
    with pytest.raises(InputError, match=r"task\.instructions\.shots=2"):
        Instructions(shots=2)
