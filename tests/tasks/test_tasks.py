"""The benchmarks from small files in the asset's formats and from the installed harness."""

from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest

from sdx import InputError
from sdx.languages import language
from sdx.tasks.base import Instructions, Item, Mode, shuffled
from sdx.tasks.mmlu import MMLUHuman
from tests.kit.task_files import MMLU_LANGUAGES


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


def read(task: MMLUHuman, code: str, asset: Path = Path("nowhere")) -> list[Item]:
    return shuffled(task.read({"asset": asset}, language(code), language(code)))


@pytest.mark.parametrize("code", MMLU_LANGUAGES)
def test_human_translations_of_mmlu(code: str) -> None:
    task = MMLUHuman(shots=0)
    items = read(task, code)
    assert len(items) == 285
    assert set(Counter(item.id.split("/")[0] for item in items).values()) == {5}
    assert all(len(item.choices) == 4 and 0 <= item.gold < 4 for item in items)
    assert all(text.strip() for item in items for text in (item.prompt, *item.choices))
    # All 285 right letters are those of the English set: the hash is of the asset's letters.
    letters = "".join("ABCD"[item.gold] for item in sorted(items, key=lambda item: item.id))
    assert sha256(letters.encode()).hexdigest()[:16] == "d41739eb69d99cdc"
    assert task.why_unsupported(language(code)) is None
    assert not task.needs_translation(language(code), language("en"))
    assert task.origin(language(code)) == "human-translated"


def test_mmlu_languages_are_aligned_in_order(tmp_path: Path) -> None:
    task = MMLUHuman(shots=0)
    portuguese = read(task, "pt")
    golds: dict[str, list[int]] = {}
    for item in sorted(portuguese, key=lambda item: item.id):
        golds.setdefault(item.id.split("/")[0], []).append(item.gold)
    write_english_mmlu(tmp_path, golds)
    english = read(task, "en", tmp_path)
    assert [(item.id, item.gold) for item in english] == [(item.id, item.gold) for item in portuguese]
    assert english[0].choices == list("wxyz")
    assert task.origin(language("en")) == "original"
    assert len({item.id.split("/")[0] for item in english[:57]}) > 25  # the first ones are of many subjects


def test_mmlu_says_where_it_cannot_be_run() -> None:
    able = "English, French, German, Hindi, Italian, Portuguese, Spanish, Thai"
    reason = MMLUHuman(shots=0).why_unsupported(language("sw"))
    assert reason == f"human translations exist for {able} only."


def test_instructions_are_translated_from_the_source() -> None:
    task = Instructions(shots=0)
    assert task.mode is Mode.generate
    assert task.asset is None
    assert task.original(language("fr")).code == "fr"
    assert task.needs_translation(language("th"), language("fr"))
    assert not task.needs_translation(language("fr"), language("fr"))


def test_shots() -> None:
    assert MMLUHuman(shots=3).shots == 3
    with pytest.raises(InputError, match=r"task\.instructions\.shots=2"):
        Instructions(shots=2)
