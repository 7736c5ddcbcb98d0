"""Data files, the user's or the hub's: what is refused, where they come from, and their records one by one.

A record is a dict of columns. Whatever is wrong with a file is an `InputError` with the place and the fix.
"""

import gzip
import json
import math
import os
import re
import shutil
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.languages import Language
from sdx.process.disk import sha256_of, writing
from sdx.sources.hub import HubFile, explained, refusals, refused
from sdx.sources.tables import read_csv, read_tsv
from sdx.store.files import MANIFEST
from sdx.store.step import Step, Workspace, runtime

BOM = b"\xef\xbb\xbf"
DAMAGED = "the file was not written to its end, or is no text; copy or make it again"
PARQUET_ROWS = 1000
"""Rows in memory at once."""


def check_each(group: str, templates: Sequence[str | None], targets: Sequence[Language]) -> None:
    """Raises InputError for one file that would be read for several target languages."""
    if len(targets) > 1 and not any("{" in template for template in templates if template):
        names = " and ".join(target.name for target in targets)
        raise InputError(
            f"{group}.path={templates[0] or ''} is one file for {names}; put {{target}} where theirs differ, as in "
            f"\"{group}.path='/data/en-{{target}}.tsv'\""
        )


def source_name(
    group: str, path: str | None, hub_id: str | None, file: str | None, placeholders: Mapping[str, str] | None = None
) -> str:
    """The source as messages name it: `corpus.path=/x/y.jsonl` or `corpus.hub_id=someone/set corpus.file=y.jsonl`.

    Args:
        placeholders: name -> what `{name}` stands for; without them the name is of all files.
    """
    name = path or file or ""
    for placeholder, value in (placeholders or {}).items():
        name = name.replace(f"{{{placeholder}}}", value)
    return f"{group}.path={name}" if path else f"{group}.hub_id={hub_id} {group}.file={name}"


def file_step(
    group: str,
    path: str | None,
    hub_id: str | None,
    revision: str | None,
    file: str | None,
    placeholders: Mapping[str, str],
) -> Step:
    """Publishes the file under its own base name; `published` finds it.

    A local file is copied, so that an edit or a deletion cannot reach what was computed from it. The hub's cache never
    changes a file but may be emptied: from there it is a hard link, or a copy on another file system.

    Args:
        placeholders: name -> what `{name}` stands for in `path` and `file`.

    Raises:
        InputError: a `{name}` that is no placeholder; no such local file.
    """
    assert path or hub_id, "a source without a file has no file step"
    if path:
        local = Path(fill(f"{group}.path", path, placeholders)).expanduser().absolute()
        where = f"{group}.path={local}"
        check_file(where, local)
        try:
            return LocalFile(_digest(local), source=local, where=where)
        except OSError as error:
            raise InputError(f"{where} cannot be read ({error.strerror}); see to its permissions") from None
    assert hub_id
    assert revision
    assert file
    instead = f"offline, give a local copy: {group}.hub_id=null {group}.path=/its/copy"
    filled = fill(f"{group}.file", file, placeholders)
    return FetchedFile(HubFile(group, hub_id, revision, instead, filled))


@dataclass(frozen=True, eq=False)
class LocalFile(Step):
    """Publishes a copy of a file of this machine."""

    name = "file"
    reads = True

    sha256: str
    source: Path = runtime()
    where: str = runtime()
    """As messages name it."""

    @property
    def config(self) -> Mapping[str, Any]:
        return {"name": self.source.name, "sha256": self.sha256}

    @property
    def about(self) -> str:
        return self.source.name

    @property
    def path(self) -> Path:
        return self.source

    def run(self, work: Workspace) -> None:
        target = work.dir / self.source.name
        if not self.source.is_file():
            raise InputError(f"{self.where} is gone since this run began; put it back and run again")
        shutil.copyfile(self.source, target)
        if sha256_of(target) != self.sha256:
            raise InputError(f"{self.where} has changed since this run began; run again when it is complete")
        work.counts.update(bytes=target.stat().st_size)


@dataclass(frozen=True, eq=False)
class FetchedFile(Step):
    """Publishes a file of a dataset on the hub."""

    name = "file"
    reads = True

    source: HubFile

    @property
    def config(self) -> Mapping[str, Any]:
        return {name: getattr(self.source, name) for name in ("hub_id", "revision", "file")}

    @property
    def about(self) -> str:
        return Path(self.source.hub_id).name

    @property
    def hub(self) -> HubFile:
        return self.source

    def run(self, work: Workspace) -> None:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.constants import HF_HUB_CACHE

        # Asks once, with the real reason; the download would try again for minutes.
        if found := refusals([self.source]):
            raise refused(found)
        try:
            with writing(Path(HF_HUB_CACHE)):
                there = hf_hub_download(**self.source.location)
        except Exception as error:  # the client has a class for each reason, its HTTP library others
            raise InputError(explained(self.source, error).message) from error
        target = work.dir / Path(self.source.file).name
        target.unlink(missing_ok=True)
        blob = Path(there).resolve()
        try:
            os.link(blob, target)
        except OSError:
            shutil.copyfile(blob, target)
        work.counts.update(bytes=target.stat().st_size)


def published(directory: Path) -> Path:
    """The file in the output directory of a `file_step`."""
    [file] = [entry for entry in directory.iterdir() if entry.name != MANIFEST]
    return file


def fill(key: str, template: str, placeholders: Mapping[str, str]) -> str:
    """`template` with its placeholders filled in; `key` is what messages call it.

    Raises:
        InputError: one that there is not.
    """
    filled = template
    for name, value in placeholders.items():
        filled = filled.replace(f"{{{name}}}", value)
    if unknown := re.search(r"\{\w*\}", filled):
        known = ", ".join(f"{{{name}}}" for name in placeholders) or "none"
        raise InputError(f"{key}={template}: {unknown[0]} is no placeholder (there are {known}); write another")
    return filled


