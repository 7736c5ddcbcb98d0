"""Data files: what is refused, where they come from, every format both ways, every kind of damage."""

import functools
import gzip
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdx import InputError
from sdx.options.source import FileSource
from sdx.sources.files import column, column_names, file_step, local_file, published, read_lines, read_records
from sdx.store.store import Store
from tests.kit.mock_hub import REVISION, MockHub, Repository, point_at, serving

ROWS = [{"a": "one", "n": 1}, {"a": "สอง\u2028 \u0085 😀 \t", "n": None}, {"a": "", "deep": {"b": ["x", "y"]}}]


def save(path: Path, rows: list[Any], bom: bool = False) -> Path:
    """Writes rows in the format of the path's ending."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        import pyarrow
        from pyarrow.parquet import write_table

        write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    if name.endswith(".json"):
        text = json.dumps(rows, indent=1)
    elif name.endswith(".tsv"):
        text = "".join("\t".join(row.values()) + "\n" for row in rows)
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\r\n\n" for row in rows)
    content = text.encode("utf-8-sig" if bom else "utf-8")
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def records(path: Path, **options: Any) -> list[dict[str, Any]]:
    return [record for _, record in read_records(path, "corpus.path=x", **options)]


@pytest.mark.parametrize("bom", [False, True])
@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "r.jsonl.gz", "r.json.gz"])
def test_json_round_trips(tmp_path: Path, name: str, bom: bool):
    assert records(save(tmp_path / name, ROWS, bom)) == ROWS


def test_parquet_round_trips_batch_by_batch(tmp_path: Path):
    rows = [{"a": str(n), "deep": {"b": [n]}} for n in range(2500)]
    path = save(tmp_path / "r.parquet", rows)
    assert records(path) == rows
    assert [place for place, _ in read_records(path, "w")][-1] == "w, row 2500"


@pytest.mark.parametrize("name", ["r.tsv", "r.tsv.gz"])
def test_tsv_has_numbered_columns_and_names_from_a_header(tmp_path: Path, name: str):
    rows = [{"0": "en", "1": "th"}, {"0": 'a "quote', "1": "b\u2028c"}, {"0": " x", "1": ""}]
    path = save(tmp_path / name, rows, bom=True)
    assert records(path) == rows
    assert records(path, names=["th", "en"]) == [{"en": row["0"], "th": row["1"]} for row in rows[1:]]


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), TEXT, min_size=1), max_size=5), st.booleans())
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]], bom: bool):
    folder = tmp_path_factory.mktemp("any")
    assert records(save(folder / "r.jsonl.gz", rows, bom)) == rows
    assert records(save(folder / "r.json", rows, bom)) == rows


def test_places_count_blank_lines(tmp_path: Path):
    path = tmp_path / "r.jsonl"
    path.write_text('\n{"a": 1}\n\n  \n{"a": 2}')
    assert [place for place, _ in read_records(path, "corpus.path=r.jsonl")] == [
        "corpus.path=r.jsonl, line 2",
        "corpus.path=r.jsonl, line 5",
    ]
    assert [line for _, line in read_lines(path, "w")] == ["", '{"a": 1}', "", "  ", '{"a": 2}']


GOOD = b'{"a": "b"}\n'
ARCHIVE = gzip.compress(GOOD * 500 + os.urandom(200).hex().encode())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.jsonl", GOOD + b"{'a': 'b'}", r"x, line 2 is not JSON \(Expecting .*, column 2\); mend or delete the line"),
        ("r.jsonl", GOOD + b'{"a": "b', "x, line 2 is not JSON"),
        ("r.jsonl", GOOD + b'["a"]', "x, line 2 is a JSON array; each row is an object"),
        ("r.jsonl", GOOD + b"null", "x, line 2 is a JSON null"),
        ("r.jsonl", GOOD + b"[" * 100_000, "x, line 2 is not JSON that can be read"),
        ("r.jsonl", GOOD + b'{"a": ' + b"9" * 5000 + b"}", "x, line 2 is not JSON that can be read"),
        ("r.jsonl", GOOD + b'{"a": "\\ud83d cut"}', r"x, line 2 has \\ud83d, half of a character"),
        ("r.jsonl", GOOD + '{"a": "é"}'.encode("latin-1"), r"x, line 2 is not UTF-8 \(byte 8 is 0xe9\); save the file"),
        ("r.jsonl", GOOD.decode().encode("utf-16"), "x, line 1 is not UTF-8"),
        ("r.json", GOOD, "x is a JSON object; give an array of objects, or end the name in .jsonl"),
        ("r.json", GOOD * 2, r"x is not JSON \(Extra data, line 2, column 1\); give an array"),
        ("r.json", b"", "x is not JSON"),
        ("r.json", b'[{"a": 1}, 2]', "x, item 2 is a JSON number"),
        ("r.json", b'[{"a": 1}, {"a": "\\uD83D"}]', r"x, item 2 has \\ud83d"),
        ("r.json", b'[{"a": "\xff"}]', r"x is not UTF-8 \(byte 9 is 0xff\)"),
        ("r.jsonl.gz", ARCHIVE[:-20], "x is no whole gzip file"),
        ("r.jsonl.gz", GOOD, "x is no whole gzip file"),
        ("r.jsonl.gz", ARCHIVE[:10] + b"\xff" * 20 + ARCHIVE[30:], "x is no whole gzip file"),
        ("r.json.gz", ARCHIVE[:-20], "x is no whole gzip file"),
        ("r.tsv", b"a\tb\n\nc\n", "x, line 3 has 1 columns, the lines before it 2"),
        ("r.tsv", b"a\tb\nc\td\te\n", "x, line 2 has 3 columns"),
        ("r.parquet", b"PAR1 and then nothing of use", "x is no whole Parquet file"),
        ("r.parquet", b"", "x is no whole Parquet file"),
    ],
)
def test_damage_is_one_line_with_the_place_and_the_fix(tmp_path: Path, name: str, content: bytes, message: str):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        records(path)
    assert "\n" not in str(error.value)


def test_a_truncated_parquet_is_refused(tmp_path: Path):
    path = save(tmp_path / "r.parquet", [{"a": "b" * 50}] * 2000)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="x is no whole Parquet file"):
        records(path)


def test_columns_reach_into_records():
    record = {"translation": {"en": "a", "th": None}, "turns": ["u", {"x": "v"}], "a.b": "c", "none": None}
    assert column(record, "translation.en") == "a"
    assert column(record, "turns.0") == "u"
    assert column(record, "turns.1.x") == "v"
    assert column(record, "a.b") == "c"
    assert column(record, "none.deep") is None
    for name in ("", "turns.2", "turns.-1", "turns.x", "translation.de", "translation.en.x", "a", "turns.²"):
        with pytest.raises(KeyError):
            column(record, name)
    assert column_names(record) == ["translation.en", "translation.th", "turns.0", "a.b", "none"]
    assert all(column(record, name) or True for name in column_names(record))


def test_a_local_file_is_copied_and_known_by_its_content(tmp_path: Path):
    (tmp_path / "one").mkdir()
    first = save(tmp_path / "one" / "th.jsonl", ROWS)
    second = save(tmp_path / "th.jsonl", ROWS)
    step = local_file("corpus.path", str(tmp_path / "one" / "{language}.jsonl"), {"language": "th"})
    assert step.key == local_file("corpus.path", str(second), {}).key
    store = Store(tmp_path / "cache")
    file = published(store.realise(step))
    assert file.name == "th.jsonl"
    first.write_text("edited in place")
    assert records(file) == ROWS
    assert local_file("corpus.path", str(first), {}).key != step.key
    first.unlink()
    assert records(published(store.realise(step))) == ROWS


def test_a_local_file_that_does_not_exist_or_changes_meanwhile(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    make = functools.partial(local_file, "corpus.path", str(path), {"language": "th"})
    with pytest.raises(InputError, match=f"corpus.path={path}: there is no such file"):
        make()
    path.mkdir()
    with pytest.raises(InputError, match=f"corpus.path={path} is a directory; give the path of a file in it"):
        make()
    path.rmdir()
    save(path, ROWS)
    step = make()
    path.write_text("{}")
    with pytest.raises(InputError, match="has changed since this run began; run again"):
        Store(tmp_path / "cache").realise(step)
    path.unlink()
    with pytest.raises(InputError, match="is gone since this run began; put it back"):
        Store(tmp_path / "cache").realise(step)
    with pytest.raises(InputError, match=r"x/\{pair\}\.tsv: \{pair\} is no placeholder \(there are \{source\}, \{la"):
        local_file("parallel.path", "x/{pair}.tsv", {"source": "en", "language": "th"})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[MockHub]:
    content = json.dumps(ROWS[0]).encode() + b"\n"
    with serving(MockHub({"datasets/some/set": Repository({"data/th.jsonl": content})})) as mock:
        point_at(monkeypatch, mock.address, tmp_path / "hub")
        yield mock


def test_a_hub_file_is_fetched_once_and_outlives_the_hubs_cache(hub: MockHub, tmp_path: Path):
    source = FileSource(hub_id="some/set", revision=REVISION, file="data/{language}.jsonl")
    step = file_step("corpus", source, {"language": "th"})
    assert not hub.requests, "making a step asks no network"
    file = published(Store(tmp_path / "one").realise(step))
    assert (file.name, records(file)) == ("th.jsonl", ROWS[:1])
    assert len(hub.fetched()) == 1, hub.requests
    asked = len(hub.requests)
    assert records(published(Store(tmp_path / "two").realise(step))) == ROWS[:1]
    assert len(hub.requests) == asked, "the hub's cache has it"
    shutil.rmtree(tmp_path / "hub")
    assert records(published(Store(tmp_path / "one").realise(step))) == ROWS[:1]


def test_a_missing_file_and_an_unreachable_hub(
    hub: MockHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    missing = file_step("corpus", FileSource(hub_id="some/set", revision=REVISION, file="data/xx.jsonl"), {})
    with pytest.raises(InputError, match=r"corpus\.file=data/xx\.jsonl .*is not there.*give a local copy"):
        Store(tmp_path / "cache").realise(missing)
    point_at(monkeypatch, "http://127.0.0.1:9", tmp_path / "empty")
    began = time.monotonic()
    with pytest.raises(InputError, match=r"corpus\.hub_id=some/set .*hub does not answer.*corpus\.path=") as error:
        Store(tmp_path / "cache").realise(missing)
    assert time.monotonic() - began < 5
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")
