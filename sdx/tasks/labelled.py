"""Benchmarks that come with labelled training data: a description of the data, and one prompt for training and test.

The forms are in `sdx.tasks.forms`; a dataset of one of these forms is a YAML file in conf/task/ and no code.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any, ClassVar

from sdx import InputError
from sdx.languages import ENGLISH, Language, language
from sdx.store.step import Step
from sdx.tasks.base import Item, Task
from sdx.tasks.files import Files, LabelledFilesConfig, Record
from sdx.tasks.normalisation import Normalisation
from sdx.tasks.reading import Splits, Training, digest, warn_of_unused_labels

ANSWER = "answer"
Fields = Mapping[str, str]


class LabelledTask(Task):
    """A benchmark with labelled training data. A form is a subclass that is a choice or a generative task too.

    Methods that take a record raise InputError for a row that does not fit the description.

    Raises:
        InputError: the description cannot work; no file is read to find this out.
    """

    plain: bool
    """The prompt is scored as it stands; otherwise it is put into the backbone's template and answered freely."""
    translatable: bool
    """A translator may make the test items of a language."""
    wraps = True
    """The prompt of an item is the whole prompt; otherwise it is the question alone, which a translator may render."""
    texts: tuple[str, ...] = ()
    """The columns of texts that the form needs; any if empty."""
    train_columns: tuple[str, ...]
    test_columns: tuple[str, ...]
    """Further columns that the form needs."""
    optional_columns: tuple[str, ...] = ("id",)
    file_input: str
    """Name of the test's file among the inputs of steps."""
    reasons: ClassVar[Mapping[str, str]] = {}
    """Translated field -> an additional filter for it, see `sdx.data.filters`."""

    def __init__(
        self,
        shots: int,
        benchmark: str,
        title: str,
        prompt: str,
        translated: list[str],
        labels: list[str],
        train: LabelledFilesConfig,
        test: LabelledFilesConfig,
        validation: LabelledFilesConfig | None = None,
        normalisation: Normalisation = Normalisation.unicode,
    ) -> None:
        self.name, self.title, self.labels = benchmark, title, tuple(labels)
        super().__init__(shots)
        key = f"task.{benchmark}"
        self.train, self.test = Files(f"{key}.train", train, labels), Files(f"{key}.test", test, labels)
        self.validation = Files(f"{key}.validation", validation or LabelledFilesConfig(), labels)
        texts = self._texts(self.train, self.train_columns)
        for files, columns in ((self.test, self.test_columns), (self.validation, self.train_columns)):
            if files is self.validation and files.missing:
                continue
            if set(texts) != set(others := self._texts(files, columns)):
                both = f"the texts {', '.join(others)}, train.columns {', '.join(texts)}"
                raise InputError(f"{files.key}.columns has {both}; give both the same")
        self.fields = (*texts, ANSWER)
        self.translated = tuple(name for name in self.fields if name in translated)
        if unknown := set(translated) - set(self.fields):
            raise InputError(f"{key}.translated has {', '.join(sorted(unknown))}; choose from {', '.join(self.fields)}")
        if self.translatable and (lacks := [name for name in texts if name not in translated]):
            raise InputError(
                f"{key}.translated=[{','.join(translated)}] lacks {lacks[0]}, which is translated in test items; add it"
            )
        self._prompt = _checked(f"{key}.prompt", prompt, texts)
        self.prompt_template: str | None = "{question}" if self.wraps else prompt
        self.check_labels(f"{key}.labels")
        self.normalisation = normalisation
        if normalisation is not Normalisation.unicode and "F1" not in self.metrics:
            raise InputError(f"{key}.normalisation={normalisation.value}: nothing here has an F1 by it; leave it out")

    def _texts(self, files: Files, needed: tuple[str, ...]) -> tuple[str, ...]:
        """The texts among the columns of a split."""
        if missing := [name for name in (*self.texts, *needed) if name not in files.columns]:
            raise InputError(f"{files.key}.columns.{missing[0]} is not given; name the column of the file that has it")
        special = (*needed, *self.optional_columns, *self.train_columns, *self.test_columns)
        texts = tuple(name for name in files.columns if name not in special)
        if not texts or (self.texts and set(texts) != set(self.texts)):
            wanted = ", ".join(self.texts) or "one text or more"
            raise InputError(f"{files.key}.columns has the texts {', '.join(texts) or 'none'}; there are {wanted}")
        return self.texts or texts

    def check_labels(self, key: str) -> None:
        """Raises InputError for `labels` that the form cannot use."""
        if self.labels:
            raise InputError(f"{key}=[{','.join(self.labels)}]: only classification has labels; leave them out")

    @property
    def parts(self) -> tuple[tuple[str, ...], ...]:
        """Groups of translated fields; the fields of a group must be in the same language."""
        return tuple((name,) for name in self.translated)

    @property
    def template(self) -> dict[str, Any]:
        """What decides `prompt` and `response` of a row, as JSON."""
        return {"form": type(self).__name__, "prompt": self._prompt}

    @property
    def description(self) -> Mapping[str, Any]:
        described = {"form": type(self).__name__, "translated": list(self.translated), "labels": list(self.labels)}
        return {**described, "test": self.test.description, **({"prompt": self._prompt} if self.wraps else {})}

    def prompt(self, fields: Fields) -> str:
        """What a model reads, for a test item, a row of `train.jsonl`, or translations of their fields."""
        return self._prompt.format(**dict(zip(self.fields[:-1], self.prompt_texts(fields), strict=True)))

    def prompt_texts(self, fields: Fields) -> tuple[str, ...]:
        """The texts in the prompt, which identify a test item whatever the words around them."""
        return tuple(fields[name] for name in self.fields[:-1])

    def response(self, fields: Fields) -> str:
        """What is learnt: after `prompt`, with a space between if the form is `plain`."""
        return fields[ANSWER]

    @abstractmethod
    def example(self, record: Record) -> dict[str, str] | str:
        """`fields` of a row of training data, or the reason why the row cannot be used."""

    def why_unsupported(self, language: Language) -> str | None:
        if self.test.missing or self.test.has(language):
            return self.test.missing or self.normalisation.why_unsupported(language)
        if self.needs_translation(language, language):
            return None
        if not self.test.differ:
            return f"{self.test.where()} is one file, in English; put {{language}} where the files differ."
        return f"{self.title} does not have the language."

    def needs_translation(self, language: Language, source: Language) -> bool:
        """A benchmark that people translated into some languages is not brought into others by machines."""
        return self.translatable and not self.test.codes and not self.test.has(language)

    def original(self, source: Language) -> Language:
        return source if self.test.has(source) else language(ENGLISH)

    def origin(self, language: Language) -> str:
        """`as given` for a file that the benchmark does not have: its author is unknown."""
        known = language.flores == ENGLISH or self.test.official(language)
        return super().origin(language) if known else "as given"

    def where(self, language: Language) -> str:
        return self.test.where(language)

    def inputs(self, language: Language, answer_language: Language) -> dict[str, Step]:
        return {self.file_input: self.test.step(language)}

    @abstractmethod
    def item(self, id_: str, record: Record, texts: dict[str, str]) -> Item | None:
        """A row of the test; none for a row without a label."""

    def check_test_record(self, record: Record) -> None:
        """Raises InputError for a row of the test whose answers cannot be used."""

    def read(self, directories: Mapping[str, Path], language: Language, answer_language: Language) -> list[Item]:
        rows = self.test_records(directories[self.file_input], language)
        items = [item for row in rows if (item := self.item(*row))]
        warn_of_unused_labels(self.where(language), self.labels, (item.gold for item in items))
        return items

    def test_records(self, directory: Path, language: Language) -> Iterator[tuple[str, Record, dict[str, str]]]:
        """(id, record, texts) of each test item in a language from the output of the file's step.

        Raises:
            InputError: as `Files.records`; an empty text.
        """
        for id_, record in self.test.records(directory, language):
            texts = {name: record.text(name, needed=True) for name in self.fields[:-1]}
            self.check_test_record(record)
            yield id_, record, texts

    def texts_of(self, record: Record) -> dict[str, str]:
        """The texts of a row by name, without the answer."""
        return {name: record.text(name) for name in self.fields[:-1]}

    def fields_of(self, texts: Fields) -> dict[str, str]:
        """The texts of a test item that are translated."""
        return {name: texts[name] for name in self.translated if name != ANSWER}

    def training(self, source: Language, rows: int) -> Step:
        """Publishes `train.jsonl`: `id` and `fields` of `rows` labelled examples (0: all) in L, and counts the others.

        They are the first in the order of a hash of their ids. Left out are rows without a label or with an empty
        field, rows that occur twice, and rows of the test, in L or in the language that the test is translated from.

        Raises:
            InputError: there are no training data in L.
        """
        return LabelledTraining(self, source, rows, self.training_inputs(source))

    def training_inputs(self, source: Language) -> dict[str, Step]:
        """The files of labelled data in L: `train`, and `test` if the benchmark has L or English.

        Raises:
            InputError: there are no training data in L.
        """
        if not (self.train.missing or self.train.path or self.train.has(source)):
            raise InputError(
                f"task.{self.name} has no training data in {source.name}; give a file as {self.train.key}.path=..., or "
                "take source=en"
            )
        inputs = {"train": self.train.step(source)}
        if self.test.missing or self.test.has(self.original(source)):
            inputs["test"] = self.test.step(self.original(source))
        return inputs

    def test_digests(self, directories: Mapping[str, Path], source: Language) -> set[bytes]:
        """`digest` of the test items in L, or in the language they are translated from; empty without a file."""
        records = self.test_records(directories["test"], self.original(source)) if "test" in directories else ()
        return {digest(self.prompt_texts(texts)) for *_, texts in records}


