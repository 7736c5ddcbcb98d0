"""The rows of a file that may be larger than memory."""

import json
import os
from array import array
from collections.abc import Callable, ItemsView, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from sdx.store.files import rows_in

Row = dict[str, Any]
Value = TypeVar("Value")


class RowFile(Sequence[Row]):
    """The rows of a JSONL file, each read when asked for. Memory holds 8 bytes a row.

    Args:
        of: makes each row from the object in its line.
    """

    def __init__(self, path: Path, of: Callable[[Row], Row] = lambda row: row) -> None:
        self._path, self._of = path, of
        self._starts = array("q", [0])
        with path.open("rb") as lines:
            for line in lines:
                self._starts.append(self._starts[-1] + len(line))
        self._file = path.open("rb")

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __iter__(self) -> Iterator[Row]:
        return map(self._of, rows_in(self._path))

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        start, end = self._starts[index], self._starts[index + 1]
        return self._of(json.loads(os.pread(self._file.fileno(), end - start, start)))


class RowsById(Mapping[str, Value], Generic[Value]):
    """What is made of each row of a file, by the row's `id`, in the file's order. Memory holds 24 bytes a row.

    Args:
        path: of the rows, each with an `id` of its own.
        of: makes a value from a row.
    """

    def __init__(self, path: Path, of: Callable[[Row], Value]) -> None:
        import numpy as np

        self.rows, self.of = RowFile(path), of
        hashes = np.fromiter((hash(row["id"]) for row in self.rows), np.int64, len(self.rows))
        self._numbers = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._numbers]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[str]:
        return (row["id"] for row in self.rows)

    def __getitem__(self, id_: str) -> Value:
        start, end = (self._hashes.searchsorted(hash(id_), side) for side in ("left", "right"))
        for number in self._numbers[start:end].tolist():
            if (row := self.rows[number])["id"] == id_:
                return self.of(row)
        raise KeyError(id_)

    def items(self) -> ItemsView[str, Value]:
        return _Items(self)


class _Items(ItemsView[str, Value]):
    """Reads the file from beginning to end instead of row by row."""

    _mapping: RowsById[Value]

    def __iter__(self) -> Iterator[tuple[str, Value]]:
        return ((row["id"], self._mapping.of(row)) for row in self._mapping.rows)
