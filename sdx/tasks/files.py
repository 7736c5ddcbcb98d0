"""The files of benchmarks and their records, and the options that describe labelled benchmarks."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from sdx import InputError
from sdx.config import TaskConfig
from sdx.languages import ENGLISH, Language
from sdx.offline.assets import AssetStep
from sdx.offline.benchmarks import COUNTS, read_requests
from sdx.options import fields
from sdx.options.source import FileSource
from sdx.sources.files import column, column_names, file_step, local_path, published, read_records
from sdx.store.step import Step
from sdx.tasks.base import sample_key
from sdx.tasks.items import Row
from sdx.tasks.normalisation import Normalisation
from sdx.tasks.reading import Digests, distinct

CODES = ("xnli", "xquad", "mgsm", "nusax", "americas_nli", "kardes_nlu", "belebele")
"""The columns of languages.csv that can name the files of a language."""
FLORES_PLUS = {
    "ajp_Arab": "apc_Arab_sout3123",
    "aka_Latn": "twi_Latn_asan1239",
    "apc_Arab": "apc_Arab_nort3139",
    "est_Latn": "ekk_Latn",
    "grn_Latn": "gug_Latn",
    "kon_Latn": "ktu_Latn",
    "sat_Beng": "sat_Olck",
    "tgl_Latn": "fil_Latn",
    "twi_Latn": "twi_Latn_akua1239",
    "tzm_Tfng": "zgh_Tfng",
    "zho_Hans": "cmn_Hans",
    "zho_Hant": "cmn_Hant",
}
"""FLORES-200 code -> FLORES+ code, if they differ (Akan's by elimination)."""
WHOLE = re.compile(r"[+-]?\d+(\.0+)?")


@dataclass
class LabelledFilesConfig(FileSource):
    """One split of a benchmark. A `path` is read instead of the asset's or the hub's `file`.

    It has the same columns, in .jsonl, .json, .csv, .tsv (each also with .gz) or .parquet. In `path` and `file`,
    `{language}` stands for the benchmark's code of a language, or for ours if the benchmark has none. A file without
    `{language}` is in L if it is training data, and in English if it is a test.
    """

    asset: str | None = None
    """Packaged data, see `sdx.offline.assets`; needs `file`."""
    codes: str | None = field(default=None, metadata=fields.among(CODES))
    """Column of languages.csv with the benchmark's codes; none for a benchmark in one language."""
    half: int = fields.number(0, at_least=0, at_most=2)
    """1 or 2: only this half of the rows of `file`, cut by a hash of their ids; 0: all."""
    columns: dict[str, str] = field(default_factory=dict)
    """Name in the prompt and the answer -> column of the file. A dot goes into a nested object or list:
    `answers.text.0`. Rows without a column `id` are numbered; an id of several columns is `link/question_number`."""
    labels: list[str] = field(default_factory=list)
    """Classification: the words for the labels in the file, from label 0 on; without them the file has numbers from 0
    on, or the words of the task."""


@dataclass
class LabelledTaskConfig(TaskConfig):
    """A benchmark of one of the forms in `sdx.tasks.forms`."""

    benchmark: str = fields.name()
    """Its name in tables and cache keys, the same as that of its YAML file."""
    title: str = MISSING
    """Its name in messages."""
    prompt: str = MISSING
    """What a model reads, in training and in evaluation: `{question}` stands for the column of that name."""
    translated: list[str] = field(default_factory=list)
    """The columns of texts that a translator renders, and `answer` if the answer is a text too."""
    labels: list[str] = field(default_factory=list)
    """Classification: the word of each label, from label 0 on. They are the answers in every language."""
    normalisation: Normalisation = Normalisation.unicode
    """Questions on a text: how F1 and exact match make tokens: `unicode`, ours, or the way of a published evaluation,
    which then is part of the metric's name, as in `F1 (MLQA)`: `squad`, `mlqa`, `mkqa`. See
    `sdx.tasks.normalisation`."""
    train: LabelledFilesConfig = field(default_factory=LabelledFilesConfig)
    """The labelled data to train on, in L."""
    test: LabelledFilesConfig = field(default_factory=LabelledFilesConfig)
    """The items of the benchmark."""
    validation: LabelledFilesConfig = field(default_factory=LabelledFilesConfig)
    """Labelled data in L for methods that choose a model by them; without them, some training data are held out."""


SCHEMAS = {"labelled": LabelledTaskConfig}


@dataclass(frozen=True)
class Record:
    """A row of a file, with its columns under the names of the description.

    Its methods raise InputError for a column that is not there or holds something else.
    """

    files: Files
    place: str
    """As in `task.xnli.train.path=/x.jsonl, line 3`."""
    content: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The text of the column `id`, or those of several columns with slashes between; empty if one is empty."""
        parts = [self.text("id", name) for name in self.files.columns["id"].split("/")]
        return "/".join(parts) if all(parts) else ""

    def label(self) -> int | None:
        """The number in the column `label`, or the number of the word in that column; none for null."""
        labels, word = self.files.labels, self.text("label")
        words = labels or self.files.words
        if word in words:
            return words.index(word)
        if not word or (not labels and WHOLE.fullmatch(word)):
            return self.number("label")
        raise InputError(
            f"{self.place} has the label {word[:80]!r} in `{self.files.columns['label']}`, and the labels are "
            f"{', '.join(words) or 'numbers from 0 on'}; mend the row, or give the file's own words, from label 0 on, "
            f"as {self.files.key}.labels=[...]"
        )

    def value(self, name: str, wanted: str = "") -> Any:
        """The content of a column of the description, or of `wanted` in the file; none for null, and below an empty
        list."""
        wanted = wanted or self.files.columns[name]
        try:
            return column(self.content, wanted)
        except KeyError:
            with suppress(KeyError):
                if column(self.content, wanted.rpartition(".")[0]) == []:
                    return None
            there = ", ".join(column_names(self.content)) or "none"
            raise InputError(f"{self.place} has no column `{wanted}`, only {there}; {self.files.fix(name)}") from None

    def text(self, name: str, wanted: str = "", needed: bool = False) -> str:
        """A text or a number, without spaces around it; empty for null, which is an error if the text is `needed`."""
        text = self._text(name, self.value(name, wanted))
        if needed and not text:
            raise self.error(name, "", "a test item needs a text there", wanted)
        return text

    def _text(self, name: str, value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int | float | None):
            raise self.error(name, value, "that is no text")
        return "" if value is None else str(value).strip()

    def number(self, name: str) -> int | None:
        """A whole number, also as its digits or as pandas writes it if others are missing, `1.0`; none for null."""
        value = self.value(name)
        text = "" if value is None else str(value).strip()
        if text and not WHOLE.fullmatch(text):
            raise self.error(name, value, "that is no whole number")
        return int(text.partition(".")[0]) if text else None

    def index(self, name: str, first: int, count: int) -> int:
        """A number from `first` on of one of `count` choices, counted from 0."""
        number = self.number(name)
        if number is None or not 0 <= number - first < count:
            raise self.error(name, number, f"it is {first} to {first + count - 1}")
        return number - first

    def texts(self, name: str) -> list[str]:
        """A list of texts, without spaces around them."""
        value = self.value(name)
        if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
            raise self.error(name, value, "that is no list of texts")
        return [text.strip() for text in value]

    def text_or_texts(self, name: str) -> list[str]:
        """A text, or each different text of a list, without spaces around it; nothing for null and empty texts."""
        value = self.value(name)
        texts = (self._text(name, text) for text in (value if isinstance(value, list) else [value]))
        return list(dict.fromkeys(filter(None, texts)))

    def error(self, name: str, value: Any, problem: str, wanted: str = "") -> InputError:
        shown = json.dumps(value, ensure_ascii=False, default=str)[:80]
        where = f"{self.place} has {shown} in `{wanted or self.files.columns[name]}`"
        return InputError(f"{where}: {problem}; mend the row, or {self.files.fix(name)}")


class Files:
    """The files of a split, one for each language or one for all.

    Args:
        key: as in `task.xnli.train`.
        words: the task's own words for its labels.
        fixed: the user cannot choose the columns.

    Raises:
        InputError: a source that cannot work.
    """

    def __init__(self, key: str, config: LabelledFilesConfig, words: Sequence[str] = (), fixed: bool = False) -> None:
        self.key, self.codes, self.columns, self.fixed = key, config.codes, config.columns, fixed
        self.labels, self.words = tuple(config.labels), tuple(words)
        self.source = config if config.path is None else LabelledFilesConfig(path=config.path)
        self.path, self.asset, self.half, self.file = config.path, self.source.asset, self.source.half, self.source.file
        self.source.check(key, required=False)
        if self.asset and self.file not in COUNTS:
            raise InputError(f"{key}.file={self.file} is not in the asset; give one of {', '.join(COUNTS)}")

    def fix(self, name: str) -> str:
        """What the user can do if a column does not fit, as a part of a message."""
        own = "give the benchmark's own file"
        return own if self.fixed else f"name the right column as {self.key}.columns.{name}=..."

    @property
    def missing(self) -> str | None:
        """Why there is nothing to read, and the fix, as the end of a sentence."""
        if self.path or self.asset or self.source.hub_id:
            return None
        return f"its file is not on the hub; give a copy as {self.key}.path=..."

    @property
    def differ(self) -> bool:
        """Whether each language has a file of its own."""
        return "{language}" in (self.path or self.file or "")

    def where(self, language: Language | None = None) -> str:
        """The file of a language, or those of all languages, as messages name them."""
        if self.asset:
            return f"{self.key}.file={self.file}"
        placeholders = self._placeholders(language) if language else {}
        return self.source.where(self.key, placeholders)

    def has(self, language: Language) -> bool:
        """Whether there is a test in a language.

        A local file in a language that the benchmark itself does not have is looked for on the disk.
        """
        if not self.differ:
            return language.flores == ENGLISH
        if self.path and not self.official(language):
            return local_path(f"{self.key}.path", self.path, self._placeholders(language)).is_file()
        return bool(self._placeholders(language)["language"])

    def official(self, language: Language) -> str:
        """The benchmark's own code of a language; empty if the benchmark lacks the language."""
        code: str = getattr(language, self.codes) if self.codes else ""
        return code

    def _placeholders(self, language: Language) -> dict[str, str]:
        code = self.official(language) or (language.code if self.path or not self.codes else "")
        return {"language": code, **({"flores_plus": FLORES_PLUS.get(code, code)} if self.codes == "flores" else {})}

    def step(self, language: Language) -> Step:
        """The step that publishes the file of a language. Raises InputError if the file is not there."""
        if self.asset:
            return AssetStep(self.asset)
        if self.missing:
            raise InputError(f"{self.key} has no file: {self.missing}")
        return file_step(self.key, self.source, self._placeholders(language))

    def records(self, directory: Path, language: Language, repeats: bool = False) -> Iterator[tuple[str, Record]]:
        """(id, record) of each row of the output of `step` for a language.

        Raises:
            InputError: a row that cannot be read; a row without its id; an id twice, unless `repeats`; no rows.
        """
        id_column = self.columns.get("id", "")
        if self.asset:
            assert self.file
            rows = read_requests(directory / self.file, self.where())
        else:
            names = [*self.columns.values(), *filter(None, id_column.split("/"))]
            rows = read_records(published(directory), self.where(language), names)
        fix = "" if self.fixed else f", {self.fix('id')} or have the rows numbered with ~{self.key}.columns.id"
        seen: Counter[str] = Counter()
        for number, (place, content) in enumerate(rows, 1):
            record = Record(self, place, content)
            id_ = record.id if id_column else str(number)
            if not id_:
                raise InputError(f"{place} has no id in `{id_column}`; give the benchmark's own file{fix}")
            seen[id_] += 1
            if seen[id_] > 1 and "/" in id_column:  # the same values of several columns may occur more than once
                id_ += f"#{seen[id_]}"
            elif seen[id_] > 1 and not repeats:
                raise InputError(f"{place} has the id {id_} again; give a file of one language and one split{fix}")
            if not self.half or 1 + sample_key(id_)[0] % 2 == self.half:
                yield id_, record
        if not seen:
            raise InputError(f"{self.where(language)} has no rows; give the benchmark's own file")

    def examples(
        self,
        directory: Path,
        language: Language,
        example: Callable[[Record], Mapping[str, Any] | str],
        texts: Callable[[Row], Iterable[str]],
        excluded: Digests,
    ) -> tuple[list[Row], Counter[str]]:
        """Distinct rows to train on with their ids, in the order of a hash of the ids, and the number of the others by
        reason.

        Args:
            directory: the output of `step` for `language`.
            example: a row, or the reason why a record cannot be used.
            texts: the texts of a row that tell it apart from others.

        Raises:
            InputError: as `records`; more than half of the rows cannot be used; none is left.
        """
        unusable = Counter(dropped=0)
        rows: list[Row] = []
        for id_, record in self.records(directory, language):
            row = example(record)
            if isinstance(row, str):
                unusable[row] += 1
            else:
                rows.append({"id": id_, **row})
        kept, left_out = distinct(rows, texts, excluded)
        left_out.update(unusable)
        count = len(rows) + unusable.total()
        if 2 * unusable.total() > count or not kept:
            reasons = ", ".join(f"{name} {number}" for name, number in left_out.items() if number)
            raise InputError(
                f"{self.where(language)}: of {count} rows {len(kept)} are left ({reasons}); name the right columns as "
                f"{self.key}.columns.NAME=..., or give another file"
            )
        return sorted(kept, key=lambda row: sample_key(row["id"])), left_out

    @property
    def description(self) -> dict[str, Any]:
        """What decides the rows beside the file, as JSON."""
        columns = {} if self.missing else dict(self.columns)
        described = {"columns": columns, "half": self.half, "file": self.file if self.asset else None}
        return {**described, "labels": list(self.labels)} if self.labels else described
