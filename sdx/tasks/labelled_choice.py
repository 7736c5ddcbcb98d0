"""What multiple choice and classification with labelled data have in common: answers are ranked, or texts are read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from sdx import InputError
from sdx.languages import Language
from sdx.store.step import Step
from sdx.tasks.base import Kind, shuffled
from sdx.tasks.labelled import LabelledTask
from sdx.tasks.labelled_files import Record
from sdx.tasks.labelled_rows import digest, learnable, warn_of_absent
from sdx.tasks.reading import Labelled, ReadRow, ReadTask, Splits


class LabelledChoice(LabelledTask, ReadTask):
    """The texts of the answers are ranked after the prompt, as it stands; or a model with a head reads the texts."""

    kind = Kind.answers
    plain = True

    def source(self, language: Language) -> Step:
        return self.test.step(language)

    def origin(self, language: Language) -> str:
        return self.written_by(language)

    @abstractmethod
    def labelled(self, record: Record) -> Labelled | str:
        """A row to read, or under what it is counted where it cannot be used."""

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
        return Splits(cast(list[ReadRow], train), cast(list[ReadRow], validation[:validation_rows]), left_out)

    def read_items(self, source_dir: Path | None, language: Language) -> list[ReadRow]:
        assert source_dir
        items: list[ReadRow] = []
        for id_, record, fields in self.tested(source_dir, language):
            row = self.labelled(record)
            if row == "dropped":  # the texts are there
                self.refuse_empty_choice(record)
            if not isinstance(row, str):
                items.append({"id": id_, **row, "fields": self.to_translate(fields)})
        warn_of_absent(self.test.opened(language), self.labels, (item["label"] for item in items))
        return shuffled(items)

    def refuse_empty_choice(self, record: Record) -> None:
        """Raises InputError where an answer of a test item is empty."""


def _asked(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(row["segments"][: len(row["segments"]) - row["choices"]])
