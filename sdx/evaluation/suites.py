"""A suite is a task in a language: its items, and the step in which a model answers them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sdx import InputError
from sdx.config import Config
from sdx.evaluation.harness import HarnessScore, Score
from sdx.evaluation.metrics import CHRF
from sdx.evaluation.prompts import Prompts
from sdx.evaluation.values import ANSWER_LANGUAGE
from sdx.generation.base import Generator
from sdx.generation.step import Generate
from sdx.languages import Language
from sdx.store.estimate import ROWS
from sdx.store.step import Step
from sdx.tasks.base import ChoiceTask, Instructions, Mode, Task
from sdx.tasks.items import Items, items_step
from sdx.tasks.lm_eval import HarnessItems, HarnessTask, LMEval
from sdx.tasks.reading import ReadTask
from sdx.translation.base import Translator
from sdx.translation.step import Translate

Answer = Callable[..., Step]
"""(model, label=...) -> the step in which the model answers a suite; it publishes `rows.jsonl`."""


@dataclass(frozen=True)
class Suite:
    """A task in a language."""

    task: Task
    mode: Mode
    language: Language
    """Of the answers."""
    origin: str
    """original, human-translated, as given, or the engine that translated the items."""
    items: Step
    """Read beside the answers to score them."""
    answer: Answer | None = None
    """None if the method that trains the readers makes the answers."""
    metrics: tuple[str, ...] = ()
    """Of written answers."""
    item_language: Language | None = None
    """Of the items, if it is not that of the answers."""
    file: str = ROWS
    """Of `items`."""
    references: str = "references"
    """Field of each row."""
    engine: str = ""
    """Name of the translator that answers instead of a model."""
    has_metrics: bool = False
    """The answers are published with the values of their metrics."""

    @property
    def name(self) -> str:
        """The task in tables."""
        return f"translation by {self.engine}" if self.engine else self.task.name

    @property
    def languages(self) -> str:
        """The languages in tables: `th`, or `en-th` for a translation."""
        both = self.item_language or self.language, self.language
        return "-".join(dict.fromkeys(language.code for language in both))

    def outcome(self, model: Step, label: str) -> Step:
        """The answers of a model."""
        assert self.answer
        return self.answer(model, label=f"{self.task.name} {self.languages} {label}")


@dataclass(frozen=True)
class Comparison:
    """A suite with its answers before and after. If a run has several systems, the suite comes once for each."""

    suite: Suite
    before: Step
    """Publishes the answers of the untrained backbone, or of `system`, as `rows.jsonl`."""
    after: Step | None = None
    """Publishes those of the improved model, one step for all systems; None if nothing is trained."""
    system: str = ""
    """The name of the system of `before`, if it is not the untrained backbone: `LLM alone`."""


def suites(
    config: Config,
    tasks: Mapping[str, Task],
    corpus: Callable[[], Step],
    translator: Translator,
    generator: Generator,
    source: Language,
    targets: Sequence[Language],
) -> tuple[list[Suite], list[str]]:
    """All suites of a run, and a sentence for each benchmark and language that cannot be run.

    Args:
        corpus: gives the instructions; called only if they are evaluated.

    Raises:
        InputError: nothing is left to evaluate.
    """
    limit, template, context_tokens = config.scale.eval_items, config.backbone.template, config.backbone.context_tokens
    written = config.scale.max_new_tokens
    generate = partial(Generate, template=template, max_new_tokens=written, generator=generator)
    options: dict[str, Any] = {"precision": config.engine.precision, "context_tokens": context_tokens}

    def make(task: Task, language: Language) -> list[Suite] | str:
        if isinstance(task, LMEval):  # whatever the languages of the run
            return list(map(harness, task.tasks)) if language == source else []
        if reason := task.why_unsupported(language):
            return reason
        if task.needs_translation(language, source):
            original = task.original(source)
            pair = original.flores, language.flores
            if reason := translator.why_unsupported(*pair):
                return f"the translator {translator.name} {reason}."
            engine = translator.for_pair(*pair)
            origin = f"machine-translated ({engine.name})"
            if isinstance(task, Instructions):
                return [instructions(task, language, origin)]
            if not engine.is_external:
                return f"translator={engine.name} is the model under test and does not write its own questions."
            items = translated(items_step(task, task.mode, original, limit), translator, original, language)
            return [suite(task, items, origin)]
        if isinstance(task, Instructions):
            return [instructions(task, language, "original")]
        return [
            suite(task, items_step(task, task.mode, asked, limit, answered), task.origin(asked))
            for asked, answered in task.pairs(source, language)
        ]

    def harness(task: HarnessTask) -> Suite:
        items = HarnessItems(task, task.language(source), limit)
        answer = partial(HarnessScore, items=items, **options)
        return Suite(task, task.mode, items.language, "as given", items, answer, has_metrics=True)

    def suite(task: Task, items: Items, origin: str) -> Suite:
        def write(model: Step, label: str) -> Step:
            if written >= context_tokens:
                raise InputError(
                    f"scale.max_new_tokens={written} leaves no room for a prompt in "
                    f"backbone.context_tokens={context_tokens}; lower the one or raise the other"
                )
            prompts = Prompts(model, items, template, context_tokens - written, written)
            return generate(model, prompts=prompts, file=ROWS, field="prompt", label=label)

        answer, metrics = write, (*task.metrics, ANSWER_LANGUAGE)
        if isinstance(task, ChoiceTask):
            answer, metrics = partial(Score, items=items, task=task, **options), ()
        return Suite(task, task.mode, items.answered, origin, items, answer, metrics, items.asked)

    def instructions(task: Task, language: Language, origin: str) -> Suite:
        rows = corpus()

        def texts(field: str) -> tuple[Step, str, str]:
            if language == source:
                return rows, "heldout.jsonl", field
            return Translate(rows, "heldout.jsonl", field, source, language, translator=translator), ROWS, "text"

        (prompts, file, prompt), (references, _, reference) = texts("instruction"), texts("answer")
        answer, metrics = partial(generate, prompts=prompts, file=file, field=prompt), (ANSWER_LANGUAGE, CHRF)
        return Suite(task, task.mode, language, origin, references, answer, metrics, file=file, references=reference)

    return _all(tasks, [source, *targets], make)


def reading_suites(
    config: Config, tasks: Mapping[str, Task], source: Language, targets: Sequence[Language]
) -> tuple[list[Suite], list[str]]:
    """The suites that a model with a head reads, and a sentence for each benchmark and language that cannot be run.

    Items are the benchmark's own: they are not machine-translated.

    Raises:
        InputError: nothing is left to evaluate.
    """

    def make(task: Task, language: Language) -> list[Suite] | str:
        if reason := task.why_unsupported(language):
            return reason
        if task.needs_translation(language, source):
            return "the benchmark does not have the language, and items that are read are not machine-translated."
        items = items_step(task, Mode.read, language, config.scale.eval_items)
        return [Suite(task, Mode.read, language, task.origin(language), items)]

    readable = {name: task for name, task in tasks.items() if isinstance(task, ReadTask)}
    made, skipped = _all(readable, [source, *targets], make)
    reason = "it is not classification or multiple choice with training data."
    return made, [*skipped, *(f"{name}: {reason}" for name in tasks if name not in readable)]


def _all(
    tasks: Mapping[str, Task], languages: Sequence[Language], make: Callable[[Task, Language], list[Suite] | str]
) -> tuple[list[Suite], list[str]]:
    """The suites that `make` gives for all tasks and languages, and its sentence for each that has none."""
    made: list[Suite] = []
    skipped: list[str] = []
    for name, task in tasks.items():
        for language in languages:
            found = make(task, language)
            if isinstance(found, str):
                skipped.append(f"{name} in {language.name}: {found}")
            else:
                made += found
    if not made:
        raise InputError(f"task={','.join(tasks) or '{}'}: nothing can be evaluated; {' '.join(skipped)}")
    return made, skipped


def translated(items: Items, translator: Translator, original: Language, language: Language) -> Items:
    """Items in another language, by a translator."""
    texts = Translate(items, ROWS, items.to_translate, original, language, translator=translator)
    return type(items)(items.task, language, language, items=items, texts=texts)
