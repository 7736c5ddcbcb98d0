"""Labelled training data of tasks, as files: for a model that writes or ranks, and for one with a head that reads."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from logging import getLogger
from pathlib import Path
from typing import Any

from sdx.languages import Language
from sdx.store.estimate import Estimate, Plan, Rows
from sdx.store.files import write_rows
from sdx.store.step import Step, Workspace
from sdx.tasks.base import ChoiceTask, Task
from sdx.tasks.items import Row
from sdx.tasks.sizes import LABELLED, UNKNOWN_EXAMPLES
from sdx.text.lengths import INSTRUCTION_TOKENS

log = getLogger("sdx")

Digests = dict[str, set[bytes]]
"""Reason -> `digest` of the texts that are left out for that reason."""

Splits = tuple[Sequence[Row], Sequence[Row], Mapping[str, int]]
"""Rows to train on and rows to choose a model by, without texts in common; reason -> training rows left out."""


class ReadTask(ChoiceTask):
    """A benchmark with items and labelled training data that a model with a head can read."""

    @abstractmethod
    def split_inputs(self, source: Language) -> dict[str, Step]:
        """The steps that `splits` reads, by name. Raises InputError if a file or training data in L are not there."""

    @property
    def split_description(self) -> Mapping[str, Any]:
        """What decides `splits` beside its inputs, as JSON; part of cache keys."""
        return {}

    @abstractmethod
    def splits(self, directories: Mapping[str, Path], source: Language, validation_rows: int) -> Splits:
        """All training rows in L without those of the test, and the first validation rows, each as
        `sdx.tasks.items.read_row` with its `id`, from the outputs of `split_inputs`.

        Raises:
            InputError: files that cannot be used.
        """


@dataclass(frozen=True, eq=False)
class Training(Step):
    """Publishes labelled examples as `train.jsonl` and `validation.jsonl`, and counts what was left out."""

    task: Task
    source: Language
    rows: int
    """To train on; 0: all."""
    files: Mapping[str, Step]
    validation_rows: int = 0
    """At most; if the task has no validation split, they are held out from the training data."""

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
        train, validation, left_out = self.splits(work.inputs)
        files = [("train", "scale.corpus_rows", self.rows, train[: self.rows or None])]
        if self.validation_rows:
            files.append(("validation", "method.validation_rows", self.validation_rows, validation))
        for name, option, wanted, rows in files:
            if len(rows) < wanted:
                log.warning("%-12s task=%s has %d, fewer than %s=%d", self.name, self.about, len(rows), option, wanted)
            write_rows(work.dir / f"{name}.jsonl", rows)
            work.counts[name] = len(rows)
        work.counts.update(left_out)


@dataclass(frozen=True, eq=False)
class ReadTraining(Training):
    """Examples for a model with a head."""

    task: ReadTask

    @property
    def description(self) -> Mapping[str, Any]:
        return {"validation_rows": self.validation_rows, **self.task.split_description}

    def splits(self, directories: Mapping[str, Path]) -> Splits:
        return self.task.splits(directories, self.source, self.validation_rows)


def training_step(task: ReadTask, source: Language, rows: int, validation_rows: int) -> Training:
    """Examples for a model with a head. Raises InputError if there are no training data in L."""
    assert validation_rows > 0
    return ReadTraining(task, source, rows, task.split_inputs(source), validation_rows)


def distinct(
    rows: Iterable[Row], texts: Callable[[Row], Iterable[str]], excluded: Digests
) -> tuple[list[Row], Counter[str]]:
    """The rows whose texts are not excluded and did not occur before, and the number of the others by reason."""
    left_out = Counter(dict.fromkeys((*excluded, "repeated"), 0))
    known = {**excluded, "repeated": set()}
    kept: list[Row] = []
    for row in rows:
        key = digest(texts(row))
        if reason := next((reason for reason, keys in known.items() if key in keys), None):
            left_out[reason] += 1
        else:
            known["repeated"].add(key)
            kept.append(row)
    return kept, left_out


def digest(texts: Iterable[str]) -> bytes:
    """A hash of texts regardless of case and spaces: half a million of them take little memory."""
    return sha256("\n".join(" ".join(text.casefold().split()) for text in texts).encode()).digest()


def warn_of_unused_labels(where: str, labels: Sequence[str], used: Iterable[int]) -> None:
    """Logs which labels no row of a file has."""
    numbers = set(used)
    if unused := [label for number, label in enumerate(labels) if number not in numbers]:
        log.warning("%-12s %s has no row with the label %s", "labels", where, " or ".join(unused))
