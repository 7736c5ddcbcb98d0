"""Benchmarks read in one forward pass by a model with a head: training rows, test items, suites.

A row is the texts to read in order, its segments: a premise and a hypothesis, or a passage, a question and its answers.
The head names a class, or chooses among the last segments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from logging import getLogger

from sdx import InputError
from sdx.config import Config
from sdx.languages import Language
from sdx.store.files import read_rows, write_rows
from sdx.store.step import PlainStep, Step, Workspace
from sdx.tasks.base import Task
from sdx.tasks.reading import ReadTask
from sdx.translation.base import Translator
from sdx.translation.step import Translate

log = getLogger("sdx")
READ_VERSION = 1
KEPT = ("choices", "label")
"""What of an item its translation keeps."""


def items_step(task: ReadTask, language: Language, limit: int) -> Step:
    """Publishes the first `limit` items, all for 0, as `rows.jsonl`, a `ReadRow` each."""
    source = task.source(language)
    return PlainStep(
        "read",
        partial(_read, task=task, language=language, limit=limit),
        config={"task": task.name, "language": language.flores, "limit": limit, **task.description},
        inputs={"asset": source} if source else {},
        version=READ_VERSION,
    )


def _read(workspace: Workspace, task: ReadTask, language: Language, limit: int) -> None:
    rows = task.read_items(workspace.inputs.get("asset"), language)[: limit or None]
    write_rows(workspace.dir / "rows.jsonl", rows)
    workspace.counts.update(items=len(rows))


def translated_items_step(items: Step, translator: Translator, language: Language, english: Language) -> Step:
    """Publishes the items of `items_step` in a language, each segment translated into English, for translate-test."""
    texts = Translate(
        items, "rows.jsonl", "segments", language, english, translator=translator, purpose=items.purpose_language
    )
    return PlainStep("read", _translated, inputs={"items": items, "texts": texts}, version=READ_VERSION)


def _translated(workspace: Workspace) -> None:
    texts = {row["id"]: row["text"] for row in read_rows(workspace.inputs["texts"] / "rows.jsonl")}
    items = read_rows(workspace.inputs["items"] / "rows.jsonl")
    rows = [{"id": item["id"], "segments": texts[item["id"]], **{key: item[key] for key in KEPT}} for item in items]
    write_rows(workspace.dir / "rows.jsonl", rows)
    workspace.counts.update(items=len(rows))


@dataclass(frozen=True)
class ReadingSuite:
    """One benchmark in one language; the method that trains the head makes the outcomes."""

    task: ReadTask
    language: Language
    origin: str
    """Who wrote the items: original, human-translated, or as given."""
    items: Step
    config: Config

    @property
    def needs(self) -> tuple[Step, ...]:
        """What scoring reads beside the outcomes."""
        return (self.items,)


def reading_suites(
    config: Config, tasks: Mapping[str, Task], source: Language, targets: Sequence[Language]
) -> tuple[list[ReadingSuite], list[str]]:
    """All suites of a cell, and a sentence for each benchmark and language that cannot be run.

    Items are what the benchmark itself has: they are not machine-translated.

    Raises:
        InputError: nothing is left to evaluate.
    """
    made: list[ReadingSuite] = []
    skipped: list[str] = []
    for name, task in tasks.items():
        if not isinstance(task, ReadTask):
            skipped.append(f"{name}: it is not classification or multiple choice with training data.")
            continue
        for language in (source, *targets):
            if reason := task.obstacle(language) or _absent(task, source, language):
                skipped.append(f"{name} in {language.name}: {reason}")
                continue
            items = items_step(task, language, config.scale.eval_items)
            made.append(ReadingSuite(task, language, task.origin(language), items, config))
    if not made:
        raise InputError(f"task={','.join(tasks) or '{}'}: nothing can be evaluated; {' '.join(skipped)}")
    return made, skipped


def _absent(task: ReadTask, source: Language, language: Language) -> str | None:
    if not task.needs_translation(language, source):
        return None
    return "the benchmark does not have the language, and items that are read are not machine-translated."
