"""The items of a task in a language, as files: one form for each of those who answer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sdx import InputError
from sdx.languages import Language
from sdx.store.estimate import Estimate, Plan, Rows
from sdx.store.files import read_rows, write_rows
from sdx.store.step import Step, Workspace
from sdx.tasks.base import Item, Task, Who, shuffled
from sdx.tasks.sizes import items_of

Row = dict[str, Any]
ROWS = "rows.jsonl"


@dataclass(frozen=True, eq=False)
class Items(Step):
    """Publishes the first `limit` items, all for 0, in the order of a hash of their ids, or translations of `items`."""

    task: Task
    asked: Language
    answered: Language
    limit: int = 0
    files: Mapping[str, Step] = field(default_factory=dict)
    items: Items | None = None
    """Of which these are translations."""
    texts: Step | None = None
    """Publishes the translations, of the field `to_translate` of `items`."""

    name = "items"
    reads = read_in_plan = True
    text_fields: ClassVar[tuple[str, ...]] = ("texts",)
    to_translate = "texts"

    @property
    def config(self) -> Mapping[str, Any]:
        if self.items:
            return {}
        return {"task": self.task.name, **self.codes(), "limit": self.limit, **self.task.description}

    def codes(self) -> dict[str, str]:
        return {"language": self.asked.flores}

    @property
    def about(self) -> str:
        return self.task.name

    @property
    def language(self) -> Language:
        return self.answered

    def translated(self, texts: Step, language: Language) -> Items:
        """The same items in a language.

        Args:
            texts: see the field.
        """
        return type(self)(self.task, language, language, items=self, texts=texts)

    def estimate(self, plan: Plan) -> Estimate:
        if self.items:
            rows, tokens = plan.rows(self.items).count, plan.rows(self.texts).of("text")
        else:
            rows, english = items_of(self.task.name, self.answered)
            rows, tokens = min(rows, self.limit or rows), plan.tokens(english, self.answered)
        return Estimate(rows, rows * tokens, {ROWS: Rows(rows, {self.to_translate: tokens})})

    def run(self, work: Workspace) -> None:
        rows = self._translations(work) if self.items else [self.row(item) for item in self._read(work)]
        write_rows(work.dir / ROWS, rows)
        work.counts.update(items=len(rows))

    def _read(self, work: Workspace) -> list[Item]:
        items = self.task.read(work.inputs, self.asked, self.answered)
        named = f"task={self.task.name}: {self.task.opened(self.asked)}"
        if not items:
            raise InputError(f"{named} holds nothing to ask; give the benchmark's own")
        if len({item.id for item in items}) < len(items):
            raise InputError(f"{named} has an id twice; give the benchmark's own")
        return shuffled(items)[: self.limit or None]

    def _translations(self, work: Workspace) -> list[Row]:
        texts = {row["id"]: row["text"] for row in read_rows(work.inputs["texts"] / ROWS)}
        return [self.translation(row, texts[row["id"]]) for row in read_rows(work.inputs["items"] / ROWS)]

    @abstractmethod
    def row(self, item: Item) -> Row:
        """An item as those who answer take it."""

    @abstractmethod
    def translation(self, row: Row, texts: Sequence[str]) -> Row:
        """A row with the translations of what is in its field `to_translate`."""


@dataclass(frozen=True, eq=False)
class RankItems(Items):
    """Rows are `{"id", "question", "choices", "gold", "fields", "texts"}`."""

    def row(self, item: Item) -> Row:
        asked = {"id": item.id, "question": item.prompt, "choices": item.choices, "gold": item.gold}
        return {**asked, **_fields(item), "texts": [item.prompt, *item.choices]}

    def translation(self, row: Row, texts: Sequence[str]) -> Row:
        question, *choices = texts
        asked = {"id": row["id"], "question": question, "choices": choices, "gold": row["gold"]}
        return {**asked, "fields": dict.fromkeys(row["fields"], question)} if "fields" in row else asked


@dataclass(frozen=True, eq=False)
class GenerateItems(Items):
    """Rows are `{"id", "prompt", "references", "fields", "texts"}`."""

    version = 2

    @property
    def config(self) -> Mapping[str, Any]:
        return self.task.description if self.items else super().config

    def codes(self) -> dict[str, str]:
        return {"asked": self.asked.flores, "answered": self.answered.flores}

    def row(self, item: Item) -> Row:
        texts = {} if item.fields is None else {"texts": list(item.fields.values())}
        return {"id": item.id, "prompt": item.prompt, "references": item.references, **_fields(item), **texts}

    def translation(self, row: Row, texts: Sequence[str]) -> Row:
        fields = dict(zip(row["fields"], texts, strict=True))
        return {"id": row["id"], "prompt": self.task.ask(fields), "references": row["references"], "fields": fields}


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
        return {"id": item.id, **read_row(item, bool(getattr(self.task, "labels", ()))), **_fields(item)}

    def translation(self, row: Row, texts: Sequence[str]) -> Row:
        return {"id": row["id"], "segments": texts, "choices": row["choices"], "label": row["label"]}


FORMS: Mapping[Who, type[Items]] = {Who.rank: RankItems, Who.generate: GenerateItems, Who.read: ReadItems}


def items_step(task: Task, who: Who, asked: Language, limit: int, answered: Language | None = None) -> Items:
    """The items of a task that needs no translation.

    Raises:
        InputError: a file is not there.
    """
    answered = answered or asked
    return FORMS[who](task, asked, answered, limit, task.inputs(asked, answered))


def read_row(item: Item, classifies: bool) -> Row:
    """What a model with a head reads, and what is right.

    `segments` are the texts in their order, of which the last `choices` are answers to choose from (0: classification);
    `label` is the index of the right class or of the right answer, from 0.
    """
    choices = () if classifies else item.choices
    return {"segments": [*item.segments, *choices], "choices": len(choices), "label": item.gold}


def _fields(item: Item) -> Row:
    return {} if item.fields is None else {"fields": item.fields}
