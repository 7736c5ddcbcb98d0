"""Benchmarks that are read: classification and multiple choice with training data of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from logging import getLogger
from pathlib import Path
from typing import Any, TypedDict

from sdx.languages import Language
from sdx.store.files import write_rows
from sdx.store.step import PlainStep, Step, Workspace
from sdx.tasks.base import ChoiceTask, Identified

log = getLogger("sdx")

TRAINING_VERSION = 1


class Labelled(TypedDict):
    """What is read, and what is right."""

    segments: list[str]
    choices: int
    """How many of the last segments are answers to choose from; 0: classification."""
    label: int
    """Index of the right class or of the right answer, from 0."""


class ReadRow(Identified, Labelled):
    """A row of training data, or a test item; only that has `fields`."""


@dataclass(frozen=True)
class Splits:
    """Rows to learn from and rows to choose a model by, which have no texts in common."""

    train: Sequence[ReadRow]
    validation: Sequence[ReadRow]
    left_out: Mapping[str, int]
    """Reason -> training rows."""


class ReadTask(ChoiceTask):
    """A benchmark with items and labelled training data that a model with a head can read."""

    labels: tuple[str, ...]
    """The classes, from label 0 on; empty for multiple choice."""
    fields: tuple[str, ...]
    """Names of the texts that are read, and `answer`."""

    def shared(self, item: Mapping[str, Any]) -> str:
        if "segments" not in item:
            return super().shared(item)
        texts = item["segments"][: len(item["segments"]) - item["choices"]]
        return str(texts[0] if len(texts) > 1 else item["id"])

    @abstractmethod
    def segments(self, fields: Mapping[str, Any]) -> list[str]:
        """The texts in the order in which they are read, by name; for multiple choice `choices` is a list of them."""

    def choice_count(self, fields: Mapping[str, Any]) -> int:
        """How many of the last segments are answers to choose from; 0: classification."""
        return len(fields.get("choices", ()))

    @abstractmethod
    def split_inputs(self, source: Language) -> dict[str, Step]:
        """The steps that `splits` reads, by name.

        Raises:
            InputError: there are no training data in L; a file is not there.
        """

    @property
    @abstractmethod
    def split_description(self) -> Mapping[str, Any]:
        """What decides `splits` beside its inputs, as JSON; part of cache keys."""

    @abstractmethod
    def splits(self, directories: Mapping[str, Path], source: Language, validation_rows: int) -> Splits:
        """All training rows in L in their order, without what the test asks, and the first validation rows.

        Args:
            directories: the outputs of `split_inputs`.

        Raises:
            InputError: files that cannot be used.
        """

    @abstractmethod
    def read_items(self, source_dir: Path | None, language: Language) -> list[ReadRow]:
        """All test items in a language, shuffled once and for all.

        Args:
            source_dir: the output of `source`.
        """


def training_step(task: ReadTask, source: Language, rows: int, validation_rows: int) -> Step:
    """Publishes `train.jsonl` and `validation.jsonl`, rows as `ReadRow`, and counts what was left out.

    Args:
        source: L.
        rows: to train on; 0: all.
        validation_rows: at most, 1 or more; without a split for it they are held out from the training data.

    Raises:
        InputError: there are no training data in L.
    """
    assert validation_rows > 0
    return PlainStep(
        "training",
        partial(_training, task=task, source=source, rows=rows, validation_rows=validation_rows),
        config={
            "task": task.name,
            "language": source.flores,
            "rows": rows,
            "validation_rows": validation_rows,
            "fields": list(task.fields),
            "labels": list(task.labels),
            **task.split_description,
        },
        inputs=task.split_inputs(source),
        version=TRAINING_VERSION,
    )


def _training(workspace: Workspace, task: ReadTask, source: Language, rows: int, validation_rows: int) -> None:
    splits = task.splits(workspace.inputs, source, validation_rows)
    train = splits.train[: rows or None]
    for name, there, asked in (
        ("scale.corpus_rows", len(train), rows),
        ("method.validation_rows", len(splits.validation), validation_rows),
    ):
        if there < asked:
            log.warning("%-12s task=%s has %d, fewer than %s=%d", "training", task.name, there, name, asked)
    write_rows(workspace.dir / "train.jsonl", train)
    write_rows(workspace.dir / "validation.jsonl", splits.validation)
    workspace.counts.update(train=len(train), validation=len(splits.validation), **splits.left_out)
