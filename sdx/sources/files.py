"""Data files, the user's or the hub's: the steps that bring them in, and their records one by one.

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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.languages import Language
from sdx.options.source import FileSource, fill
from sdx.process.disk import sha256_of, writing
from sdx.sources.hub import HubFile, check_available, explain
from sdx.sources.tables import read_table
from sdx.store.files import MANIFEST
from sdx.store.step import Step, Workspace, runtime

CHUNK = 1_000_000
"""Characters of a JSON array that are read at once."""
BOM = b"\xef\xbb\xbf"
BAD_CHARACTER = re.compile("[\0\ud800-\udfff]")


def check_per_target(group: str, templates: Sequence[str | None], targets: Sequence[Language]) -> None:
    """Raises InputError if one file would be read for several target languages."""
    if len(targets) > 1 and not any("{" in template for template in templates if template):
        names = " and ".join(target.name for target in targets)
        raise InputError(
            f"{group}.path={templates[0] or ''} is one file for {names}; put {{target}} where theirs differ, as in "
            f"\"{group}.path='/data/en-{{target}}.tsv'\""
        )


def file_step(group: str, source: FileSource, placeholders: Mapping[str, str]) -> "LocalFile | FetchedFile":
    """Publishes the file under its own base name; `published` finds it.

    A local file is copied: an edit or a deletion cannot reach what was computed from it. The hub's cache never changes
    a file but may be emptied: from there it is a hard link, or a copy on another file system.

    Args:
        placeholders: name -> what `{name}` stands for in `path` and `file`.

    Raises:
        InputError: a `{name}` that is no placeholder; no such local file.
    """
    if source.path:
        return local_file(f"{group}.path", source.path, placeholders)
    assert source.hub_id
    assert source.revision
    assert source.file
    offline = f"offline, give a local copy: {group}.hub_id=null {group}.path=/its/copy"
    file = filled(f"{group}.file", source.file, placeholders)
    return FetchedFile(HubFile(group, source.hub_id, source.revision, offline, file))


def local_file(key: str, template: str, placeholders: Mapping[str, str]) -> "LocalFile":
    """The step for a file of this machine; see `file_step`."""
    path = local_path(key, template, placeholders)
    where = f"{key}={path}"
    if path.is_dir():
        raise InputError(f"{where} is a directory; give the path of a file in it")
    if not path.is_file():
        raise InputError(f"{where}: there is no such file; give the path of one that is there")
    try:
        return LocalFile(_digest(path, path.stat().st_size, path.stat().st_mtime_ns), source=path, where=where)
    except OSError as error:
        raise InputError(f"{where} cannot be read ({error.strerror}); see to its permissions") from None


def local_path(key: str, template: str, placeholders: Mapping[str, str]) -> Path:
    """A path of the user, absolute, with the values of `~` and, by `filled`, of the placeholders."""
    return Path(os.path.expanduser(filled(key, template, placeholders))).absolute()


def filled(key: str, template: str, placeholders: Mapping[str, str]) -> str:
    """`template` with the values of its placeholders.

    Raises:
        InputError: a `{name}` that is no placeholder.
    """
    text = fill(template, placeholders)
    if unknown := re.search(r"\{\w*\}", text):
        known = ", ".join(f"{{{name}}}" for name in placeholders) or "none"
        raise InputError(f"{key}={template}: {unknown[0]} is no placeholder (there are {known}); write another")
    return text


@cache
def _digest(path: Path, _size: int, _changed_ns: int) -> str:
    """SHA-256 of a file, read again only if its size or time of change is another."""
    return sha256_of(path)


@dataclass(frozen=True, eq=False)
class LocalFile(Step):
    """Publishes a copy of a file of this machine."""

    name = "file"
    reads = True

    sha256: str
    source: Path = runtime()
    where: str = runtime()
    """The file in messages."""

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
        self.check_unchanged(target)
        work.counts.update(bytes=target.stat().st_size)

    def check_unchanged(self, path: Path) -> None:
        """Raises InputError if the content of a file is not that of this file when the run began."""
        if sha256_of(path) != self.sha256:
            raise InputError(f"{self.where} has changed since this run began; run again when it is complete")


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

        check_available([self.source])  # a download would try for minutes, and not give the real reason
        try:
            with writing(Path(HF_HUB_CACHE)):
                blob = Path(hf_hub_download(**self.source.location)).resolve()
        except Exception as error:  # the client has a class for each reason, its HTTP library others
            raise explain(self.source, error) from error
        target = work.dir / Path(self.source.file).name
        target.unlink(missing_ok=True)
        try:
            os.link(blob, target)
        except OSError:
            shutil.copyfile(blob, target)
        work.counts.update(bytes=target.stat().st_size)


def published(directory: Path) -> Path:
    """The file in the output directory of a `file_step`."""
    [file] = [entry for entry in directory.iterdir() if entry.name != MANIFEST]
    return file


def read_records(path: Path, where: str, names: Collection[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, record) of each row of a .jsonl, .json (array of objects), .csv, .tsv or .parquet file, all but the last
    also with .gz. Blank lines and a byte-order mark are skipped.

    The columns of a .tsv without a header are named `0`, `1` and so on.

    Args:
        where: the file in messages, such as `corpus.path=/x/y.jsonl`; a place is that and `, line 3`.
        names: the columns that are wanted, which identify a .tsv's header (see `sdx.sources.tables`).

    Raises:
        InputError: a row that cannot be read; not UTF-8; a damaged archive. The rows before it are yielded.
    """
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".csv", ".tsv")):
        return read_table(partial(read_lines, path, where), names, "," if name.endswith(".csv") else "\t")
    if name.endswith(".parquet"):
        rows = _parquet(path, where)
    elif name.endswith(".jsonl"):
        lines = ((place, line) for place, line in read_lines(path, where) if line.strip())
        rows = ((place, _json(place, line, "mend or delete the line")) for place, line in lines)
    else:
        rows = _array(path, where)
    return ((place, _checked(place, row)) for place, row in rows)


