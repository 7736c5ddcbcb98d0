"""Tables as text, a row a line: .csv with its quotation marks, .tsv with or without them."""

import csv
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from sdx import InputError

LONGEST_CELL = 10_000_000
"""Characters. A quotation mark that is never closed makes a cell of all that follows."""

Lines = Callable[[], Iterator[tuple[str, str]]]
"""(place, line) of each line, from the beginning at every call."""
Row = tuple[str, list[str]]
"""The place where a row begins, and its cells."""


def read_csv(lines: Lines, names: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, record) of each row. The first row names the columns, unless `names` are all numbers.

    Raises:
        InputError: quotation marks that do not match; a row with more or fewer cells; a column twice.
    """
    return _records(_quoted(lines(), ","), not names or not all(map(str.isdecimal, names)))


def read_tsv(lines: Lines, names: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, record) of each row. The first row is a header if it has one of `names`; else columns are numbered.

    Without a header there is no quoting. Under one, both customs are read: where all lines have as many tabs, a
    quotation mark is one, except around a cell in which all others are doubled; where they do not, cells with line
    ends are taken to be quoted, as in a .csv.

    Raises:
        InputError: as `read_csv`.
    """
    _, first = next(_not_blank(lines()), ("", ""))
    cells = first.split("\t")
    wanted = {name for name in names if not name.isdecimal()}
    header = any(cell.strip(' "') in wanted for cell in cells)
    plain = ((place, line.split("\t")) for place, line in _not_blank(lines()))
    if not header:
        yield from _records(plain, False)
    elif all(cell.startswith('"') for cell in cells) or _is_quoted(lines, len(cells)):
        yield from _records(_quoted(lines(), "\t"), True)
    else:
        yield from _records(((place, list(map(_bare, row))) for place, row in plain), True)


def _not_blank(lines: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    return (row for row in lines if row[1].strip())


def _is_quoted(lines: Lines, width: int) -> bool:
    """Whether the lines differ in their tabs, and make a table with quotation marks."""
    if all(line.count("\t") + 1 == width for _, line in _not_blank(lines())):
        return False
    try:
        return all(len(row) == width for _, row in _quoted(lines(), "\t"))
    except InputError:
        return False


def _quoted(lines: Iterator[tuple[str, str]], delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_CELL)
    places: list[str] = []

    def feed() -> Iterator[str]:
        for place, line in lines:
            places.append(place)
            yield f"{line}\n"

    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    while True:
        places.clear()
        try:
            row = next(reader, None)
        except csv.Error as error:
            reason = "the quotation mark of a cell is not closed" if "end of data" in str(error) else str(error)
            raise InputError(
                f"{places[0]} begins a row that cannot be read ({reason}); quotation marks stand around a whole cell, "
                "and those inside it are doubled"
            ) from None
        if row is None:
            return
        if row:
            yield places[0], row


def _bare(cell: str) -> str:
    """A cell without the quotation marks that a writer put around it because of others, which it doubled."""
    inside = cell[1:-1]
    if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' in inside and '"' not in inside.replace('""', ""):
        return inside.replace('""', '"')
    return cell


def _records(rows: Iterable[Row], header: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    names: list[str] = []
    for place, cells in rows:
        if not names:
            names = _named(place, cells) if header else list(map(str, range(len(cells))))
            if header:
                continue
        if len(cells) != len(names):
            raise InputError(
                f"{place} has {len(cells)} columns, the lines before it {len(names)}; mend the row, and put quotation "
                "marks around a cell with a separator or a line end"
                if header
                else f"{place} has {len(cells)} columns, the lines before it {len(names)}; columns are separated by "
                "one tab each"
            )
        yield place, dict(zip(names, cells, strict=True))


def _named(place: str, cells: list[str]) -> list[str]:
    """The names in a header; a column without one is called as pandas calls it."""
    names = [cell.strip() or f"Unnamed: {number}" for number, cell in enumerate(cells)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{place} names the column `{twice[0]}` twice; rename or delete one")
    return names