def check_file(where: str, path: Path) -> None:
    """Raises InputError unless there is such a file; `where` is what messages call it."""
    if path.is_dir():
        raise InputError(f"{where} is a directory; give the path of a file in it")
    if not path.is_file():
        raise InputError(f"{where}: there is no such file; give the path of one that is there")


def _digest(path: Path) -> str:
    """SHA-256 of a file, read again only when its size or time of change is another."""
    state = path.stat()
    return _digest_of(path, state.st_size, state.st_mtime_ns)


@cache
def _digest_of(path: Path, _size: int, _changed_ns: int) -> str:
    return sha256_of(path)


def read_records(path: Path, where: str, names: Collection[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, record) of each row of a .jsonl, .json (array of objects), .csv, .tsv or .parquet file, all but the last
    also with .gz. Blank lines are passed over, a byte-order mark too.

    The columns of a .tsv without a header are named `0`, `1` and so on.

    Args:
        where: how messages name the file, such as `corpus.path=/x/y.jsonl`; a place is that and `, line 3`.
        names: the columns that are wanted, by which a .tsv's header is known (see `sdx.sources.tables`).

    Raises:
        InputError: a row that cannot be read; not UTF-8; a damaged archive. All but .json yield the rows before it.
    """
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".parquet"):
        return _parquet(path, where)
    if name.endswith((".csv", ".tsv")):
        read = read_csv if name.endswith(".csv") else read_tsv
        return read(partial(read_lines, path, where), names)
    if name.endswith(".jsonl"):
        return ((place, _object(place, line)) for place, line in read_lines(path, where) if line.strip())
    assert name.endswith(".json"), path
    return _array(path, where)


def read_lines(path: Path, where: str) -> Iterator[tuple[str, str]]:
    """(place, line) of every line of a text file, plain or with .gz, without line ends and byte-order mark.

    Raises:
        InputError: as `read_records`.
    """
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        number = 0
        while raw := _bytes(file, where, line=True):
            number += 1
            place = f"{where}, line {number}"
            if number == 1:
                raw = raw.removeprefix(BOM)
                if b"\r" in raw.rstrip(b"\r\n"):
                    raise InputError(f"{place} has a carriage return inside; end each line with a line feed")
            text = _text(raw, place)
            if "\0" in text:
                raise InputError(f"{place} has a NUL byte: {DAMAGED}")
            yield place, text.rstrip("\r\n")


def column(record: Mapping[str, Any], name: str) -> Any:
    """The value of a column; a dot goes into a nested object or list: `translation.en`, `turns.0`. None below a null
    and for NaN.

    Raises:
        KeyError: it is not there; `column_names` says which are.
    """
    if name in record:
        return _not_nan(record[name])
    value: Any = record
    for part in name.split("."):
        if value is None:
            return None
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise KeyError(name)
    return _not_nan(value)


def _not_nan(value: Any) -> Any:
    """None for NaN, which is how pandas writes that a number is missing."""
    return None if isinstance(value, float) and math.isnan(value) else value


def column_names(record: Mapping[str, Any]) -> list[str]:
    """The names `column` knows in a record, those of nested values by their whole way."""
    return [name for key, value in record.items() for name in _below(str(key), value)]


def _below(name: str, value: Any) -> list[str]:
    if isinstance(value, Mapping) and value:
        return [f"{name}.{deeper}" for deeper in column_names(value)]
    if isinstance(value, list) and value:  # its first item stands for all
        return _below(f"{name}.0", value[0])
    return [name]


def _bytes(file: Any, where: str, line: bool = False) -> bytes:
    try:
        content: bytes = file.readline() if line else file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{where} is no whole gzip file ({error}); make or download it again") from None
    return content


def _text(raw: bytes, place: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{place} is not UTF-8 (byte {error.start + 1} is {raw[error.start]:#04x}); save the file as UTF-8"
        ) from None


def _object(place: str, line: str) -> dict[str, Any]:
    return _record(place, _json(place, line, "mend or delete the line"), line)


def _array(path: Path, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        text = _text(_bytes(file, where).removeprefix(BOM), where)
    advice = "give an array of objects, or end the name in .jsonl where each line is an object"
    rows = _json(where, text, advice)
    if not isinstance(rows, list):
        raise InputError(f"{where} is a JSON {_kind(rows)}; {advice}")
    for number, row in enumerate(rows, 1):
        place = f"{where}, item {number}"
        yield place, _record(place, row, text)


def _json(place: str, text: str, advice: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}" if "\n" in text else f"column {error.colno}"
        raise InputError(f"{place} is not JSON ({error.msg}, {at}); {advice}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise InputError(f"{place} is not JSON that can be read ({str(error)[:80]}); {advice}") from None


def _record(place: str, row: Any, text: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise InputError(f'{place} is a JSON {_kind(row)}; each row is an object, as in {{"column": "text"}}')
    if "\\u0000" in text and _has_nul(row):
        raise InputError(f"{place} has a NUL character; mend or delete the row")
    if "\\ud" in text or "\\uD" in text:  # halves of characters: two make one, a lone one cannot be written again
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            raise InputError(f"{place} has {half}, half of a character; mend or delete the row") from None
    return row


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(map(_has_nul, value.values()))
    return isinstance(value, list) and any(map(_has_nul, value))


def _kind(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _parquet(path: Path, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    if _has_nul(row):
                        raise InputError(f"{where}, row {number} has a NUL character; mend or delete the row")
                    yield f"{where}, row {number}", row
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"{where} is no whole Parquet file ({reason}); make or download it again") from None
