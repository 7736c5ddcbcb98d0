"""English texts: packaged, from a file, streamed, and resumed after a kill."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from sdx import InputError
from sdx.config import TextConfig
from sdx.stacking import english_texts
from sdx.stacking.english_texts import check, sentences, texts_step
from sdx.store.files import read_rows, write_rows
from sdx.store.step import Step, Workspace
from sdx.store.store import Store

REVISION = "0123456789abcdef" * 2 + "01234567"
HUB = TextConfig(name="hub", hub_id="someone/web", revision=REVISION, subset="sample-10BT")
TEXTS = [f"Text number {number} is about nothing at all." for number in range(25)]


def table(path: Path, texts: Sequence[Any], column: str = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table({column: texts, "id": [f"x{n}" for n in range(len(texts))]}), path)
    return path


def read(step: Step, cache: Path) -> list[str]:
    rows = read_rows(Store(cache).realise(step) / "rows.jsonl")
    assert [int(row["id"]) for row in rows] == sorted({int(row["id"]) for row in rows})
    assert all(list(row) == ["id", "text"] for row in rows)
    return [row["text"] for row in rows]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TextConfig(name="x"), r"exactly one of text\.asset, text\.hub_id and text\.path, not none of them"),
        (TextConfig(name="x", asset="english", path="a.jsonl"), r"not text\.asset=english and text\.path"),
        (TextConfig(name="x", hub_id="a/b", revision="main"), r"text\.revision=main .*40 hexadecimal"),
        (TextConfig(name="x", path="a.txt"), r"text\.path=a\.txt cannot be read by its ending"),
    ],
)
def test_sources_that_cannot_work(config: TextConfig, message: str):
    with pytest.raises(InputError, match=message):
        check(config)


def test_sources_that_can():
    for config in (TextConfig(name="x", asset="english"), TextConfig(name="x", path="a.parquet"), HUB):
        check(config)


def test_sentences():
    text = "One. Two is a sentence that is long enough to stand alone.\n It has a friend! And so on"
    assert list(sentences(text)) == [
        "One. Two is a sentence that is long enough to stand alone.",
        "It has a friend! And so on",
    ]
    assert list(sentences("  ")) == []
    assert list(sentences("e.g. this is all one sentence, of Dr. No")) == ["e.g. this is all one sentence, of Dr. No"]


# Packaged


def arrow(folder: Path, name: str, columns: dict[str, list[str]]) -> None:
    path = folder / english_texts.PACKAGED / name / "none/validation/data-00000-of-00001.arrow"
    path.parent.mkdir(parents=True)
    made = pyarrow.table(columns)
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, made.schema) as stream:
        stream.write_table(made)


def packaged(tmp_path: Path, rows: int, out: str) -> list[str]:
    asset = tmp_path / "asset"
    if not asset.exists():
        passage = "This is the first sentence of a passage, and long. The second sentence is long enough, too."
        arrow(asset, "boolq", {"question": ["is it unused, this question of mine"], "passage": [passage]})
        support = ["What is said here supports the answer to it.", passage]
        arrow(asset, "sciq", {"question": ["Which of these is no gas, if any is one?"] * 2, "support": support})
        arrow(asset, "trivia_qa", {"question": ["Who asked this question, and of whom and why?"], "answer": ["nobody"]})
    work = Workspace(tmp_path / out, {"asset": asset})
    work.dir.mkdir()
    texts_step(TextConfig(name="offline", asset="english"), rows).run(work)
    found = [row["text"] for row in read_rows(work.dir / "rows.jsonl")]
    assert work.counts == {"texts": len(found)}
    return found


def test_packaged_texts(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, "sdx"):
        whole = packaged(tmp_path, 5, "five")
        assert not caplog.messages
        assert sorted(whole) == [
            "The second sentence is long enough, too.",
            "This is the first sentence of a passage, and long.",
            "What is said here supports the answer to it.",
            "Which of these is no gas, if any is one?",
            "Who asked this question, and of whom and why?",
        ]  # each once
        assert packaged(tmp_path, 2, "two") == whole[:2]
        assert packaged(tmp_path, 6, "six") == whole
    assert "text.asset=english has 5 texts, fewer than scale.text_rows=6" in caplog.text


def test_packaged_texts_are_asked_of_the_asset():
    step = texts_step(TextConfig(name="offline", asset="english"), 5)
    assert step.inputs["asset"].config["name"] == "english"
    assert step.key != texts_step(TextConfig(name="offline", asset="english"), 6).key


# A file


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_file(tmp_path: Path, ending: str, caplog: pytest.LogCaptureFixture):
    path, given = tmp_path / f"mine.{ending}", [*TEXTS[:2], "  ", f"  {TEXTS[2]}\n", *TEXTS[3:]]
    if ending == "parquet":
        table(path, given, "content")
    else:
        write_rows(path, [{"content": text, "more": 1} for text in given])
    config = TextConfig(name="file", path=str(path), column="content")
    with caplog.at_level(logging.WARNING, "sdx"):
        assert read(texts_step(config, 10), tmp_path / "cache") == TEXTS[:10]  # an empty one is none
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert read(texts_step(config, 30), tmp_path / "cache") == TEXTS
    assert f"text.path={path} has 25 texts, fewer than scale.text_rows=30" in caplog.text


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"content": "a"}], r"line 1 has no column `text`, only content; name the right one as text\.column="),
        ([{"text": "a"}, {"text": 3}], r"line 2 has no text in `text`"),
        ([{"text": " "}], r"mine\.jsonl: there is no text; give another"),
    ],
)
def test_files_without_texts(tmp_path: Path, rows: list[dict[str, Any]], message: str):
    write_rows(tmp_path / "mine.jsonl", rows)
    step = texts_step(TextConfig(name="file", path=str(tmp_path / "mine.jsonl")), 2)
    with pytest.raises(InputError, match=message):
        Store(tmp_path / "cache").realise(step)


# Streamed


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset of two files, laid out as on the hub; only its name is replaced by its directory."""
    import datasets

    folder, load_dataset = tmp_path / "web", datasets.load_dataset

    def load(name: str, *arguments: Any, **options: Any) -> Any:
        assert (name, options.pop("revision")) == ("someone/web", REVISION)
        return load_dataset(str(folder), *arguments, **options)

    table(folder / "sample/10BT/000.parquet", TEXTS[:10])
    table(folder / "sample/10BT/001.parquet", TEXTS[10:])
    table(folder / "sample/100BT/000.parquet", ["another subset"])
    subsets = "".join(f"- config_name: sample-{n}BT\n  data_files: sample/{n}BT/*.parquet\n" for n in (10, 100))
    (folder / "README.md").write_text(f"---\nconfigs:\n{subsets}---\n")
    monkeypatch.setattr(datasets, "load_dataset", load)
    return folder


