"""The files of a task with labels, as its description names them: where they come from, and their columns."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.languages import ENGLISH, Language
from sdx.offline.assets import AssetStep
from sdx.offline.benchmarks import COUNTS, read_requests
from sdx.options.source import FileSource
from sdx.sources.files import column, column_names, file_step, local_path, published, read_records
from sdx.store.step import Step
from sdx.tasks.labelled_config import LabelledFilesConfig

WHOLE = re.compile(r"[+-]?\d+(\.0+)?")


@dataclass(frozen=True)
class Record:
    """A row of a file by the names of the description."""

    key: str
    """Of the split, as in `task.xnli.train`."""
    place: str
    columns: Mapping[str, str]
    content: Mapping[str, Any]
    labels: tuple[str, ...] = ()
    """The words for the labels in the file; none where they are numbers or the task's own words."""
    words: tuple[str, ...] = ()
    """The task's own words for its labels."""

    @property
    def id(self) -> str:
        """The text of the column `id`, or those of several with a slash between; empty where one is.

        Raises:
            InputError: there is no such column.
        """
        parts = [replace(self, columns={"id": name}).text("id") for name in self.columns["id"].split("/")]
        return "/".join(parts) if all(parts) else ""

    def label(self) -> int | None:
        """The number in the column `label`, or that of the word in it; none for null.

        Raises:
            InputError: it is something else.
        """
        words, word = self.labels or self.words, self.text("label")
        if word in words:
            return words.index(word)
        if not word or (not self.labels and WHOLE.fullmatch(word)):
            return self.number("label")
        raise InputError(
            f"{self.place} has the label {word[:80]!r} in `{self.columns['label']}`, and the labels are "
            f"{', '.join(words) or 'numbers from 0 on'}; mend the row, or give the file's own words, from label 0 on, "
            f"as {self.key}.labels=[...]"
        )

    def value(self, name: str) -> Any:
        """What a column holds; none for null, and below an empty list.

        Raises:
            InputError: there is no such column.
        """
        wanted = self.columns[name]
        try:
            return column(self.content, wanted)
        except KeyError:
            above = wanted.rpartition(".")[0]
            if above and self._empty(above):
                return None
            there = ", ".join(column_names(self.content)) or "none"
            raise InputError(
                f"{self.place} has no column `{wanted}`, only {there}; name the right one as "
                f"{self.key}.columns.{name}=..."
            ) from None

    def _empty(self, name: str) -> bool:
        try:
            return bool(column(self.content, name) == [])
        except KeyError:
            return False

    def text(self, name: str) -> str:
        """A text or a number, without spaces around it; empty for null.

        Raises:
            InputError: it is something else.
        """
        return self._text(name, self.value(name))

    def _text(self, name: str, value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int | float | None):
            raise self.refused(name, value, "that is no text; name a column with texts")
        return "" if value is None else str(value).strip()

    def number(self, name: str) -> int | None:
        """A whole number, also as its digits or as pandas writes it where others are missing, `1.0`; none for null.

        Raises:
            InputError: it is something else.
        """
        value = self.value(name)
        text = "" if value is None else str(value).strip()
        if text and not WHOLE.fullmatch(text):
            raise self.refused(name, value, "that is no whole number; name a column with numbers")
        return int(text.partition(".")[0]) if text else None

    def texts(self, name: str) -> list[str]:
        """A list of texts without spaces around them.

        Raises:
            InputError: it is something else.
        """
        value = self.value(name)
        if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
            raise self.refused(name, value, "that is no list of texts; name a column with a list")
        return [one.strip() for one in value]

    def text_or_texts(self, name: str) -> list[str]:
        """A text, or those of a list, each once and without spaces around it; nothing for null and empty texts.

        Raises:
            InputError: it is something else.
        """
        value = self.value(name)
        each = value if isinstance(value, list) else [value]
        return list(dict.fromkeys(filter(None, (self._text(name, one) for one in each))))

    def refused(self, name: str, value: Any, advice: str) -> InputError:
        shown = json.dumps(value, ensure_ascii=False, default=str)[:80]
        return InputError(f"{self.place} has {shown} in `{self.columns[name]}`: {advice} as {self.key}.columns.{name}=")