def _checked(key: str, prompt: str, texts: tuple[str, ...]) -> str:
    """`prompt` itself. Raises InputError unless it is a format string over the texts."""
    known = ", ".join(f"{{{name}}}" for name in texts)
    try:
        named = [name for _, name, _, _ in Formatter().parse(prompt) if name is not None]
    except ValueError as error:
        raise InputError(f"{key} is no prompt ({error}); write {known}, and {{{{ and }}}} for braces") from None
    if unknown := [name for name in named if name not in texts]:
        raise InputError(f"{key} has {{{unknown[0]}}}, which is no text of the task; there are {known}")
    try:
        prompt.format(**dict.fromkeys(texts, ""))
    except ValueError as error:
        raise InputError(f"{key} cannot be filled in ({error}); write {known} and no format") from None
    if not named:
        raise InputError(f"{key} asks nothing; write {known} where the texts stand")
    return prompt


@dataclass(frozen=True, eq=False)
class LabelledTraining(Training):
    """Examples by the names of their fields."""

    task: LabelledTask
    version = 2

    @property
    def description(self) -> Mapping[str, Any]:
        task = self.task
        return {"form": type(task).__name__, "train": task.train.description, "test": task.test.description}

    def splits(self, directories: Mapping[str, Path]) -> Splits:
        task, source = self.task, self.source
        excluded = {"in_test": task.test_digests(directories, source)}
        rows, left_out = task.train.examples(directories["train"], source, task.example, task.prompt_texts, excluded)
        used = (task.labels.index(row[ANSWER]) for row in rows if task.labels)
        warn_of_unused_labels(task.train.where(source), task.labels, used)
        return rows, (), left_out
