"""Benchmarks in files: the options that name them, and their records."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdx import fields
from sdx.artifacts import Step
from sdx.config import InputError, TaskConfig
from sdx.data.files import check_source, file_step, published, read_records, source_name
from sdx.evaluation.normalisation import Normalisation


@dataclass
class HubTaskConfig(TaskConfig):
    """A benchmark in files. A `path` is read instead of the hub's dataset."""

    path: str | None = fields.path()
    """Local file in the benchmark's own format: .jsonl, .json, .csv, .tsv (each also with .gz) or .parquet.
    `{language}` stands for the benchmark's code of a language; in FLORES that is FLORES-200's, and `{flores_plus}`
    FLORES+'s."""
    hub_id: str | None = None
    """Dataset on the Hugging Face hub; needs `revision` and `file`."""
    revision: str | None = None
    """Commit of the dataset, 40 hexadecimal digits."""
    file: str | None = None
    """Path inside the dataset, with the placeholders of `path`."""


@dataclass
class HubAnswersConfig(HubTaskConfig):
    """A benchmark of short answers."""

    normalisation: Normalisation = Normalisation.unicode
    """What F1 and exact match compare: `unicode`, ours, or a published evaluation's, which the metric is then named
    after, as in `F1 (MKQA)`: `mkqa`, `mlqa`, `squad`. See `sdx.evaluation.normalisation`."""


SCHEMAS = {"hub": HubTaskConfig, "hub_answers": HubAnswersConfig}


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

    def opened(self, language: str, **others: str) -> str:
        """As messages name the file in which a language is."""
        return source_name(self.group, self.path, self.hub_id, self.file, {"language": language, **others})

    def records(
        self, directory: Path, names: Collection[str], language: str, **others: str
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """(place, record) of each row of what `step` published for a language.

        Args:
            names: columns, by which a .tsv's header is known.
        """
        return read_records(published(directory), self.opened(language, **others), names)


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
