"""Rows of a file by number and by id, without the rows in memory."""

import tracemalloc
from pathlib import Path

import pytest

from sdx.store.files import write_rows
from sdx.store.row_file import RowFile, RowsById

ROWS = [{"id": f"r{number * 7 % 100}", "text": f"ü {number}"} for number in range(100)]


def test_rows_are_found_by_id_in_the_order_of_the_file(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows", ROWS)
    found = RowsById(tmp_path / "rows", lambda row: row["text"])
    assert dict(found) == {row["id"]: row["text"] for row in ROWS}
    assert [*found] == [id_ for id_, _ in found.items()] == [row["id"] for row in ROWS]
    assert ("r7" in found, "r100" in found, found.get("r100")) == (True, False, None)
    with pytest.raises(KeyError):
        found["x"]


def test_ids_with_the_same_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.hash", lambda _: 5)
    write_rows(tmp_path / "rows", ROWS)
    found = RowsById(tmp_path / "rows", lambda row: row["text"])
    assert [found[row["id"]] for row in ROWS] == [row["text"] for row in ROWS]
    assert "x" not in found


def test_memory_does_not_hold_the_rows(tmp_path: Path) -> None:
    count = 20_000
    write_rows(tmp_path / "rows", ({"id": f"r{number}", "text": "x" * 500} for number in range(count)))
    tracemalloc.start()
    found = RowsById(tmp_path / "rows", lambda row: row["text"])
    assert sum(len(text) for _, text in found.items()) == 500 * count
    assert len(RowFile(tmp_path / "rows")) == len(found) == count
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * count
