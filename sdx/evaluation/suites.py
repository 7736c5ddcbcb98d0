"""A suite is one benchmark in one language: where its items come from, and the step that puts a model to it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sdx import InputError
from sdx.config import Config
from sdx.evaluation.generative import GenerativeSuite, generative_suites, machine_translated
from sdx.generation.hf import HFGenerator
from sdx.generation.step import Generate
from sdx.languages import Language
from sdx.store.files import read_rows, write_rows
from sdx.store.step import PlainStep, Step, Workspace
from sdx.tasks.base import ChoiceTask, Task
from sdx.tasks.generative import GenerativeTask
from sdx.translation.base import Translator
from sdx.translation.step import Translate

READ_VERSION = 1
SCORE_VERSION = 1
Texts = tuple[Step, str, str]
"""A step, the file it publishes, and the field of each row that is the text."""


@dataclass(frozen=True)
class ChoiceSuite:
    """Multiple choice: an outcome publishes `rows.jsonl`, an `ItemResult` per question."""

    task: ChoiceTask
    language: Language
    origin: str
    """original, human-translated, or by which engine the items are translated."""
    items: Step
    config: Config

    @property
    def needs(self) -> tuple[Step, ...]:
        """What scoring reads beside the outcomes."""
        return (self.items,)

    def outcome(self, model: Step, label: str) -> Step:
        return PlainStep(
            "score",
            partial(_score, suite=self, label=f"{self.task.name} {self.language.code} {label}"),
            config={
                "task": self.task.name,
                "shots": self.task.shots,
                "precision": self.config.engine.precision.value,
                "context_tokens": self.config.backbone.context_tokens,
                **({"wrapper": self.task.wrapper} if self.task.wrapper else {}),
            },
            inputs={"model": model, "items": self.items},
            version=SCORE_VERSION,
        )


@dataclass(frozen=True)
class InstructionSuite:
    """Held-out instructions, answered freely: an outcome publishes the completions as `rows.jsonl`."""

    task: Task
    language: Language
    origin: str
    prompts: Texts
    references: Texts
    generator: HFGenerator
    config: Config

    @property
    def needs(self) -> tuple[Step, ...]:
        return (self.references[0],)

    def outcome(self, model: Step, label: str) -> Step:
        template, limit = self.config.backbone.template, self.config.scale.max_new_tokens
        label = f"{self.task.name} {self.language.code} {label}"
        return Generate(model, *self.prompts, template, limit, generator=self.generator, label=label)


Suite = ChoiceSuite | InstructionSuite | GenerativeSuite


def suites(
    config: Config,
    tasks: Mapping[str, Task],
    corpus: Callable[[], Step],
    translator: Translator,
    generator: HFGenerator,
    source: Language,
    targets: Sequence[Language],
) -> tuple[list[Suite], list[str]]:
    """All suites of a cell, and a sentence for each benchmark and language that cannot be run.

    Args:
        corpus: gives the instructions, asked for only where they are evaluated.

    Raises:
        InputError: nothing is left to evaluate.
    """
    made: list[Suite] = []
    skipped: list[str] = []
    for name, task in tasks.items():
        for language in (source, *targets):
            if reason := task.obstacle(language) or _untranslatable(task, translator, source, language):
                skipped.append(f"{name} in {language.name}: {reason}")
            elif isinstance(task, ChoiceTask):
                made.append(_choices(config, task, translator, source, language))
            elif isinstance(task, GenerativeTask):
                made += generative_suites(config, task, translator, generator, source, language)
            else:
                made.append(_instructions(config, task, corpus(), translator, generator, source, language))
    if not made:
        raise InputError(f"task={','.join(tasks) or '{}'}: nothing can be evaluated; {' '.join(skipped)}")
    return made, skipped


def _untranslatable(task: Task, translator: Translator, source: Language, language: Language) -> str | None:
    """Why a benchmark cannot be brought into a language, where a translator has to."""
    if not task.needs_translation(language, source):
        return None
    original = task.original(source)
    pair = original.flores, language.flores
    if reason := translator.obstacle(*pair):
        return f"the translator {translator.name} {reason}."
    engine = translator.for_pair(*pair)
    if isinstance(task, ChoiceTask | GenerativeTask) and not engine.independent:
        return f"translator={engine.name} is the model under test and does not write its own questions."
    return None


def _instructions(
    config: Config,
    task: Task,
    corpus: Step,
    translator: Translator,
    generator: HFGenerator,
    source: Language,
    language: Language,
) -> InstructionSuite:
    def texts(field: str) -> Texts:
        if language == source:
            return corpus, "heldout.jsonl", field
        translation = Translate(corpus, "heldout.jsonl", field, source, language, translator=translator)
        return translation, "rows.jsonl", "text"

    origin = "original" if language == source else machine_translated(translator, source, language)
    return InstructionSuite(task, language, origin, texts("instruction"), texts("answer"), generator, config)


def _choices(
    config: Config, task: ChoiceTask, translator: Translator, source: Language, language: Language
) -> ChoiceSuite:
    if not task.needs_translation(language, source):
        items = items_step(task, language, config.scale.eval_items)
        return ChoiceSuite(task, language, task.origin(language), items, config)
    original = task.original(source)
    items = items_step(task, original, config.scale.eval_items)
    texts = Translate(items, "rows.jsonl", "texts", original, language, translator=translator)
    translated = PlainStep("items", _translated, inputs={"items": items, "texts": texts}, version=READ_VERSION)
    return ChoiceSuite(task, language, machine_translated(translator, original, language), translated, config)


def items_step(task: ChoiceTask, language: Language, limit: int) -> Step:
    """Publishes the first `limit` items, all for 0, with `texts`, what a translator has to translate."""
    source = task.source(language)
    return PlainStep(
        "items",
        partial(_read, task=task, language=language, limit=limit),
        config={"task": task.name, "language": language.flores, "limit": limit, **task.description},
        inputs={"asset": source} if source else {},
        version=READ_VERSION,
    )


def _read(workspace: Workspace, task: ChoiceTask, language: Language, limit: int) -> None:
    items = task.read(workspace.inputs.get("asset"), language)[: limit or None]
    rows = [{**item, "texts": [item["question"], *item["choices"]]} for item in items]
    write_rows(workspace.dir / "rows.jsonl", rows)
    workspace.counts.update(items=len(rows))


def _translated(workspace: Workspace) -> None:
    texts = {row["id"]: row["text"] for row in read_rows(workspace.inputs["texts"] / "rows.jsonl")}
    rows: list[dict[str, Any]] = []
    for item in read_rows(workspace.inputs["items"] / "rows.jsonl"):
        question, *choices = texts[item["id"]]
        row = {"id": item["id"], "question": question, "choices": choices, "gold": item["gold"]}
        rows.append({**row, "fields": dict.fromkeys(item["fields"], question)} if "fields" in item else row)
    write_rows(workspace.dir / "rows.jsonl", rows)
    workspace.counts.update(items=len(rows))


def _score(workspace: Workspace, suite: ChoiceSuite, label: str) -> None:
    from sdx.evaluation.harness import Questions, score

    task = suite.task
    name = task.name
    results = score(
        workspace.inputs["model"] / "model",
        {name: Questions(workspace.inputs["items"] / "rows.jsonl", task.kind, task.shots, task.wrapper)},
        suite.config.engine.precision,
        suite.config.backbone.context_tokens,
        workspace.dir,
        label,
    )[name]
    (workspace.dir / f"{name}.jsonl").rename(workspace.dir / "rows.jsonl")
    workspace.counts.update(items=len(results), correct=sum(result.acc for result in results))
