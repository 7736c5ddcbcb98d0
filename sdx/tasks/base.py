"""A task: what is asked, in which languages, and who answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.languages import Language
from sdx.offline.assets import AssetStep
from sdx.store.step import Step
from sdx.tasks.normalisation import Normalisation


class Who(str, Enum):
    """Who answers the items of a task."""

    rank = "rank"
    """A model ranks the answers to a question by their log-probability."""
    generate = "generate"
    """A model writes an answer, which is compared with references."""
    read = "read"
    """A model with a head reads the texts and names a class or one of the answers."""


class Kind(str, Enum):
    """What is ranked."""

    answers = "answers"
    """The texts of the answers, after the question."""
    letters = "letters"
    """The letters A to D, after the question and the answers."""


@dataclass(frozen=True)
class Item:
    """One question of a task."""

    id: str
    prompt: str
    choices: Sequence[str] = ()
    gold: int = 0
    """Index of the right choice, from 0."""
    references: Sequence[str] = ()
    """The right answers, where the answer is written."""
    fields: Mapping[str, str] | None = None
    """Texts in the language of the item, by name, where several languages have the same items: a translation can be
    compared with that of a person."""
    segments: Sequence[str] = ()
    """The texts that a model with a head reads, in order, without the choices."""


class Task(ABC):
    """One benchmark.

    Args:
        shots: solved examples before each question.
    """

    name: str
    who: Who
    metrics: tuple[str, ...] = ()
    """Of written answers: chrF++, ROUGE-L, F1, exact match and accuracy, see `sdx.evaluation.scores`."""
    asset: str | None = None
    """The packaged asset that its items are in."""

    def __init__(self, shots: int) -> None:
        if shots and self.who is Who.generate:
            raise InputError(f"task.{self.name}.shots={shots}: {self.name} is asked without examples; write 0")
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
        if "segments" in item:
            texts = item["segments"][: len(item["segments"]) - item["choices"]]
        return str(texts[0] if len(texts) > 1 else item["id"])

    def why_unsupported(self, language: Language) -> str | None:
        """Why it cannot be run in a language, whatever the translator, as a sentence; none if it can."""
        return None

    def original(self, source: Language) -> Language:
        """The language to translate from, where `needs_translation`."""
        return source

    def needs_translation(self, language: Language, source: Language) -> bool:
        """Whether a translator has to bring it from `original(source)` into `language`."""
        return False

    def pairs(self, source: Language, language: Language) -> list[tuple[Language, Language]]:
        """(language of the item's text, language of the answer) of each suite that a language of the run has.

        Args:
            source: the run's L.
        """
        return [(language, language)]

    def ask(self, fields: Mapping[str, str]) -> str:
        """The prompt around the `fields` of an item, where a translator has to render them."""
        raise NotImplementedError

    def answer(self, completion: str) -> str:
        """What of a completion is compared with the references."""
        return completion

    def opened(self, language: Language) -> str:
        """As messages name the file of a language."""
        return f"the file of {language.name}"

    def origin(self, asked: Language, answered: Language) -> str:
        """Who wrote the texts, as `original` or `human-translated`."""
        return "original"

    def inputs(self, asked: Language, answered: Language) -> dict[str, Step]:
        """The steps whose outputs `read` needs, by name.

        Raises:
            InputError: a file is not there.
        """
        return {"asset": AssetStep(self.asset)} if self.asset else {}

    @abstractmethod
    def read(self, directories: Mapping[str, Path], asked: Language, answered: Language) -> list[Item]:
        """All items in a language that needs no translation, from the outputs of `inputs`.

        Raises:
            InputError: a file is not in the benchmark's format.
        """


class ChoiceTask(Task):
    """A multiple-choice benchmark."""

    who = Who.rank
    kind: Kind

    @property
    def wrapper(self) -> str | None:
        """What the model reads, around the `{question}` of an item, where the kind is `answers`."""
        return None


class GenerativeTask(Task):
    """A benchmark of prompts with references."""

    who = Who.generate
    normalisation = Normalisation.unicode
    """What F1 and exact match compare."""

    def answer(self, completion: str) -> str:
        return answer_of(completion)


class Instructions(Task):
    """Held-out instructions of the corpus, answered freely; the run gives them and has them translated."""

    name = "instructions"
    who = Who.generate

    def needs_translation(self, language: Language, source: Language) -> bool:
        return language != source

    def read(self, directories: Mapping[str, Path], asked: Language, answered: Language) -> list[Item]:
        raise AssertionError("the corpus has them")


def answer_of(completion: str) -> str:
    """The first line with a text; nothing where there is none."""
    return next((line.strip() for line in completion.splitlines() if line.strip()), "")


def shuffled(items: Iterable[Item]) -> list[Item]:
    """Items in the order of a hash of their ids: the first n of them are a sample of all."""
    return sorted(items, key=lambda item: sha256(item.id.encode()).digest())
