"""The forms of labelled tasks: multiple choice, classification, questions on a text, math with worked answers."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from sdx import InputError
from sdx.languages import Language
from sdx.store.step import Step
from sdx.tasks.base import GenerativeTask, Item, question_texts
from sdx.tasks.files import Record
from sdx.tasks.items import Row, read_row
from sdx.tasks.labelled import ANSWER, Fields, LabelledTask
from sdx.tasks.reading import ReadTask, Splits, digest, warn_of_unused_labels
from sdx.text.answer_spans import mark, unmark
from sdx.text.numbers import HEADING, final_number

CALCULATOR = re.compile(r"<<[^<>\n]*>>")
"""GSM8K's notes for a calculator: `48/2 = <<48/2=24>>24`."""


class LabelledChoice(LabelledTask, ReadTask):
    """The texts of the choices are ranked after the prompt, as it stands; or a model with a head reads the texts."""

    plain = True
    translatable = False
    file_input = "asset"

    @abstractmethod
    def choices(self, record: Record) -> tuple[Sequence[str], int | None]:
        """The choices, and the index of the right one; none for a row without a label."""

    def item(self, id_: str, record: Record, texts: dict[str, str]) -> Item | None:
        choices, gold = self.choices(record)
        if gold is None:
            return None
        prompt = self.prompt(texts) if self.wraps else texts["question"]
        return Item(id_, prompt, choices, gold, fields=self.fields_of(texts), segments=list(texts.values()))

    def example(self, record: Record) -> dict[str, str] | str:
        texts, (choices, gold) = self.texts_of(record), self.choices(record)
        if gold is None:
            return "unlabelled"
        fields = {**texts, ANSWER: choices[gold]}
        return fields if all(fields.values()) else "dropped"

    def read_example(self, record: Record) -> Row | str:
        """A row to read, or the reason why the record cannot be used."""
        if not (item := self.item("", record, self.texts_of(record))):
            return "unlabelled"
        row = read_row(item, bool(self.labels))
        return row if all(row["segments"]) else "dropped"

    def split_inputs(self, source: Language) -> dict[str, Step]:
        inputs, files = self.training_inputs(source), self.validation
        if not files.missing and (files.path or files.has(source)):
            inputs["validation"] = files.step(source)
        return inputs

    @property
    def split_description(self) -> Mapping[str, Any]:
        files = {"train": self.train, "validation": self.validation, "test": self.test}
        return {"form": type(self).__name__, **{name: split.description for name, split in files.items()}}

    def splits(self, directories: Mapping[str, Path], source: Language, validation_rows: int) -> Splits:
        excluded = {"in_test": self.test_digests(directories, source)}
        arguments = source, self.read_example, question_texts, excluded
        validation: list[Row] = []
        if "validation" in directories:
            validation, _ = self.validation.examples(directories["validation"], *arguments)
            excluded["in_validation"] = {digest(question_texts(row)) for row in validation}
        train, left_out = self.train.examples(directories["train"], *arguments)
        warn_of_unused_labels(self.train.where(source), self.labels, (row["label"] for row in train))
        if not validation:
            if len(train) <= validation_rows:
                raise InputError(
                    f"{self.train.where(source)} has {len(train)} rows, no more than the {validation_rows} to hold "
                    f"out for validation; give those as {self.validation.key}.path=..., or more rows"
                )
            train, validation = train[:-validation_rows], train[-validation_rows:]
        return train, validation[:validation_rows], left_out


class MultipleChoice(LabelledChoice):
    """A question with choices, each a text; the right one is learnt after the question. As ARC-Easy.

    Columns: `question`, `choices` (a list) and `gold`, the number of the right choice from 0; or, if the column
    `letters` holds the list of the choices' labels, its label.
    """

    translatable = True
    wraps = False
    texts: tuple[str, ...] = ("question",)
    train_columns: tuple[str, ...] = ("choices", "gold")
    test_columns = train_columns
    optional_columns: tuple[str, ...] = ("id", "letters")

    def choices(self, record: Record) -> tuple[list[str], int]:
        choices = record.texts("choices")
        if "letters" not in record.files.columns:
            return choices, record.index("gold", 0, len(choices))
        letters, right = record.texts("letters"), record.text("gold")
        if right not in letters or len(letters) != len(choices):
            raise record.error("gold", right, f"it is one of {', '.join(letters)}")
        return choices, letters.index(right)

    def check_test_record(self, record: Record) -> None:
        if not all(choices := record.texts("choices")):
            raise record.error("choices", choices, "one of them is empty")


