"""A suite is a task in a language: its items, and who answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from sdx import InputError
from sdx.config import Config
from sdx.evaluation.prompts import prompts_step
from sdx.evaluation.scoring import harness_step, score_step
from sdx.evaluation.values import ANSWER_LANGUAGE, CHRF
from sdx.generation.hf import HFGenerator
from sdx.generation.step import Generate
from sdx.languages import Language
from sdx.store.step import Step
from sdx.tasks.base import ChoiceTask, Instructions, Task, Who
from sdx.tasks.items import ROWS, Items, items_step
from sdx.tasks.lm_eval import HarnessItems, HarnessTask, LMEval
from sdx.tasks.reading import ReadTask
from sdx.translation.base import Translator
from sdx.translation.step import Translate

Answer = Callable[[Step, str], Step]
"""The step that puts a model to a suite, with a label for progress bars; it publishes the answers as `rows.jsonl`."""
Texts = tuple[Step, str, str]
"""A step, the file it publishes, and the field of each row that is the text."""


@dataclass(frozen=True)
class Suite:
    """A task in a language."""

    task: Task
    who: Who
    language: Language
    """Of the answers."""
    origin: str
    """original, human-translated, as given, or by which engine the items are translated."""
    items: Step
    """What scoring reads beside the answers."""
    answer: Answer | None = None
    """None where the method that trains the readers has the answers."""
    metrics: tuple[str, ...] = ()
    """Of written answers."""
    asked: Language | None = None
    """Of the items, if another one than that of the answers."""
    file: str = ROWS
    """Of `items`."""
    references: str = "references"
    """Field of each row."""
    engine: str = ""
    """Name of the translator that answers instead of a model."""
    judged: bool = False
    """The answers are published with the values of their metrics."""

    @property
    def name(self) -> str:
        """As tables name the task."""
        return f"translation by {self.engine}" if self.engine else self.task.name

    @property
    def languages(self) -> str:
        """As tables name them: `th`, or `en-th` for a translation."""
        return "-".join(dict.fromkeys(one.code for one in (self.asked or self.language, self.language)))

    @property
    def needs(self) -> tuple[Step, ...]:
        """What scoring reads beside the outcomes."""
        return (self.items,)

    def outcome(self, model: Step, label: str) -> Step:
        """The answers of a model."""
        assert self.answer
        return self.answer(model, f"{self.task.name} {self.languages} {label}")


Make = Callable[[Task, Language], list[Suite] | str]
"""The suites that a task has in a language of the run, or why there are none, as a sentence."""


def suites(
    config: Config,
    tasks: Mapping[str, Task],
    corpus: Callable[[], Step],
    translator: Translator,
    generator: HFGenerator,
    source: Language,
    targets: Sequence[Language],
) -> tuple[list[Suite], list[str]]:
    """All suites of a run, and a sentence for each benchmark and language that cannot be run.

    Args:
        corpus: gives the instructions, asked for only where they are evaluated.

    Raises:
        InputError: nothing is left to evaluate.
    """

    def make(task: Task, language: Language) -> list[Suite] | str:
        if isinstance(task, LMEval):  # whatever the languages of the run
            return [_harness(config, one, source) for one in task.each] if language == source else []
        if reason := task.why_unsupported(language) or _untranslatable(task, translator, source, language):
            return reason
        if isinstance(task, Instructions):
            return [_instructions(config, task, corpus(), translator, generator, source, language)]
        return _asked(config, task, translator, generator, source, language)

    return _all(tasks, tasks, [source, *targets], make)


def reading_suites(
    config: Config, tasks: Mapping[str, Task], source: Language, targets: Sequence[Language]
) -> tuple[list[Suite], list[str]]:
    """The suites that a model with a head reads, and a sentence for each benchmark and language that cannot be run.

    Items are what the benchmark itself has: they are not machine-translated.

    Raises:
        InputError: nothing is left to evaluate.
    """

    def make(task: Task, language: Language) -> list[Suite] | str:
        if reason := task.why_unsupported(language):
            return reason
        if task.needs_translation(language, source):
            return "the benchmark does not have the language, and items that are read are not machine-translated."
        items = items_step(task, Who.read, language, config.scale.eval_items)
        return [Suite(task, Who.read, language, task.origin(language, language), items)]

    read = {name: task for name, task in tasks.items() if isinstance(task, ReadTask)}
    return _all(tasks, read, [source, *targets], make)


def _all(
    tasks: Mapping[str, Task], fit: Mapping[str, Task], languages: Sequence[Language], make: Make
) -> tuple[list[Suite], list[str]]:
    made: list[Suite] = []
    skipped: list[str] = []
    for name, task in tasks.items():
        if name not in fit:
            skipped.append(f"{name}: it is not classification or multiple choice with training data.")
            continue
        for language in languages:
            found = make(task, language)
            if isinstance(found, str):
                skipped.append(f"{name} in {language.name}: {found}")
            else:
                made += found
    if not made:
        raise InputError(f"task={','.join(tasks) or '{}'}: nothing can be evaluated; {' '.join(skipped)}")
    return made, skipped


def _untranslatable(task: Task, translator: Translator, source: Language, language: Language) -> str | None:
    """Why a benchmark cannot be brought into a language, where a translator has to."""
    if not task.needs_translation(language, source):
        return None
    original = task.original(source)
    pair = original.flores, language.flores
    if reason := translator.why_unsupported(*pair):
        return f"the translator {translator.name} {reason}."
    engine = translator.for_pair(*pair)
    if not engine.is_external and not isinstance(task, Instructions):
        return f"translator={engine.name} is the model under test and does not write its own questions."
    return None


def _asked(
    config: Config, task: Task, translator: Translator, generator: HFGenerator, source: Language, language: Language
) -> list[Suite]:
    """The suites of a benchmark with items of its own."""
    limit, made = config.scale.eval_items, []
    if task.needs_translation(language, source):
        original = task.original(source)
        items = translated(items_step(task, task.who, original, limit), translator, original, language)
        made = [(items, machine_translated(translator, original, language))]
    else:
        for asked, answered in task.pairs(source, language):
            made.append((items_step(task, task.who, asked, limit, answered), task.origin(asked, answered)))
    return [_suite(config, task, items, origin, generator) for items, origin in made]


def _suite(config: Config, task: Task, items: Items, origin: str, generator: HFGenerator) -> Suite:
    answer, metrics = partial(_written, config, generator, items), (*task.metrics, ANSWER_LANGUAGE)
    if isinstance(task, ChoiceTask):
        answer, metrics = partial(score_step, config, task, items), ()
    return Suite(task, task.who, items.answered, origin, items, answer, metrics, items.asked)


def _written(config: Config, generator: HFGenerator, items: Items, model: Step, label: str) -> Step:
    texts = prompts_step(model, items, config), ROWS, "prompt"
    return _generated(config, generator, texts, model, label)


def _generated(config: Config, generator: HFGenerator, prompts: Texts, model: Step, label: str) -> Step:
    return Generate(
        model, *prompts, config.backbone.template, config.scale.max_new_tokens, generator=generator, label=label
    )


def _harness(config: Config, task: HarnessTask, source: Language) -> Suite:
    spoken = task.spoken(source)
    items = HarnessItems(task, spoken, config.scale.eval_items)
    return Suite(task, task.who, spoken, "as given", items, partial(harness_step, config, items), judged=True)


def _instructions(
    config: Config,
    task: Task,
    corpus: Step,
    translator: Translator,
    generator: HFGenerator,
    source: Language,
    language: Language,
) -> Suite:
    def texts(field: str) -> Texts:
        if language == source:
            return corpus, "heldout.jsonl", field
        translation = Translate(corpus, "heldout.jsonl", field, source, language, translator=translator)
        return translation, ROWS, "text"

    origin = "original" if language == source else machine_translated(translator, source, language)
    answer, (references, file, field) = partial(_generated, config, generator, texts("instruction")), texts("answer")
    metrics = ANSWER_LANGUAGE, CHRF
    return Suite(task, task.who, language, origin, references, answer, metrics, file=file, references=field)


def translated(items: Items, translator: Translator, original: Language, language: Language) -> Items:
    """Items in another language, by a translator."""
    return items.translated(
        Translate(items, ROWS, items.to_translate, original, language, translator=translator), language
    )


def machine_translated(translator: Translator, original: Language, language: Language) -> str:
    return f"machine-translated ({translator.for_pair(original.flores, language.flores).name})"
