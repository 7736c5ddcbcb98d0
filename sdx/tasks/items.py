"""The items of a task in a language, as files: one form for each mode of answering."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sdx import InputError
from sdx.languages import Language
from sdx.store.estimate import ROWS, Estimate, Plan, Rows
from sdx.store.files import read_rows, write_rows
from sdx.store.step import Step, Workspace
from sdx.tasks.base import Item, Mode, Task, shuffled
from sdx.tasks.sizes import items_of

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Items(Step):
    """Publishes the first items, in the order of a hash of their ids, or translations of `items`."""

    task: Task
    asked: Language
    answered: Language
    limit: int = 0
    """Items at most; 0: all."""
    files: Mapping[str, Step] = field(default_factory=dict)
    items: Items | None = None
    """The items that are translated."""
    texts: Step | None = None
    """Publishes the translations of the field `to_translate` of `items`."""

    name = "items"
    reads = read_in_plan = True
    text_fields: ClassVar[tuple[str, ...]] = ("texts",)
    to_translate = "texts"

    @property
    def config(self) -> Mapping[str, Any]:
        if self.items:
            return {}
        task = {"task": self.task.name, "language": self.asked.flores, "limit": self.limit}
        return {**task, **self.task.description}

    @property
    def about(self) -> str:
        return self.task.name

    @property
    def language(self) -> Language:
        return self.answered

    def estimate(self, plan: Plan) -> Estimate:
        if self.items:
            rows, tokens = plan.rows(self.items).count, plan.rows(self.texts).of("text")
        else:
            rows, english = items_of(self.task.name, self.answered)
            rows, tokens = min(rows, self.limit or rows), plan.tokens(english, self.answered)
        return Estimate(rows, rows * tokens, {ROWS: Rows(rows, {self.to_translate: tokens})})

    def run(self, work: Workspace) -> None:
        if self.items:
            texts = {row["id"]: row["text"] for row in read_rows(work.inputs["texts"] / ROWS)}
            rows = [self.translation(row, texts[row["id"]]) for row in read_rows(work.inputs["items"] / ROWS)]
        else:
            items = shuffled(self.task.read(work.inputs, self.asked, self.answered))
            if not items:
                where = f"task={self.task.name}: {self.task.where(self.asked)}"
                raise InputError(f"{where} holds nothing to ask; give the benchmark's own file")
            rows = [self.row(item) for item in items[: self.limit or None]]
        write_rows(work.dir / ROWS, rows)
        work.counts.update(items=len(rows))

    @abstractmethod
    def row(self, item: Item) -> Row:
        """An item in the form of its mode."""

    @abstractmethod
    def translation(self, row: Row, texts: Sequence[str]) -> Row:
        """A row with the translations of its field `to_translate`."""


@dataclass(frozen=True, eq=False)
class RankItems(Items):
    """Rows are `{"id", "question", "choices", "gold", "fields", "texts"}`."""

    def row(self, item: Item) -> Row:
        row = {"id": item.id, "question": item.prompt, "choices": item.choices, "gold": item.gold}
        return {**row, **_fields(item), "texts": [item.prompt, *item.choices]}

    def translation(self, row: Row, texts: Sequence[str]) -> Row:
        question, *choices = texts
        fields = {"fields": dict.fromkeys(row["fields"], question)} if "fields" in row else {}
        return {"id": row["id"], "question": question, "choices": choices, "gold": row["gold"], **fields}


@dataclass(frozen=True, eq=False)
class GenerateItems(Items):
    """Rows are `{"id", "prompt", "references", "fields", "texts"}`."""

    version = 2

    @property
    def config(self) -> Mapping[str, Any]:
        if self.items:
            return self.task.description
        languages = {"asked": self.asked.flores, "answered": self.answered.flores}
        return {"task": self.task.name, **languages, "limit": self.limit, **self.task.description}

    def row(self, item: Item) -> Row:
        texts = {} if item.fields is None else {"texts": list(item.fields.values())}
        return {"id": item.id, "prompt": item.prompt, "references": item.references, **_fields(item), **texts}

    def translation(self, row: Row, texts: Sequence[str]) -> Row:
        fields = dict(zip(row["fields"], texts, strict=True))
        return {"id": row["id"], "prompt": self.task.prompt(fields), "references": row["references"], "fields": fields}


@dataclass(frozen=True, eq=False)
class ReadItems(Items):
    """Rows are `{"id", "segments", "choices", "label", "fields"}`, see `read_row`."""

    name = "read"
    text_fields = ()
    to_translate = "segments"

    @property
    def about(self) -> str:
        return f"{self.task.name}, translated" if self.items else self.task.name

    @property
    def purpose_language(self) -> Language:
        return self.items.answered if self.items else self.answered

    def row(self, item: Item) -> Row:
        return {"id": item.id, **read_row(item, bool(self.task.labels)), **_fields(item)}

    def translation(self, row: Row, texts: Sequence[str]) -> Row:
        return {"id": row["id"], "segments": texts, "choices": row["choices"], "label": row["label"]}


def items_step(
    task: Task, mode: Mode, language: Language, limit: int, answer_language: Language | None = None
) -> Items:
    """The items of a task that needs no translation. Raises InputError if a file is not there."""
    forms: Mapping[Mode, type[Items]] = {Mode.rank: RankItems, Mode.generate: GenerateItems, Mode.read: ReadItems}
    languages = language, answer_language or language
    return forms[mode](task, *languages, limit, task.inputs(*languages))


def read_row(item: Item, classifies: bool) -> Row:
    """What a model with a head reads, and the right answer.

    The last `choices` of the `segments` are answers to choose from (0: classification); `label` is the index of the
    right class or of the right choice, from 0.
    """
    choices = () if classifies else item.choices
    return {"segments": [*item.segments, *choices], "choices": len(choices), "label": item.gold}


def _fields(item: Item) -> Row:
    return {} if item.fields is None else {"fields": item.fields}
