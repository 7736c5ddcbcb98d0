"""Benchmarks in files: the options that name them, and their records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdx import fields
from sdx.artifacts import Step
from sdx.config import InputError, TaskConfig
from sdx.data.files import check_source, file_step, published, read_records, source_name


@dataclass
class HubTaskConfig(TaskConfig):
    """A benchmark in files. A `path` is read instead of the hub's dataset."""

    path: str | None = fields.path()
    """Local file in the benchmark's own format: .jsonl, .json, .tsv (each also with .gz) or .parquet. `{language}`
    stands for the benchmark's code of a language; in FLORES that is FLORES-200's, and `{flores_plus}` FLORES+'s."""
    hub_id: str | None = None
    """Dataset on the Hugging Face hub; needs `revision` and `file`."""
    revision: str | None = None
    """Commit of the dataset, 40 hexadecimal digits."""
    file: str | None = None
    """Path inside the dataset, with the placeholders of `path`."""


SCHEMAS = {"hub": HubTaskConfig}


class Source:
    """Where the files of a benchmark come from.

    Raises:
        InputError: the dataset is not pinned.
    """

    def __init__(self, task: str, path: str | None, hub_id: str | None, revision: str | None, file: str | None) -> None:
        self.group = f"task.{task}"
        self.obstacle = None if path or hub_id else f"its file is not on the hub; give a copy as {self.group}.path=..."
        """Why it cannot be run, as the end of a sentence."""
        self.path = path
        self.hub_id, self.revision, self.file = (None, None, None) if path else (hub_id, revision, file)
        check_source(self.group, self.path, self.hub_id, self.revision, self.file)

    def step(self, language: str, **others: str) -> Step:
        """Publishes the file in which a language is."""
        placeholders = {"language": language, **others}
        return file_step(self.group, self.path, self.hub_id, self.revision, self.file, placeholders)

    def records(self, directory: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """(place, record) of each row of what `step` published."""
        return read_records(published(directory), source_name(self.group, self.path, self.hub_id, self.file))


def text_of(record: Mapping[str, Any], column: str, place: str) -> str:
    """The text in a column.

    Raises:
        InputError: there is none.
    """
    value = record.get(column)
    if not isinstance(value, str) or not value.strip():
        columns = ", ".join(record)
        raise InputError(f"{place} has no text in `{column}` (columns: {columns}); give the benchmark's own file")
    return value.strip()
