"""The benchmarks: where their items come from, in which languages, and how a model answers.

The order of the items is a fixed shuffle, so that the first n of them are a sample of all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from sdx import InputError
from sdx.languages import Language
from sdx.offline.assets import asset_step
from sdx.store.step import Step


class Kind(str, Enum):
    """How a model answers."""

    answers = "answers"
    """The texts of the answers are ranked by their log-probability after the question."""
    letters = "letters"
    """Question and answers A to D are read; the letters are ranked by their log-probability."""
    instructions = "instructions"
    """Free answers to held-out instructions."""
    free = "free"
    """Free answers, compared with a benchmark's references."""


class Pairable(TypedDict, total=False):
    """What a benchmark with the same items in several languages may say of one."""

    fields: dict[str, str]
    """Its texts in the language of the item, by name: a translation can be compared with that of a person."""


class Identified(Pairable):
    """An item of a benchmark."""

    id: str


AnyItem = TypeVar("AnyItem", bound=Identified)


class Item(Identified):
    """A multiple-choice question."""

    question: str
    choices: list[str]
    gold: int
    """Index of the right answer, from 0."""


class Task(ABC):
    """One benchmark.

    Args:
        shots: solved examples before each question.
    """

    name: str
    kind: Kind
    asset: str | None = None
    """The packaged asset that its items are in."""

    def __init__(self, shots: int) -> None:
        self.shots = shots

    @property
    def description(self) -> Mapping[str, Any]:
        """What decides its items beside its name and its files, as JSON; part of cache keys."""
        return {}

    def shared(self, item: Mapping[str, Any]) -> str:
        """What several items have in common, as a passage with several questions: the first of several texts.

        Args:
            item: a row of the suite's items.
        """
        texts = [*item.get("fields", {}).values()]
        return texts[0] if len(texts) > 1 else str(item["id"])

    def obstacle(self, language: Language) -> str | None:
        """Why it cannot be run in a language, whatever the translator, as a sentence; none if it can."""
        return None

    def original(self, source: Language) -> Language:
        """The language to translate from, where `needs_translation`."""
        return source

    @abstractmethod
    def needs_translation(self, language: Language, source: Language) -> bool:
        """Whether a translator has to bring it from `original(source)` into `language`."""


class ChoiceTask(Task):
    """A multiple-choice benchmark with items of its own."""

    @property
    def wrapper(self) -> str | None:
        """What the model reads, around the `{question}` of an item, where the kind is `answers`."""
        return None

    def source(self, language: Language) -> Step | None:
        """The step whose output `read` needs for a language.

        Raises:
            InputError: a file is not there.
        """
        return asset_step(self.asset) if self.asset else None

    def origin(self, language: Language) -> str:
        """Who wrote the items that `read` gives: `original` or `human-translated`."""
        return "original"

    @abstractmethod
    def read(self, source_dir: Path | None, language: Language) -> list[Item]:
        """All items in a language that needs no translation.

        Args:
            source_dir: the output of `source`.
        """


class Instructions(Task):
    """Held-out instructions of the corpus, answered freely; the run gives them and has them translated."""

    name = "instructions"
    kind = Kind.instructions

    def __init__(self, shots: int) -> None:
        super().__init__(shots)
        if shots:
            raise InputError(f"task.{self.name}.shots={shots}: instructions are asked without examples; write 0")

    def needs_translation(self, language: Language, source: Language) -> bool:
        return language != source


def shuffled(items: Iterable[AnyItem]) -> list[AnyItem]:
    """Items in the order of a hash of their ids."""
    return sorted(items, key=lambda item: sha256(item["id"].encode()).digest())
