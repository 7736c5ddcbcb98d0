"""The forms of labelled tasks: multiple choice, classification, questions on a text, math with worked answers."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from sdx import InputError
from sdx.languages import Language
from sdx.store.step import Step
from sdx.tasks.base import GenerativeTask, Item, Kind
from sdx.tasks.items import read_row
from sdx.tasks.labelled import ANSWER, Fields, LabelledTask
from sdx.tasks.labelled_files import Record
from sdx.tasks.labelled_rows import digest, learnable, warn_of_absent
from sdx.tasks.reading import ReadTask, Splits
from sdx.text.answer_spans import mark, unmark
from sdx.text.numbers import HEADING, final_number

CALCULATOR = re.compile(r"<<[^<>\n]*>>")
"""GSM8K's notes for a calculator: `48/2 = <<48/2=24>>24`."""


class LabelledChoice(LabelledTask, ReadTask):
    """The texts of the answers are ranked after the prompt, as it stands; or a model with a head reads the texts."""

    kind = Kind.answers
    plain = True
    file_input = "asset"

    def example(self, record: Record) -> dict[str, str] | str:
        texts = self.texts_of(record)
        item = self.item("", record, texts)
        if not item:
            return "unlabelled"
        fields = {**texts, ANSWER: item.choices[item.gold]}
        return fields if all(fields.values()) else "dropped"

    def labelled(self, record: Record) -> dict[str, Any] | str:
        """A row to read, or under what it is counted where it cannot be used."""
        item = self.item("", record, self.texts_of(record))
        if not item:
            return "unlabelled"
        row = read_row(item, bool(self.labels))
        return row if all(row["segments"]) else "dropped"

    def split_inputs(self, source: Language) -> dict[str, Step]:
        inputs = self.training_inputs(source)
        given = self.validation
        if not given.missing and (given.path or given.has(source)):
            inputs["validation"] = given.step(source)
        return inputs

    @property
    def split_description(self) -> Mapping[str, Any]:
        files = {"train": self.train, "validation": self.validation, "test": self.test}
        return {"form": type(self).__name__, **{name: split.description for name, split in files.items()}}

    def splits(self, directories: Mapping[str, Path], source: Language, validation_rows: int) -> Splits:
        taken = {"in_test": self.asked_in_test(directories.get("test"), source)}
        validation: list[dict[str, Any]] = []
        if "validation" in directories:
            validation, _ = learnable(self.validation, directories["validation"], source, self.labelled, _asked, taken)
            taken["in_validation"] = {digest(_asked(row)) for row in validation}
        train, left_out = learnable(self.train, directories["train"], source, self.labelled, _asked, taken)
        warn_of_absent(self.train.opened(source), self.labels, (row["label"] for row in train))
        if not validation:
            if len(train) <= validation_rows:
                raise InputError(
                    f"{self.train.opened(source)} has {len(train)} rows, no more than the {validation_rows} to hold "
                    f"out for validation; give those as {self.validation.key}.path=..., or more rows"
                )
            train, validation = train[:-validation_rows], train[-validation_rows:]
        return Splits(train, validation[:validation_rows], left_out)


class MultipleChoice(LabelledChoice):
    """A question with answers, each a text; the right one is learnt after the question. As ARC-Easy.

    Columns: `question`, `choices` (a list) and `gold`, the right one's number from 0, or where `letters` names the list
    of the choices' labels, its label.
    """

    translatable = True
    texts: tuple[str, ...] = ("question",)
    train_columns: tuple[str, ...] = ("choices", "gold")
    test_columns = train_columns
    optional_columns: tuple[str, ...] = ("id", "letters")

    @property
    def wrapper(self) -> str:
        return self._prompt

    def question(self, fields: Fields) -> str:
        """`question` of an item, which `wrapper` is put around."""
        return fields["question"]

    def item(self, id_: str, record: Record, texts: dict[str, str]) -> Item:
        choices, gold = self._choices(record)
        given = self.to_translate(texts)
        return Item(id_, self.question(texts), choices, gold, fields=given, segments=list(texts.values()))

    def tested(self, directory: Path, language: Language) -> Iterator[tuple[str, Record, dict[str, str]]]:
        for id_, record, texts in super().tested(directory, language):
            self.refuse_empty_choice(record)
            yield id_, record, texts

    def refuse_empty_choice(self, record: Record) -> None:
        """Raises InputError where an answer of a test item is empty."""
        choices, _ = self._choices(record)
        if not all(choices):
            raise record.refused("choices", choices, "one of them is empty; mend it or name the column")

    def _choices(self, record: Record) -> tuple[list[str], int]:
        choices = record.texts("choices")
        if "letters" in record.columns:
            letters, right = record.texts("letters"), record.text("gold")
            if right not in letters or len(letters) != len(choices):
                raise record.refused("gold", right, f"it is one of {', '.join(letters)}; mend it or name the column")
            return choices, letters.index(right)
        gold = record.number("gold")
        if gold is None or not 0 <= gold < len(choices):
            raise record.refused("gold", gold, f"it is 0 to {len(choices) - 1}; mend it or name the column")
        return choices, gold


