"""Labelled training data of tasks, as files: for a model that writes or ranks, and for one with a head that reads."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

from sdx.languages import Language
from sdx.store.estimate import Estimate, Plan, Rows
from sdx.store.files import write_rows
from sdx.store.step import Step, Workspace
from sdx.tasks.base import ChoiceTask, Task
from sdx.tasks.sizes import LABELLED, UNKNOWN_EXAMPLES
from sdx.text.lengths import INSTRUCTION_TOKENS

log = getLogger("sdx")


@dataclass(frozen=True)
class Splits:
    """Rows to learn from and rows to choose a model by, which have no texts in common."""

    train: Sequence[Mapping[str, Any]]
    validation: Sequence[Mapping[str, Any]]
    left_out: Mapping[str, int]
    """Reason -> training rows."""


class TrainedTask(Task):
    """A task with labelled training data."""

    labels: tuple[str, ...]
    """The classes, from label 0 on; empty where nothing is classified."""
    fields: tuple[str, ...]
    """Names of the texts, and `answer`."""


class ReadTask(ChoiceTask, TrainedTask):
    """A benchmark with items and labelled training data that a model with a head can read."""

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
        """All training rows in L in their order, without what the test asks, and the first validation rows; each as
        `sdx.tasks.items.read_row` with its `id`.

        Args:
            directories: the outputs of `split_inputs`.

        Raises:
            InputError: files that cannot be used.
        """


@dataclass(frozen=True, eq=False)
class Training(Step):
    """Publishes labelled examples as `train.jsonl`, and counts what was left out."""

    task: TrainedTask
    source: Language
    rows: int
    """To train on; 0: all."""
    files: Mapping[str, Step]
    validation_rows: int = 0
    """At most; without a split for it they are held out from the training data."""

    name = "training"
    reads = read_in_plan = True
    text_fields = ()

    @property
    def about(self) -> str:
        return self.task.name

    @property
    def language(self) -> Language:
        return self.source

    @property
    def config(self) -> Mapping[str, Any]:
        task = {"task": self.task.name, "fields": list(self.task.fields), "labels": list(self.task.labels)}
        return {**task, "language": self.source.flores, "rows": self.rows, **self.description}

    @property
    @abstractmethod
    def description(self) -> Mapping[str, Any]:
        """What else decides the rows."""

    @abstractmethod
    def splits(self, directories: Mapping[str, Path]) -> Splits:
        """All rows, from the outputs of `files`."""

    def estimate(self, plan: Plan) -> Estimate:
        """By the task's own data: other files are taken to be as large."""
        there, english = LABELLED.get(self.task.name, (UNKNOWN_EXAMPLES, {}))
        means = {name: english.get(name, INSTRUCTION_TOKENS) for name in self.task.fields}
        rows = Rows(min(there, self.rows or there), {n: plan.tokens(mean, self.source) for n, mean in means.items()})
        files = {"train.jsonl": rows}
        if self.validation_rows:
            files["validation.jsonl"] = Rows(self.validation_rows, rows.tokens)
        return Estimate(rows.count, rows.total, files, bound=True)

    def run(self, work: Workspace) -> None:
        found = self.splits(work.inputs)
        train, validation = found.train[: self.rows or None], found.validation
        asked = {"scale.corpus_rows": (self.rows, train), "method.validation_rows": (self.validation_rows, validation)}
        for option, (count, rows) in asked.items():
            if len(rows) < count:
                log.warning("%-12s task=%s has %d, fewer than %s=%d", self.name, self.about, len(rows), option, count)
        write_rows(work.dir / "train.jsonl", train)
        work.counts.update(train=len(train), **found.left_out)
        if self.validation_rows:
            write_rows(work.dir / "validation.jsonl", validation)
            work.counts.update(validation=len(validation))


@dataclass(frozen=True, eq=False)
class ReadTraining(Training):
    """Examples for a model with a head, and `validation.jsonl`."""

    task: ReadTask

    @property
    def description(self) -> Mapping[str, Any]:
        return {"validation_rows": self.validation_rows, **self.task.split_description}

    def splits(self, directories: Mapping[str, Path]) -> Splits:
        return self.task.splits(directories, self.source, self.validation_rows)


def training_step(task: ReadTask, source: Language, rows: int, validation_rows: int) -> Training:
    """Examples to read.

    Raises:
        InputError: there are no training data in L.
    """
    assert validation_rows > 0
    return ReadTraining(task, source, rows, task.split_inputs(source), validation_rows)