def read_lines(path: Path, where: str) -> Iterator[tuple[str, str]]:
    """(place, line) of every line of a text file, plain or with .gz, without line ends and byte-order mark.

    Raises:
        InputError: as `read_records`.
    """
    with _opened(path, where) as file:
        for number, raw in enumerate(file, 1):
            place = f"{where}, line {number}"
            if number == 1:
                raw = raw.removeprefix(BOM)
                if b"\r" in raw.rstrip(b"\r\n"):
                    raise InputError(f"{place} has a carriage return inside; end each line with a line feed")
            text = _text(raw, place)
            if "\0" in text:
                raise InputError(
                    f"{place} has a NUL byte: the file was not written to its end, or is no text; copy or make it again"
                )
            yield place, text.rstrip("\r\n")


def column(record: Mapping[str, Any], name: str) -> Any:
    """The value of a column; a dot goes into a nested object or list: `translation.en`, `turns.0`.

    None below a null, and for NaN, which is how pandas writes that a number is missing.

    Raises:
        KeyError: there is no such column.
    """
    value: Any = record
    for part in [name] if name in record else name.split("."):
        if value is None:
            return None
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise KeyError(name)
    return None if isinstance(value, float) and math.isnan(value) else value


def text_column(record: Mapping[str, Any], name: str, place: str, key: str) -> str:
    """The text in a column without spaces around it; empty for null.

    Args:
        key: the option that names the column.

    Raises:
        InputError: there is no such column, or something else than a text in it.
    """
    try:
        value = column(record, name)
    except KeyError:
        raise no_column(record, name, place, key) from None
    if isinstance(value, list | dict) and value:
        inside = ", ".join(column_names({name: value}))
        raise InputError(f"{place} has no text in `{name}` but {inside}; name one of them as {key}=...")
    if not isinstance(value, str | None):
        shown = json.dumps(value, default=str)[:80]
        raise InputError(f"{place} has no text in `{name}` but {shown}; make it a string or name another as {key}=...")
    return (value or "").strip()