def test_streamed(hub: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, "sdx"):
        assert read(texts_step(HUB, 14), tmp_path / "cache") == TEXTS[:14]
        assert not caplog.messages
        assert read(texts_step(HUB, 30), tmp_path / "cache") == TEXTS
    assert "text.hub_id=someone/web has 25 texts, fewer than scale.text_rows=30" in caplog.text


class Broken(Exception):
    pass


@pytest.mark.parametrize("error", [Broken, ConnectionError])
def test_streamed_on_behind_what_is_on_disk(
    hub: Path, tmp_path: Path, error: type[Exception], monkeypatch: pytest.MonkeyPatch
):
    import datasets

    load = datasets.load_dataset
    taken: list[str] = []

    class Stream:
        def __init__(self, rows: Any, until: int) -> None:
            self.rows, self.until = rows, until

        def skip(self, count: int) -> "Stream":
            return Stream(self.rows.skip(count), self.until)

        def __iter__(self) -> Iterator[Any]:
            for number, row in enumerate(self.rows):
                if number == self.until:
                    raise error("broke")
                taken.append(row["text"])
                yield row

    step = texts_step(HUB, 18)
    store = Store(tmp_path / "rough")
    for until in (6, 5):
        monkeypatch.setattr(datasets, "load_dataset", lambda *a, until=until, **o: Stream(load(*a, **o), until))
        with pytest.raises(error if error is Broken else InputError, match="broke"):
            store.realise(step)
    assert taken == TEXTS[:11]
    taken.clear()
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **o: Stream(load(*a, **o), -1))
    assert read(step, tmp_path / "rough") == TEXTS[:18]
    assert taken == TEXTS[11:18]
    calm = Store(tmp_path / "calm").realise(step)
    assert (calm / "rows.jsonl").read_bytes() == (store.path(step) / "rows.jsonl").read_bytes()
    assert {path.name for path in calm.iterdir()} == {path.name for path in store.path(step).iterdir()}


def test_streamed_texts_that_are_empty(hub: Path, tmp_path: Path):
    """An LLM without BOS has no tokens for them, and the mean of no tokens is NaN."""
    table(hub / "sample/10BT/000.parquet", ["", " \n", *TEXTS[:8]])
    assert read(texts_step(HUB, 12), tmp_path / "cache") == [*TEXTS[:8], *TEXTS[10:14]]


def test_streamed_without_the_column(hub: Path, tmp_path: Path):
    config = TextConfig(name="hub", hub_id=HUB.hub_id, revision=REVISION, subset=HUB.subset, column="content")
    with pytest.raises(InputError, match=r"text\.hub_id=someone/web, row 0 has no column `content`"):
        Store(tmp_path / "cache").realise(texts_step(config, 3))


def test_streamed_from_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import datasets

    def load(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(InputError, match=r"someone/web at 0123.*no route to host\); offline, take text=offline"):
        Store(tmp_path / "cache").realise(texts_step(HUB, 3))