class ReadingComprehension(MultipleChoice):
    """A question on a passage with four answers in columns of their own. As Belebele.

    Columns: `passage`, `question`, `choice1` to `choice4` and `gold`, the right one's number from 1.
    """

    translatable = False
    texts = ("passage", "question")
    choice_columns = ("choice1", "choice2", "choice3", "choice4")
    train_columns = test_columns = (*choice_columns, "gold")
    optional_columns = ("id",)

    @property
    def wrapper(self) -> str:
        return "{question}"  # the question of an item is the whole prompt

    @property
    def description(self) -> Mapping[str, Any]:
        return {**super().description, "prompt": self._prompt}

    def question(self, fields: Fields) -> str:
        return self.ask(fields)

    def refuse_empty_choice(self, record: Record) -> None:
        for name in self.choice_columns:
            if not record.text(name):
                raise record.refused(name, "", "a test item needs all its answers; mend it or name the column")

    def _choices(self, record: Record) -> tuple[list[str], int]:
        gold = record.number("gold")
        if gold is None or not 1 <= gold <= len(self.choice_columns):
            raise record.refused("gold", gold, f"it is 1 to {len(self.choice_columns)}; mend it or name the column")
        return [record.text(name) for name in self.choice_columns], gold - 1


class Classification(LabelledChoice):
    """One text or more with a label, of which the word is learnt and ranked. As XNLI.

    Columns: the texts, by any names, and `label`, its number from 0; -1 is a row without a label. Where the description
    of a file has `labels`, they are its words instead.
    """

    translatable = False
    train_columns = test_columns = ("label",)

    @property
    def wrapper(self) -> str:
        return "{question}"  # the question of an item is the whole prompt

    @property
    def description(self) -> Mapping[str, Any]:
        return {**super().description, "prompt": self._prompt}

    def check_labels(self, key: str) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels) or not all(map(str.strip, self.labels)):
            raise InputError(f"{key}=[{','.join(self.labels)}]: give two words or more, all different")
        if ANSWER in self.translated:
            raise InputError(f"task.{self.name}.translated has answer, but the labels stay as they are; leave it out")

    def item(self, id_: str, record: Record, texts: dict[str, str]) -> Item | None:
        gold, given = self._label(record), self.to_translate(texts)
        if gold is None:
            return None
        return Item(id_, self.ask(texts), self.labels, gold, fields=given, segments=list(texts.values()))

    def _label(self, record: Record) -> int | None:
        label = record.label()
        if label is None or label == -1:
            return None
        if not 0 <= label < len(self.labels):
            raise record.refused("label", label, f"it is 0 to {len(self.labels) - 1} or -1; mend the row or name it")
        return label


class LabelledGeneration(LabelledTask, GenerativeTask):
    """The prompt is put into the backbone's template and answered freely."""

    plain = False
    file_input = "file"

    @property
    def description(self) -> Mapping[str, Any]:
        return {**super().description, "prompt": self._prompt}

    def item(self, id_: str, record: Record, texts: dict[str, str]) -> Item:
        return Item(id_, self.ask(texts), references=self.references(record), fields=self.to_translate(texts))

    @abstractmethod
    def references(self, record: Record) -> list[str]:
        """The right answers to a test item.

        Raises:
            InputError: there is none.
        """


class ExtractiveQA(LabelledGeneration):
    """A question on a text, with words of it as the answer. As XQuAD.

    Columns: `context`, `question`, `answer`, in a test a text or a list of texts of which each is right, and in the
    training data `start`, the character of the context at which the answer begins. There a marker stands in place of
    the answer (see `sdx.text.answer_spans`).
    """

    translatable = False
    texts = ("context", "question")
    train_columns = (ANSWER, "start")
    test_columns = (ANSWER,)
    metrics = ("F1", "exact match")
    normalised = True
    reasons: ClassVar[Mapping[str, str]] = {"context": "answer_span"}

    @property
    def parts(self) -> tuple[tuple[str, ...], ...]:
        groups = (("context", ANSWER), ("question",))
        kept = (tuple(name for name in group if name in self.translated) for group in groups)
        return tuple(filter(None, kept))

    def prompt(self, fields: Fields) -> str:
        return self.ask({**fields, "context": unmark(fields["context"], fields[ANSWER])})

    def asked(self, fields: Fields) -> tuple[str, ...]:
        context = unmark(fields["context"], fields[ANSWER]) if ANSWER in fields else fields["context"]
        return context, fields["question"]

    def references(self, record: Record) -> list[str]:
        if not (answers := record.text_or_texts(ANSWER)):
            raise record.refused(ANSWER, "", "a test item needs its answer; mend it or name the column")
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

    Columns: `question` and `answer`, in a test the number alone or a worked answer. The answer of a model is its last
    number after the last "####", or else its last number.
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
            raise record.refused(ANSWER, worked, "it holds no number; mend it or name the column")
        return [number]

    def example(self, record: Record) -> dict[str, str] | str:
        question, worked = record.text("question"), CALCULATOR.sub("", record.text(ANSWER))
        steps, heading, last = worked.rpartition(HEADING)
        if heading and (number := final_number(last)):
            worked = f"{steps}{HEADING} {number}"
        return {"question": question, ANSWER: worked.strip()} if question and final_number(worked) else "dropped"


def _asked(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(row["segments"][: len(row["segments"]) - row["choices"]])
