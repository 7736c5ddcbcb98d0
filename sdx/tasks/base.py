"""A task: a benchmark, its languages, its items, and how a model answers them."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.languages import ENGLISH, Language
from sdx.offline.assets import AssetStep
from sdx.store.step import Step
from sdx.tasks.normalisation import Normalisation


class Mode(str, Enum):
    """How the items of a task are answered."""

    rank = "rank"
    """A model ranks the choices of a question by their log-probability."""
    generate = "generate"
    """A model writes an answer, which is compared with references."""
    read = "read"
    """A model with a head reads the texts and names a class or one of the choices."""


@dataclass(frozen=True)
class Item:
    """One question of a task."""

    id: str
    prompt: str
    choices: Sequence[str] = ()
    gold: int = 0
    """Index of the right choice, from 0."""
    references: Sequence[str] = ()
    """The right answers, if the answer is written."""
    fields: Mapping[str, str] | None = None
    """Texts in the language of the item, by name, if several languages have the same items: the reference of a machine
    translation."""
    segments: Sequence[str] = ()
    """The texts that a model with a head reads, in order, without the choices."""


class Task(ABC):
    """One benchmark, asked with `shots` solved examples before each question."""

    name: str
    mode: Mode
    metrics: tuple[str, ...] = ()
    """Of written answers: chrF++, ROUGE-L, F1, exact match and accuracy, see `sdx.evaluation.scores`."""
    asset: str | None = None
    """The packaged asset with the items."""
    labels: tuple[str, ...] = ()
    """The classes, from label 0 on, if the task is classification."""
    fields: tuple[str, ...] = ()
    """Names of the texts in labelled training data, and `answer`."""

    def __init__(self, shots: int) -> None:
        if shots and self.mode is Mode.generate:
            raise InputError(f"task.{self.name}.shots={shots}: {self.name} is asked without examples; write 0")
        self.shots = shots

    @property
    def description(self) -> Mapping[str, Any]:
        """What decides the items beside the task's name and files, as JSON; part of cache keys."""
        return {}

    def cluster(self, row: Mapping[str, Any]) -> str:
        """The text that several rows of the items share, such as a passage: the first of several texts."""
        texts = question_texts(row) if "segments" in row else [*row.get("fields", {}).values()]
        return str(texts[0] if len(texts) > 1 else row["id"])

    def why_unsupported(self, language: Language) -> str | None:
        """Why the task cannot be run in a language, whatever the translator, as a sentence."""
        return None

    def original(self, source: Language) -> Language:
        """The language to translate from, if `needs_translation`."""
        return source

    def needs_translation(self, language: Language, source: Language) -> bool:
        """Whether a translator has to bring the items from `original(source)` into `language`."""
        return False

    def pairs(self, source: Language, language: Language) -> list[tuple[Language, Language]]:
        """(language of the items, language of the answers) of each suite in a language of a run from L, `source`."""
        return [(language, language)]

    def prompt(self, fields: Mapping[str, str]) -> str:
        """The prompt around the `fields` of an item, if a translator may have to render them."""
        raise NotImplementedError

    def answer(self, completion: str) -> str:
        """The part of a completion that is compared with the references."""
        return completion

    def where(self, language: Language) -> str:
        """The file of a language, as messages name it."""
        return f"the file of {language.name}"

    def origin(self, language: Language) -> str:
        """Who wrote the items (of a translation benchmark: the references), as `original` or `human-translated`."""
        return "original" if language.flores == ENGLISH else "human-translated"

    def inputs(self, language: Language, answer_language: Language) -> dict[str, Step]:
        """The steps whose outputs `read` needs, by name. Raises InputError if a file is not there."""
        return {"asset": AssetStep(self.asset)} if self.asset else {}

    def read(self, directories: Mapping[str, Path], language: Language, answer_language: Language) -> list[Item]:
        """All items in a language that needs no translation, from the outputs of `inputs`.

        Raises:
            InputError: a file is not in the benchmark's format.
        """
        raise NotImplementedError


class ChoiceTask(Task):
    """A multiple-choice benchmark."""

    mode = Mode.rank
    prompt_template: str | None = None
    """A format string around the `{question}` of an item, after which the texts of the choices are ranked; if None, the
    letters A to D are ranked after the question and the choices."""


class GenerativeTask(Task):
    """A benchmark of prompts with references."""

    mode = Mode.generate
    normalisation = Normalisation.unicode
    """How F1 and exact match make tokens."""

    def answer(self, completion: str) -> str:
        """The first line that is not blank, without spaces around it; empty if all are blank."""
        return next((line.strip() for line in completion.splitlines() if line.strip()), "")


class Instructions(Task):
    """Held-out instructions of the corpus, answered freely; the run provides them and has them translated."""

    name = "instructions"
    mode = Mode.generate

    def needs_translation(self, language: Language, source: Language) -> bool:
        return language != source


def shuffled(items: Iterable[Item]) -> list[Item]:
    """Items in the order of a hash of their ids, so that the first n are a sample of all."""
    return sorted(items, key=lambda item: sample_key(item.id))


def sample_key(id_: str) -> bytes:
    return sha256(id_.encode()).digest()


def question_texts(row: Mapping[str, Any]) -> list[str]:
    """The `segments` of a row to read without the choices."""
    segments: list[str] = row["segments"]
    return segments[: len(segments) - row["choices"]]
