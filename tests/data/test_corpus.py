"""The corpus: what is shipped, what is refused, and that the split never moves."""

import json
from collections import Counter
from pathlib import Path

import pytest

from sdx.config import CorpusConfig, InputError, ScaleConfig
from sdx.data.corpus import SEED_CORPUS, corpus_file, corpus_step, read_corpus, split


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_the_shipped_corpus_is_large_varied_and_clean():
    rows = read_corpus(SEED_CORPUS)
    assert len(rows) >= 500
    assert len({row["instruction"].lower() for row in rows}) == len(rows)
    assert len({row["answer"] for row in rows}) == len(rows)
    categories = Counter(row["id"].rpartition("-")[0] for row in rows)
    assert len(categories) >= 20
    assert max(categories.values()) < 0.1 * len(rows)


def test_split_is_disjoint_and_does_not_depend_on_the_order_of_the_file():
    rows = read_corpus(SEED_CORPUS)
    train, heldout = split(rows, ScaleConfig(corpus_rows=100, heldout_rows=20))
    again = split(rows[::-1], ScaleConfig(corpus_rows=300, heldout_rows=20))
    assert (len(train), len(heldout)) == (100, 20)
    assert again[1] == heldout
    assert again[0][:100] == train
    assert not {row["id"] for row in train} & {row["id"] for row in heldout}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{'instruction': 'a'}"], "line 1 is not JSON"),
        ([{"instruction": "a", "answer": "b"}, {"instruction": "c"}], "line 2 has no text in `answer`"),
        ([{"instruction": " ", "answer": "b"}], "line 1 has no text in `instruction`"),
        ([["a", "b"]], "line 1 has no text in `instruction`"),
        (["", ""], "has no rows"),
    ],
)
def test_bad_files_are_refused_with_the_place(tmp_path: Path, lines: list[object], message: str):
    path = write(tmp_path / "corpus.jsonl", *lines)
    with pytest.raises(InputError, match=message) as error:
        read_corpus(path)
    assert str(path) in str(error.value)


def test_missing_file_and_a_corpus_that_is_all_held_out(tmp_path: Path):
    with pytest.raises(InputError, match="no such file"):
        corpus_file(CorpusConfig(name="x", path=str(tmp_path / "none.jsonl")))
    with pytest.raises(InputError, match=r"scale.heldout_rows=5 leaves none"):
        split([{"id": "a"}], ScaleConfig(heldout_rows=5))


def test_the_key_follows_the_content_not_the_path(tmp_path: Path):
    row = {"instruction": "a", "answer": "b"}
    first, second = write(tmp_path / "a.jsonl", row), write(tmp_path / "b.jsonl", row)
    keys = [corpus_step(CorpusConfig(name="x", path=str(path)), ScaleConfig()).key for path in (first, second)]
    assert keys[0] == keys[1]
    write(first, row, {**row, "instruction": "c"})
    assert corpus_step(CorpusConfig(name="x", path=str(first)), ScaleConfig()).key != keys[0]
