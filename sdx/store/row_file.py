"""The rows of a file that may be larger than memory."""

import json
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from sdx.store.files import rows_in

Row = dict[str, Any]


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