def no_column(record: Mapping[str, Any], name: str, place: str, key: str) -> InputError:
    """The error for a column that is not there; `key` is the option that names the column."""
    names = ", ".join(column_names(record)) or "none"
    return InputError(f"{place} has no column `{name}`, only {names}; name the right one as {key}=...")


def column_names(record: Mapping[str, Any]) -> list[str]:
    """The names that `column` knows in a record; the first item of a list stands for all."""
    names: list[str] = []
    for key, value in record.items():
        nested = {"0": value[0]} if isinstance(value, list) and value else value
        inside = column_names(nested) if isinstance(nested, Mapping) else []
        names += [f"{key}.{name}" for name in inside] or [str(key)]
    return names


@contextmanager
def _opened(path: Path, where: str) -> Iterator[Any]:
    """A file, unpacked if its name ends in .gz."""
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            yield file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{where} is no whole gzip file ({error}); make or download it again") from None


def _text(raw: bytes, place: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{place} is not UTF-8 (byte {error.start + 1} is {raw[error.start]:#04x}); save the file as UTF-8"
        ) from None


def _array(path: Path, where: str) -> Iterator[tuple[str, Any]]:
    count = 0
    with suppress(ValueError, IndexError, RecursionError), _opened(path, where) as file:
        for count, row in enumerate(_items(file), 1):
            yield f"{where}, item {count}", row
        return
    with _opened(path, where) as file:  # whole, for what to say about it
        text = _text(file.read().removeprefix(BOM), where)
    advice = "give an array of objects, or end the name in .jsonl if each line is an object"
    rows = _json(where, text, advice)
    if not isinstance(rows, list):
        raise InputError(f"{where} is a JSON {_kind(rows)}; {advice}")
    yield from ((f"{where}, item {number}", row) for number, row in enumerate(rows[count:], count + 1))


def _items(file: Any) -> Iterator[Any]:
    """The items of a JSON array one by one; raises ValueError, IndexError or RecursionError for what is none."""
    decode, skip = json.JSONDecoder().raw_decode, re.compile(r"[ \t\r\n]*").match
    text = TextIOWrapper(file, "utf-8-sig", newline="")
    buffer, at, expected = text.read(CHUNK), 0, "["
    while True:
        try:
            at = skip(buffer, at).end()  # type: ignore[union-attr]
            start = skip(buffer, at + 1).end()  # type: ignore[union-attr]
            if buffer[at] == "]" and expected == ",":
                break
            if buffer[at] != expected:
                raise ValueError(expected)
            if buffer[start] == "]" and expected == "[":
                at = start
                break
            row, end = decode(buffer, start)
        except (ValueError, IndexError):
            if not (more := text.read(CHUNK + len(buffer) - at)):
                raise
            buffer, at = buffer[at:] + more, 0
            continue
        yield row
        at, expected = end, ","
    if buffer[at + 1 :].strip() or text.read().strip():
        raise ValueError(expected)


def _json(place: str, text: str, advice: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}" if "\n" in text else f"column {error.colno}"
        raise InputError(f"{place} is not JSON ({error.msg}, {at}); {advice}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise InputError(f"{place} is not JSON that can be read ({str(error)[:80]}); {advice}") from None


def _checked(place: str, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise InputError(f'{place} is a JSON {_kind(row)}; each row is an object, as in {{"column": "text"}}')
    if bad := _bad_character(row):
        what = f"\\u{ord(bad):04x}, half of a character" if ord(bad) else "a NUL character"
        raise InputError(f"{place} has {what}; mend or delete the row")
    return row


def _bad_character(value: Any) -> str | None:
    """A NUL or half of a character, which cannot be written again, somewhere in a value."""
    if isinstance(value, str):
        return found[0] if (found := BAD_CHARACTER.search(value)) else None
    inside = (*value, *value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next(filter(None, map(_bad_character, inside)), None)


def _kind(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _parquet(path: Path, where: str) -> Iterator[tuple[str, Any]]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(batch_size=1000) for row in batch.to_pylist())
            yield from ((f"{where}, row {number}", row) for number, row in enumerate(rows, 1))
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"{where} is no whole Parquet file ({reason}); make or download it again") from None
