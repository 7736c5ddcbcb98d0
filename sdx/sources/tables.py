"""Tables as text, one row per line: .csv with quotation marks, .tsv with or without them."""

import csv
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from sdx import InputError

Lines = Callable[[], Iterator[tuple[str, str]]]
"""(place, line) of each line, from the beginning at every call."""
Row = tuple[str, list[str]]
"""The place where a row begins, and its cells."""


def read_table(lines: Lines, names: Collection[str], delimiter: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, record) of each row.

    The first row of a .csv names the columns, unless `names` are all numbers. The first row of a .tsv is a header if it
    has one of `names`; otherwise the columns are numbered and there is no quoting. With a header, both customs are
    read: if all lines have equally many tabs, a quotation mark stands for itself, except around a cell in which all
    others are doubled; if they do not, cells with line ends are quoted, as in a .csv.

    Raises:
        InputError: quotation marks that do not match; a row with more or fewer cells; a column twice.
    """
    if delimiter == ",":
        return _records(_quoted(lines(), delimiter), not names or not all(map(str.isdecimal, names)))
    _, first = next(_not_blank(lines()), ("", ""))
    cells = first.split("\t")
    plain = ((place, line.split("\t")) for place, line in _not_blank(lines()))
    if not {cell.strip(' "') for cell in cells} & {name for name in names if not name.isdecimal()}:
        return _records(plain, False)
    if all(cell.startswith('"') for cell in cells) or _is_quoted(lines, len(cells)):
        return _records(_quoted(lines(), "\t"), True)
    return _records(((place, list(map(_bare, row))) for place, row in plain), True)


def _not_blank(lines: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    return (row for row in lines if row[1].strip())


def _is_quoted(lines: Lines, width: int) -> bool:
    """Whether the lines differ in their number of tabs, and make a table with quotation marks."""
    if all(line.count("\t") + 1 == width for _, line in _not_blank(lines())):
        return False
    try:
        return all(len(row) == width for _, row in _quoted(lines(), "\t"))
    except InputError:
        return False


def _quoted(lines: Iterator[tuple[str, str]], delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(10_000_000)  # a quotation mark that is never closed makes one cell of all that follows
    places: list[str] = []

    def feed() -> Iterator[str]:
        for place, line in lines:
            places.append(place)
            yield f"{line}\n"

    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if row:
                yield places[0], row
            places.clear()
    except csv.Error as error:
        reason = "the quotation mark of a cell is not closed" if "end of data" in str(error) else str(error)
        raise InputError(
            f"{places[0]} begins a row that cannot be read ({reason}); quotation marks stand around a whole cell, "
            "and those inside it are doubled"
        ) from None


def _bare(cell: str) -> str:
    """A cell without the quotation marks that a writer put around it because of others, which are doubled."""
    inside = cell[1:-1]
    if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' in inside and '"' not in inside.replace('""', ""):
        return inside.replace('""', '"')
    return cell


def _records(rows: Iterable[Row], header: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    names: list[str] = []
    for place, cells in rows:
        if not names:
            names = _header(place, cells) if header else list(map(str, range(len(cells))))
            if header:
                continue
        if len(cells) != len(names):
            quoted = "mend the row, and put quotation marks around a cell with a separator or a line end"
            fix = quoted if header else "columns are separated by one tab each"
            raise InputError(f"{place} has {len(cells)} columns, the lines before it {len(names)}; {fix}")
        yield place, dict(zip(names, cells, strict=True))


def _header(place: str, cells: list[str]) -> list[str]:
    """The names in a header; a column without a name gets the name that pandas gives it."""
    names = [cell.strip() or f"Unnamed: {number}" for number, cell in enumerate(cells)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{place} names the column `{twice[0]}` twice; rename or delete one")
    return names