class ReadingComprehension(MultipleChoice):
    """A question on a passage with four choices in columns of their own. As Belebele.

    Columns: `passage`, `question`, `choice1` to `choice4` and `gold`, the number of the right choice from 1.
    """

    translatable = False
    wraps = True
    texts = ("passage", "question")
    choice_columns = ("choice1", "choice2", "choice3", "choice4")
    train_columns = test_columns = (*choice_columns, "gold")
    optional_columns = ("id",)

    def choices(self, record: Record) -> tuple[list[str], int]:
        gold = record.index("gold", 1, len(self.choice_columns))
        return [record.text(name) for name in self.choice_columns], gold

    def check_test_record(self, record: Record) -> None:
        for name in self.choice_columns:
            record.text(name, needed=True)


class Classification(LabelledChoice):
    """One text or more with a label, whose word is learnt and ranked. As XNLI.

    Columns: the texts, by any names, and `label`, its number from 0; -1 is a row without a label. If the description
    of a file has `labels`, the column holds these words instead.
    """

    train_columns = test_columns = ("label",)

    def check_labels(self, key: str) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels) or not all(map(str.strip, self.labels)):
            raise InputError(f"{key}=[{','.join(self.labels)}]: give two words or more, all different")
        if ANSWER in self.translated:
            raise InputError(f"task.{self.name}.translated has answer, but the labels stay as they are; leave it out")

    def choices(self, record: Record) -> tuple[tuple[str, ...], int | None]:
        label = record.label()
        if label is None or label == -1:
            return self.labels, None
        if not 0 <= label < len(self.labels):
            raise record.error("label", label, f"it is 0 to {len(self.labels) - 1} or -1")
        return self.labels, label


class LabelledGeneration(LabelledTask, GenerativeTask):
    """The prompt is put into the backbone's template and answered freely."""

    plain = False
    file_input = "file"

    def item(self, id_: str, record: Record, texts: dict[str, str]) -> Item:
        return Item(id_, self.prompt(texts), references=self.references(record), fields=self.fields_of(texts))

    @abstractmethod
    def references(self, record: Record) -> list[str]:
        """The right answers to a test item, at least one."""


class ExtractiveQA(LabelledGeneration):
    """A question on a text, answered with words of the text. As XQuAD.

    Columns: `context`, `question`, `answer`, in a test a text or a list of texts that are all right, and in the
    training data `start`, the character of the context at which the answer begins. In training rows, a marker replaces
    the answer in the context (see `sdx.text.answer_spans`).
    """

    translatable = False
    texts = ("context", "question")
    train_columns = (ANSWER, "start")
    test_columns = (ANSWER,)
    metrics = ("F1", "exact match")
    reasons: ClassVar[Mapping[str, str]] = {"context": "answer_span"}

    @property
    def parts(self) -> tuple[tuple[str, ...], ...]:
        groups = (("context", ANSWER), ("question",))
        return tuple(filter(None, (tuple(name for name in group if name in self.translated) for group in groups)))

    def prompt_texts(self, fields: Fields) -> tuple[str, ...]:
        context = unmark(fields["context"], fields[ANSWER]) if ANSWER in fields else fields["context"]
        return context, fields["question"]

    def references(self, record: Record) -> list[str]:
        if not (answers := record.text_or_texts(ANSWER)):
            raise record.error(ANSWER, "", "a test item needs its answer")
        return answers

    def example(self, record: Record) -> dict[str, str] | str:
        context, question, answer = record.value("context"), record.text("question"), record.value(ANSWER)
        start = record.number("start")
        if not (record.text("context") and question and record.text(ANSWER)) or start is None:
            return "dropped"
        bare = str(answer).strip()
        start += len(str(answer)) - len(str(answer).lstrip())
        marked = mark(str(context), start, bare)
        return {"context": marked.strip(), "question": question, ANSWER: bare} if marked else "mismatched"


class Math(LabelledGeneration):
    """A problem with a worked answer that ends with a number. As GSM8K and MGSM.

    Columns: `question` and `answer`, in a test the number alone or a worked answer. The answer of a model is its first
    number after the first "####", or else its last number.
    """

    translatable = True
    texts = ("question",)
    train_columns = test_columns = (ANSWER,)
    metrics = ("accuracy",)
    reasons: ClassVar[Mapping[str, str]] = {ANSWER: "final_number"}

    def answer(self, completion: str) -> str:
        return final_number(completion)

    def references(self, record: Record) -> list[str]:
        worked = record.text(ANSWER)
        if not (number := final_number(worked)):
            raise record.error(ANSWER, worked, "it holds no number")
        return [number]

    def example(self, record: Record) -> dict[str, str] | str:
        question, worked = record.text("question"), CALCULATOR.sub("", record.text(ANSWER))
        steps, heading, last = worked.rpartition(HEADING)
        if heading and (number := final_number(last)):
            worked = f"{steps}{HEADING} {number}"
        return {"question": question, ANSWER: worked.strip()} if question and final_number(worked) else "dropped"
