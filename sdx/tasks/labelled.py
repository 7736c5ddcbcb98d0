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
from sdx.tasks.base import Item
from sdx.tasks.labelled_config import LabelledFilesConfig
from sdx.tasks.labelled_files import Files, Record
from sdx.tasks.labelled_rows import digest, learnable, warn_of_absent
from sdx.tasks.normalisation import Normalisation
from sdx.tasks.reading import Splits, TrainedTask, Training

ANSWER = "answer"
Fields = Mapping[str, str]


class LabelledTask(TrainedTask):
    """A benchmark with labelled training data. A form is a subclass that is a choice or a generative task too.

    Raises:
        InputError: the description cannot work; nothing is read for that.
    """

    plain: bool
    """The prompt is scored as it stands; otherwise it is put into the backbone's template and answered freely."""
    translatable: bool
    """A translator may make the test items of a language."""
    texts: tuple[str, ...] = ()
    """The columns of texts that the form needs; any where it is empty."""
    train_columns: tuple[str, ...]
    """Further columns of the training data that the form needs."""
    test_columns: tuple[str, ...]
    """Further columns of the test."""
    optional_columns: tuple[str, ...] = ("id",)
    file_input: str
    """As steps that read the test name its file."""
    normalised = False
    """F1 and exact match are measured, by `normalisation`."""
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
        texts = self._columns(self.train, self.train_columns)
        if set(texts) != set(others := self._columns(self.test, self.test_columns)):
            both = f"the texts {', '.join(others)}, train.columns {', '.join(texts)}"
            raise InputError(f"{key}.test.columns has {both}; give both the same")
        self.validation = Files(f"{key}.validation", validation or LabelledFilesConfig(), labels)
        if not self.validation.missing and set(others := self._columns(self.validation, self.train_columns)) != set(
            texts
        ):
            both = f"the texts {', '.join(others)}, train.columns {', '.join(texts)}"
            raise InputError(f"{key}.validation.columns has {both}; give both the same")
        self.fields = (*texts, ANSWER)
        self.translated = tuple(name for name in self.fields if name in translated)
        if unknown := set(translated) - set(self.fields):
            raise InputError(f"{key}.translated has {', '.join(sorted(unknown))}; choose from {', '.join(self.fields)}")
        if self.translatable and (lacks := [name for name in texts if name not in translated]):
            raise InputError(
                f"{key}.translated=[{','.join(translated)}] lacks {lacks[0]}, which is translated in test items; add it"
            )
        self._prompt = _checked(f"{key}.prompt", prompt, texts)
        self.check_labels(f"{key}.labels")
        self.normalisation = normalisation
        if normalisation is not Normalisation.unicode and not self.normalised:
            raise InputError(f"{key}.normalisation={normalisation.value}: nothing here has an F1 by it; leave it out")

    def _columns(self, files: Files, needed: tuple[str, ...]) -> tuple[str, ...]:
        """The texts among the columns of a split."""
        given = files.columns
        if missing := [name for name in (*self.texts, *needed) if name not in given]:
            raise InputError(f"{files.key}.columns.{missing[0]} is not given; name the column of the file that has it")
        special = (*needed, *self.optional_columns, *self.train_columns, *self.test_columns)
        texts = tuple(name for name in given if name not in special)
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
        """Groups of translated fields that must be in one language together."""
        return tuple((name,) for name in self.translated)

    @property
    def template(self) -> dict[str, Any]:
        """What decides `prompt` and `response` of a row, as JSON."""
        return {"form": type(self).__name__, "prompt": self._prompt}

    @property
    def description(self) -> Mapping[str, Any]:
        described = {"form": type(self).__name__, "translated": list(self.translated), "labels": list(self.labels)}
        return {**described, "test": self.test.description}

    def ask(self, fields: Fields) -> str:
        """The prompt around the texts of a test item."""
        return self._prompt.format(**{name: fields[name] for name in self.fields[:-1]})

    def prompt(self, fields: Fields) -> str:
        """What is read in training, for a row of `train.jsonl` or translations of its fields."""
        return self.ask(fields)

    def asked(self, fields: Fields) -> tuple[str, ...]:
        """The texts of the prompt, by which a test item is known again whatever the prompt says around them."""
        return tuple(fields[name] for name in self.fields[:-1])

    def response(self, fields: Fields) -> str:
        """What is learnt: after `prompt`, with one space between where the form is `plain`."""
        return fields[ANSWER]

    @abstractmethod
    def example(self, record: Record) -> dict[str, str] | str:
        """`fields` of a row of training data, or under what it is counted where it cannot be used.

        Raises:
            InputError: a row that does not fit the description.
        """

    def why_unsupported(self, language: Language) -> str | None:
        if self.test.missing or self.test.has(language):
            return self.test.missing or self.normalisation.why_unsupported(language)
        if self._is_translated(language):
            return None
        if not self.test.each:
            return f"{self.test.where} is one file, in English; put {{language}} where the files differ."
        return f"{self.title} does not have the language."

    def needs_translation(self, language: Language, source: Language) -> bool:
        return self._is_translated(language)

    def _is_translated(self, language: Language) -> bool:
        """What is translated into some languages by people is not brought into others by machines."""
        return self.translatable and not self.test.codes and not self.test.has(language)

    def original(self, source: Language) -> Language:
        return source if self.test.has(source) else language(ENGLISH)

    def origin(self, asked: Language, answered: Language) -> str:
        """Of a file that no benchmark has nobody knows who wrote it."""
        if asked.flores == ENGLISH:
            return "original"
        return "human-translated" if self.test.official(asked) else "as given"

    def opened(self, language: Language) -> str:
        return self.test.opened(language)

    def inputs(self, asked: Language, answered: Language) -> dict[str, Step]:
        return {self.file_input: self.test.step(asked)}

    @abstractmethod
    def item(self, id_: str, record: Record, texts: dict[str, str]) -> Item | None:
        """A row of the test; none of one without a label.

        Raises:
            InputError: a row that does not fit the description.
        """

    def read(self, directories: Mapping[str, Path], asked: Language, answered: Language) -> list[Item]:
        rows = self.tested(directories[self.file_input], asked)
        items = [item for row in rows if (item := self.item(*row))]
        warn_of_absent(self.opened(asked), self.labels, (item.gold for item in items))
        return items

    def tested(self, directory: Path, language: Language) -> Iterator[tuple[str, Record, dict[str, str]]]:
        """(id, record, texts) of each test item from the output of the file's step.

        Args:
            language: of the file.

        Raises:
            InputError: a text that is not there; an id twice; no items.
        """
        seen: set[str] = set()
        for id_, record in self.test.records(directory, language):
            fields = self.texts_of(record)
            if empty := [name for name, text in fields.items() if not text]:
                raise record.refused(empty[0], "", "a test item needs all its texts; mend it or name the column")
            if id_ in seen:
                raise InputError(f"{record.place} has the id {id_} again; give a file of one language and one split")
            seen.add(id_)
            yield id_, record, fields
        if not seen:
            raise InputError(
                f"{self.test.opened(language)} holds nothing to ask in {language.name}; give the benchmark's own file"
            )

    def texts_of(self, record: Record) -> dict[str, str]:
        """The texts of a row by name, without the answer."""
        return {name: record.text(name) for name in self.fields[:-1]}

    def to_translate(self, fields: Fields) -> dict[str, str]:
        """The translated fields of a test item, without the answer."""
        return {name: fields[name] for name in self.translated if name != ANSWER}

    def training(self, source: Language, rows: int) -> Step:
        """Publishes `train.jsonl`: `id` and `fields` of labelled examples in L, and counts what was left out.

        They are the first ones in the order of a hash of their ids. Left out are what has no label or an empty field,
        what comes twice, and what is in the test: all items in L, or in the language that they are translated from.

        Args:
            source: L.
            rows: how many; 0: all.

        Raises:
            InputError: there are no training data in L.
        """
        return LabelledTraining(self, source, rows, self.training_inputs(source))

    def training_inputs(self, source: Language) -> dict[str, Step]:
        """The files of labelled data in L: `train`, and `test` where the benchmark is there in L or in English.

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

    def asked_in_test(self, directory: Path | None, source: Language) -> set[bytes]:
        """`digest` of what the test asks in L, or in the language it is translated from; nothing without a file."""
        items = self.tested(directory, self.original(source)) if directory else ()
        return {digest(self.asked(fields)) for *_, fields in items}


def _checked(key: str, prompt: str, texts: tuple[str, ...]) -> str:
    """A format string over the texts.

    Raises:
        InputError: it is none.
    """
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
        task, files, source = self.task, self.task.train, self.source
        taken = {"in_test": task.asked_in_test(directories.get("test"), source)}
        kept, left_out = learnable(files, directories["train"], source, task.example, task.asked, taken)
        if task.labels:
            warn_of_absent(files.opened(source), task.labels, (task.labels.index(row[ANSWER]) for row in kept))
        return Splits(kept, (), left_out)