class Files:
    """Where a split comes from.

    Args:
        key: as in `task.xnli.train`.
        words: of the task for its labels.

    Raises:
        InputError: a source that cannot work.
    """

    def __init__(self, key: str, given: LabelledFilesConfig, words: Sequence[str] = ()) -> None:
        self.key, self.columns, self.codes, self.labels = key, given.columns, given.codes, tuple(given.labels)
        self._words = tuple(words)
        local = given.path is not None
        self.path, self.half = given.path, 0 if local else given.half
        self.asset = None if local else given.asset
        self.file = None if local else given.file
        self._source: FileSource = FileSource(path=given.path) if local else given
        self._source.check(key, required=False)
        if self.asset and self.file not in COUNTS:
            raise InputError(f"{key}.file={self.file} is not in the asset; give one of {', '.join(COUNTS)}")

    @property
    def missing(self) -> str | None:
        """Why there is nothing to read, and the fix, as the end of a sentence."""
        if self.path or self.asset or self._source.hub_id:
            return None
        return f"its file is not on the hub; give a copy as {self.key}.path=..."

    @property
    def each(self) -> bool:
        """Whether each language has a file of its own."""
        return "{language}" in (self.path or self.file or "")

    @property
    def where(self) -> str:
        """As messages name the files of all languages."""
        return self._named({})

    def opened(self, language: Language) -> str:
        """As messages name the file of a language."""
        return self._named(self._placeholders(language))

    def _named(self, placeholders: Mapping[str, str]) -> str:
        if self.asset:
            return f"{self.key}.file={self.file}"
        return self._source.where(self.key, placeholders)

    def has(self, language: Language) -> bool:
        """Whether a test is there in a language.

        A local file in a language that the benchmark itself does not have is looked for on the disk.
        """
        if not self.each:
            return language.flores == ENGLISH
        if self.path and not self.official(language):
            return local_path(f"{self.key}.path", self.path, self._placeholders(language)).is_file()
        return bool(self._code(language))

    def official(self, language: Language) -> str:
        """The benchmark's own code of a language; nothing where it has none."""
        code: str = getattr(language, self.codes) if self.codes else ""
        return code

    def _code(self, language: Language) -> str:
        return self.official(language) or (language.code if self.path or not self.codes else "")

    def _placeholders(self, language: Language) -> dict[str, str]:
        return {"language": self._code(language)}

    def step(self, language: Language) -> Step:
        """Publishes the file of a language.

        Raises:
            InputError: it is not there.
        """
        if self.asset:
            return AssetStep(self.asset)
        if self.missing:
            raise InputError(f"{self.key} has no file: {self.missing}")
        return file_step(self.key, self._source, self._placeholders(language))

    def records(self, directory: Path, language: Language) -> Iterator[tuple[str, Record]]:
        """(id, record) of each row of what `step` published for a language.

        Raises:
            InputError: a row that cannot be read; a row without its id.
        """
        if self.asset:
            assert self.file
            rows = read_requests(directory / self.file, self.where)
        else:
            names = [*self.columns.values(), *self.columns.get("id", "").split("/")]
            rows = read_records(published(directory), self.opened(language), names)
        seen: Counter[str] = Counter()
        for number, (place, content) in enumerate(rows, 1):
            record = Record(self.key, place, self.columns, content, self.labels, self._words)
            id_ = record.id if "id" in self.columns else str(number)
            if "/" in self.columns.get("id", ""):  # what several columns name may be there more than once
                seen[id_] += 1
                id_ += f"#{seen[id_]}" if seen[id_] > 1 else ""
            if not id_:
                raise InputError(
                    f"{place} has no id in `{self.columns['id']}`; name another column as {self.key}.columns.id=..., "
                    f"or have the rows numbered with ~{self.key}.columns.id"
                )
            if not self.half or 1 + sha256(id_.encode()).digest()[0] % 2 == self.half:
                yield id_, record

    @property
    def description(self) -> dict[str, Any]:
        """What decides the rows beside the file, as JSON."""
        columns = {} if self.missing else dict(self.columns)
        described = {"columns": columns, "half": self.half, "file": self.file if self.asset else None}
        return {**described, "labels": list(self.labels)} if self.labels else described
