"""What multiple choice and classification with labelled data have in common: answers are ranked, or texts are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.languages import Language
from sdx.store.step import Step
from sdx.tasks.base import Kind
from sdx.tasks.items import read_row
from sdx.tasks.labelled import ANSWER, LabelledTask
from sdx.tasks.labelled_files import Record
from sdx.tasks.labelled_rows import digest, learnable, warn_of_absent
from sdx.tasks.reading import ReadTask, Splits


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


def _asked(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(row["segments"][: len(row["segments"]) - row["choices"]])
