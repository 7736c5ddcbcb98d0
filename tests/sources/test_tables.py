"""Tables as text: what other programs write is read, and a bad table is one line with its place."""

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdx import InputError
from sdx.sources.files import read_records

CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=12)
TABLES = st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=6)


def records(path: Path, *names: str) -> list[dict[str, str]]:
    return [record for _, record in read_records(path, "x", names or ("a", "b"))]


def written(rows: list[tuple[str, ...]], delimiter: str, **options: object) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, **options).writerows([("a", "b", "c"), *rows])  # type: ignore[arg-type]
    return out.getvalue()


@settings(max_examples=80, deadline=None)
@given(TABLES, st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans())
def test_what_csv_writers_write_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], end: str, bom: bool, all_quoted: bool
):
    content = written(rows, ",", lineterminator=end, quoting=csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL)
    path = tmp_path_factory.mktemp("csv") / "t.csv.gz"
    path.write_bytes(gzip.compress(content.encode("utf-8-sig" if bom else "utf-8")))
    assert records(path) == [dict(zip("abc", row, strict=True)) for row in rows]


@settings(max_examples=80, deadline=None)
@given(TABLES, st.booleans())
def test_what_tsv_writers_write_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], all_quoted: bool
):
    """All rows have words: a line of blanks alone is skipped."""
    rows = [(f"w{row[0]}", row[1], f"{row[2]}w") for row in rows]
    path = tmp_path_factory.mktemp("tsv") / "t.tsv"
    quoting = csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL
    path.write_text(written(rows, "\t", lineterminator="\n", quoting=quoting), encoding="utf-8", newline="")
    assert records(path) == [dict(zip("abc", row, strict=True)) for row in rows]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(*[st.text('"ab ', max_size=6)] * 2), min_size=1, max_size=5))
def test_a_table_without_quoting_keeps_its_quotation_marks(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
):
    """Except those around a cell in which all others are doubled."""
    rows = [(f"x{one}", f"x{two}") for one, two in rows]
    path = tmp_path_factory.mktemp("plain") / "t.tsv"
    path.write_text("".join(f"{one}\t{two}\n" for one, two in [("a", "b"), *rows]), encoding="utf-8")
    assert records(path) == [{"a": one, "b": two} for one, two in rows]


def test_headers(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text(",a, b \n1,2,3\n")
    assert records(path) == [{"Unnamed: 0": "1", "a": "2", "b": "3"}], "as pandas names a column without a name"
    assert records(path, "0", "1") == [{"0": "", "1": "a", "2": " b "}, {"0": "1", "1": "2", "2": "3"}]
    path = tmp_path / "t.tsv"
    path.write_text("Hello\tHallo\n")
    assert records(path) == [{"0": "Hello", "1": "Hallo"}], "no header"
    assert records(path, "0", "1") == [{"0": "Hello", "1": "Hallo"}]


def test_places_are_where_a_row_begins(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text('a,b\n"1\n2",3\n\n4,5\n')
    assert [place for place, _ in read_records(path, "x", ("a",))] == ["x, line 2", "x, line 5"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "t.csv",
            'a,b\n1,"2\n3,4\n',
            "x, line 2 begins a row that cannot be read .the quotation mark",
        ),
        ("t.csv", 'a,b\n1,"2"3\n', "x, line 2 begins a row that cannot be read"),
        ("t.csv", "a,b\n1,2\n\n1,2,3\n", "x, line 4 has 3 columns, the lines before it 2"),
        ("t.csv", "a,b\n1\n", "x, line 2 has 1 columns"),
        ("t.csv", "a,b,a\n1,2,3\n", "x, line 1 names the column `a` twice"),
        ("t.csv", "a,b\n1,\0\n", "x, line 2 has a NUL byte"),
        ("t.csv", "a,b\r1,2\r", "x, line 1 has a carriage return inside; end each line with a line feed"),
        ("t.tsv", "a\tb\n1\t2\n3\n", "x, line 3 has 1 columns, the lines before it 2"),
        ("t.tsv", 'a\tb\n"1"2\t2\n3\n', "x, line 3 has 1 columns, the lines before it 2"),
        ("t.tsv", 'a\tb\n1\t"2\n3\t4\n', None),
        ("t.tsv", "1\t2\n\0\0\0\0", "x, line 2 has a NUL byte"),
        ("t.jsonl", '{"a": 1}\n\0\0\0', "x, line 2 has a NUL byte"),
        ("t.jsonl", '{"a": [{"b": "\\u0000"}]}', "x, line 1 has a NUL character"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, name: str, content: str, message: str | None):
    path = tmp_path / name
    path.write_bytes(content.encode())
    if message is None:
        assert records(path) == [{"a": "1", "b": '"2'}, {"a": "3", "b": "4"}], "an inch is no quotation"
        return
    with pytest.raises(InputError, match=message) as error:
        records(path)
    assert "\n" not in str(error.value)
