"""Benchmarks answered freely and compared with references: translation, summaries, answers to questions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path

from sdx import InputError
from sdx.languages import Language
from sdx.store.files import write_rows
from sdx.store.step import PlainStep, Step, Workspace
from sdx.tasks.base import Kind, Pairable, Task
from sdx.tasks.normalisation import Normalisation

READ_VERSION = 2


class Row(Pairable):
    """A prompt with the answers that are right."""

    id: str
    prompt: str
    references: list[str]


class GenerativeTask(Task):
    """A benchmark of prompts with references."""

    kind = Kind.free
    metrics: tuple[str, ...]
    """Some of chrF++, ROUGE-L, F1, exact match and accuracy, see `sdx.evaluation.scores`."""
    normalisation = Normalisation.unicode
    """What F1 and exact match compare."""

    def __init__(self, shots: int) -> None:
        super().__init__(shots)
        if shots:
            raise InputError(f"task.{self.name}.shots={shots}: {self.name} is asked without examples; write 0")

    def needs_translation(self, language: Language, source: Language) -> bool:
        return False

    def pairs(self, source: Language, language: Language) -> list[tuple[Language, Language]]:
        """(language of the prompt's text, language of the answer) of each suite that a language of the cell has.

        Args:
            source: the cell's L.
        """
        return [(language, language)]

    def ask(self, fields: Mapping[str, str]) -> str:
        """The prompt around the `fields` of a row, where a translator has to render them."""
        raise NotImplementedError

    def answer(self, completion: str) -> str:
        """What of a completion is compared with the references."""
        return answer_of(completion)

    @abstractmethod
    def origin(self, asked: Language, answered: Language) -> str:
        """Who wrote the texts: `original` or `human-translated`."""

    def opened(self, language: Language) -> str:
        """As messages name the file of a language."""
        return f"the file of {language.name}"

    @abstractmethod
    def inputs(self, asked: Language, answered: Language) -> dict[str, Step]:
        """The steps whose outputs `read` needs, by name.

        Raises:
            InputError: a file is not there.
        """

    @abstractmethod
    def read(self, directories: Mapping[str, Path], asked: Language, answered: Language) -> list[Row]:
        """All rows, from the outputs of `inputs`.

        Raises:
            InputError: a file is not in the benchmark's format.
        """


def answer_of(completion: str) -> str:
    """The first line with a text; nothing where there is none."""
    return next((line.strip() for line in completion.splitlines() if line.strip()), "")


def items_step(task: GenerativeTask, asked: Language, answered: Language, limit: int) -> Step:
    """Publishes the first `limit` rows, all for 0, in the order of a hash of their ids."""
    return PlainStep(
        "items",
        partial(_read, task=task, asked=asked, answered=answered, limit=limit),
        config={
            "task": task.name,
            "asked": asked.flores,
            "answered": answered.flores,
            "limit": limit,
            **task.description,
        },
        inputs=task.inputs(asked, answered),
        version=READ_VERSION,
    )


def _read(workspace: Workspace, task: GenerativeTask, asked: Language, answered: Language, limit: int) -> None:
    rows = task.read(workspace.inputs, asked, answered)
    if not rows:
        raise InputError(f"task={task.name}: {task.opened(asked)} holds nothing to ask; give the benchmark's own")
    if len({row["id"] for row in rows}) < len(rows):
        raise InputError(f"task={task.name}: {task.opened(asked)} has an id twice; give the benchmark's own")
    rows.sort(key=lambda row: sha256(row["id"].encode()).digest())
    rows = rows[: limit or None]
    # `texts` is what a translator has to translate
    texts = [{"texts": list(row["fields"].values())} if "fields" in row else {} for row in rows]
    write_rows(workspace.dir / "rows.jsonl", [{**row, **more} for row, more in zip(rows, texts, strict=True)])
    workspace.counts.update(items=len(rows))
