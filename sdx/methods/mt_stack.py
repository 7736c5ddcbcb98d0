"""MT-encoder stacking, MT-LLM (Schmidt et al., arXiv 2406.12739).

A frozen multilingual encoder is stacked under an LLM. First the stack learns to say of English text what the LLM itself
says of it; then it learns a task in English; then it reads the task in every language that the encoder knows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from importlib.util import find_spec

from sdx import InputError
from sdx.config import Adapter, Config, MethodConfig, Schedule, TrainConfig
from sdx.evaluation.outcome import Outcome
from sdx.evaluation.reading import ReadingSuite, reading_suites, translated_items_step
from sdx.languages import Language
from sdx.languages import language as find
from sdx.methods.base import Cell, Method
from sdx.models import encoder
from sdx.models.encoder_languages import check_languages
from sdx.options import fields
from sdx.stacking import texts
from sdx.stacking.answers import answers_step
from sdx.stacking.bridge import BridgeConfig, Projection, stack_step
from sdx.stacking.parts import ENCODER, LLM, TRANSLATE_TEST, UNALIGNED, Parts
from sdx.stacking.tokens import tokens_step
from sdx.stacking.training import Goal, Recipe, alignment_step, task_step
from sdx.stacking.vectors import vectors_step
from sdx.store.step import Step
from sdx.tasks.reading import ReadTask, training_step
from sdx.training.optimizers import EXTRA

BASELINES = {"llm": LLM, "encoder": ENCODER, "unaligned": UNALIGNED, "translate_test": TRANSLATE_TEST}
"""As options name them and as tables do. Without alignment: stage 2 of a stack that had no stage 1."""
PROBE_EPOCHS, PROBE_RATE = 20, 1e-3
"""Of the head on the encoder alone, whose vectors are there already. Ours."""
LEAST_TEXTS = 10
DEFAULT_ENCODER, DEFAULT_TASK = "e5_small", "mmlu_subject"
"""Of conf/config.yaml and conf/method/mt_stack.yaml."""


class EncoderBaseline(str, Enum):
    """How the encoder alone learns the task."""

    probe = "probe"
    """A head on its vectors, which stay as they are. Ours."""
    lora = "lora"
    """A head and adapters, with stage 2's epochs and rates, by the labels (the authors')."""


class Learning(str, Enum):
    """How the stack learns the task."""

    distillation = "distillation"
    """To give the vectors of an LLM that was trained on it; no labels."""
    direct = "direct"
    """By the labels."""
    generation = "generation"
    """To write the labels' words after what the encoder read; so does what the stack is compared with. Ours."""


@dataclass
class AlignmentConfig:
    """Stage 1, general: one pass over `scale.text_rows` English texts. Where nothing else is said, the paper's."""

    batch_size: int = fields.number(256, at_least=1, at_most=10**6)
    """Texts per optimizer step."""
    learning_rate: float = fields.number(2e-4, above=0, at_most=1)
    """Peak of AdamW's."""
    warmup_ratio: float = fields.number(0.01, at_least=0, at_most=1)
    """Share of the steps with a linear rise from 0; it falls linearly from there."""
    max_length_tokens: int = fields.number(512, at_least=1, at_most=10**7)
    """Longest text, in either tokenizer; a longer one loses its end."""
    words: bool = True
    """A third of the loss is the error of sequences, the rest that of words (the authors' later recipe); or all of it
    is that of sequences (the paper's)."""
    validations: int = fields.number(4, at_least=1, at_most=1000)
    """How often it is scored on the texts that are held out, evenly spread; the best is kept."""
    seed: int | None = fields.number(None, at_least=0, at_most=fields.SEED)
    """Of the first stack and its alignment; none: the run's. Given, runs with different seeds share one alignment."""


@dataclass
class MTStackConfig(MethodConfig):
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    bridge: BridgeConfig = field(default_factory=BridgeConfig)
    learning: Learning = Learning.distillation
    """Stage 2."""
    train_bridge: bool = False
    """Train the bridge in stage 2, too. Without stage 1 it always is."""
    bridge_rate: float = fields.number(1.0, above=0, at_most=1000)
    """By what the learning rate is multiplied for the bridge."""
    bidirectional: bool = False
    """The LLM's tokens see those after them, too, as in the paper's LLM2Vec models."""
    quantised: bool = False
    """The LLM's frozen weights in 4 bits (nf4), in training and in use: about a quarter of the memory, and less exact.
    Needs the extra `8bit`, and a ZeRO stage below 3."""
    validation_rows: int = fields.number(500, at_least=1, at_most=10**9)
    """English examples by which each trained model is selected."""
    baselines: list[str] = field(default_factory=lambda: list(BASELINES))
    """What the stack is compared with: llm, encoder, unaligned, translate_test."""
    encoder_baseline: EncoderBaseline = EncoderBaseline.probe
    """How the encoder alone learns."""
    head_bias: bool = True
    """Whether the heads have a bias (the authors' have none)."""
    read_as: list[str] = field(default_factory=list)
    """Languages that encoder and translator are told to be another: `[ug:kk]`, Uyghur read as Kazakh."""


class MTStack(Method[MTStackConfig]):
    def check(self, cell: Cell) -> None:
        config, options = cell.config, self.options
        if unknown := [name for name in options.baselines if name not in BASELINES]:
            raise InputError(f"method.baselines has {unknown[0]}; choose from {', '.join(BASELINES)}")
        if config.train.adapter is not Adapter.lora:
            raise InputError(
                f"train.adapter={config.train.adapter.value}: a stack trains adapters on a frozen LLM; leave "
                "train.adapter=lora"
            )
        if rows := config.scale.validation_rows:
            raise InputError(
                f"scale.validation_rows={rows} is of methods that train on pairs; a stack has method.validation_rows"
            )
        if (rows := config.scale.text_rows) < LEAST_TEXTS:
            raise InputError(
                f"scale.text_rows={rows} is too few to align on and to select by; give {LEAST_TEXTS} or more"
            )
        if options.quantised:
            if find_spec("bitsandbytes") is None:
                raise InputError(
                    f"method.quantised=true needs bitsandbytes; install it with {EXTRA}, or give method.quantised=false"
                )
            if config.engine.zero_stage == 3:
                raise InputError(
                    "method.quantised=true: engine.zero_stage=3 does not shard weights in 4 bits; give engine=zero2"
                )
        encoder.check(config.encoder)
        encoder.check_length(config.encoder, "scale.max_length_tokens", config.scale.max_length_tokens)
        encoder.check_length(config.encoder, "method.alignment.max_length_tokens", options.alignment.max_length_tokens)
        if not encoder.tells_characters(config.encoder):
            _check_wordless(config.encoder.name, options)
        texts.check(config.text)
        check_languages(config.encoder, None, self._heard(cell))
        task = _task(cell)
        if options.learning is Learning.generation:
            if options.bidirectional:
                raise InputError(
                    "method.learning=generation writes from left to right; leave method.bidirectional=false"
                )
            if not task.labels:
                raise InputError(
                    f"method.learning=generation writes the words of labels, and task={task.name} has none; give "
                    "method.learning=direct"
                )

    def validates(self, config: Config) -> bool:
        return True

    def compared_with(self, config: Config) -> list[str]:
        other = Learning.direct if self.options.learning is Learning.distillation else Learning.distillation
        overrides = [f"method={self.options.name}", f"method.learning={other.value}"]
        overrides += [f"task={name}" for name in config.task if name != DEFAULT_TASK]
        return overrides if config.encoder.name == DEFAULT_ENCODER else [*overrides, f"encoder={config.encoder.name}"]

    def model(self, cell: Cell) -> Step:
        return self._learn(cell, self._aligned(cell))

    def outcomes(self, cell: Cell, model: Step) -> tuple[list[Outcome], list[str]]:
        suites, skipped = reading_suites(cell.config, cell.tasks, cell.source, cell.targets)
        stacked = {id(suite): self._answers(cell, model, cell_parts(cell), suite, "stack") for suite in suites}
        others = [(suite, dict(self._systems(cell, suite))) for suite in suites]
        found = [  # system by system, so that a model is loaded once
            Outcome(suite, answers[system], stacked[id(suite)], system)
            for system in BASELINES.values()
            for suite, answers in others
            if system in answers
        ]
        found += [Outcome(suite, stacked[id(suite)]) for suite, answers in others if not answers]
        if "translate_test" in self.options.baselines:
            skipped += [reason for target in cell.targets if (reason := _untranslated(cell, self._told(target)))]
        return found, skipped

    def _systems(self, cell: Cell, suite: ReadingSuite) -> Iterator[tuple[str, Step]]:
        """The answers of each baseline."""
        wanted = self.options.baselines
        llm, reader = llm_alone(cell), replace(cell_parts(cell), backbone=None)
        if "llm" in wanted:
            yield BASELINES["llm"], self._answers(cell, self._teacher(cell), llm, suite, "LLM")
        if "encoder" in wanted:
            yield BASELINES["encoder"], self._answers(cell, self._encoder_alone(cell), reader, suite, "encoder")
        if "unaligned" in wanted:
            unaligned = self._learn(cell, self._first(cell))
            yield BASELINES["unaligned"], self._answers(cell, unaligned, cell_parts(cell), suite, "unaligned")
        told = self._told(suite.language)
        if "translate_test" in wanted and suite.language != cell.source and not _untranslated(cell, told):
            items = translated_items_step(suite.items, cell.mt, told, cell.source)
            english, who = replace(suite, items=items, language=cell.source), f"from {suite.language.code}, LLM"
            yield BASELINES["translate_test"], self._answers(cell, self._teacher(cell), llm, english, who)

    def _first(self, cell: Cell) -> Step:
        """The stack with its fitted bridge."""
        return self._untrained(cell, cell_parts(cell))

    def _aligned(self, cell: Cell) -> Step:
        """Stage 1."""
        given, parts = self.options.alignment, cell_parts(cell)
        train = replace(
            cell.config.train,
            batch_size=given.batch_size,
            learning_rate=given.learning_rate,
            warmup_ratio=given.warmup_ratio,
            schedule=Schedule.linear,
            final_ratio=0.0,
            keep_groups=False,
            validations=given.validations,
        )
        tokens = tokens_step(parts, self._texts(cell), given.max_length_tokens)
        recipe = self._recipe(train, 1, 0, given.max_length_tokens, True)
        config = replace(cell.config, seed=self._first_seed(cell))
        return alignment_step(self._first(cell), tokens, parts, recipe, given.words, config)

    def _untrained(self, cell: Cell, parts: Parts) -> Step:
        """A stack or a part of one before any training."""
        options, languages = self.options, self._heard(cell)
        limit, seed = options.alignment.max_length_tokens, self._first_seed(cell)
        rows = self._texts(cell)
        given = options.bridge, options.bidirectional, limit, seed, languages, options.quantised
        return stack_step(parts, rows, *given)

    def _first_seed(self, cell: Cell) -> int:
        given = self.options.alignment.seed
        return cell.config.seed if given is None else given

    def _learn(self, cell: Cell, stack: Step) -> Step:
        """Stage 2, from a stack that is aligned or not."""
        unaligned = stack.name == "stack"  # whose bridge has been taught nothing
        recipe, parts = self._task_recipe(cell, self.options.train_bridge or unaligned), cell_parts(cell)
        if self.options.learning is not Learning.distillation:
            return self._task_step(cell, stack, parts, self._goal, recipe)
        teacher = self._teacher(cell)
        taught = self._vectors(cell, teacher, llm_alone(cell))
        return self._task_step(cell, stack, parts, Goal.distillation, recipe, teacher, taught)

    def _teacher(self, cell: Cell) -> Step:
        """The LLM alone, which reads its own tokens, trained on the task: teacher, and zero-shot transfer."""
        parts = llm_alone(cell)
        plain = self._untrained(cell, parts)
        return self._task_step(cell, plain, parts, self._goal, self._task_recipe(cell, False))

    @property
    def _goal(self) -> Goal:
        """Of what learns the task from its data."""
        return Goal.generation if self.options.learning is Learning.generation else Goal.classification

    def _encoder_alone(self, cell: Cell) -> Step:
        """The encoder with a head and adapters, or a head on its own vectors."""
        parts = replace(cell_parts(cell), backbone=None)
        plain = self._untrained(cell, parts)
        if self.options.encoder_baseline is EncoderBaseline.lora:
            return self._task_step(cell, plain, parts, Goal.classification, self._task_recipe(cell, False))
        vectors = self._vectors(cell, plain, parts)
        train = replace(cell.config.train, learning_rate=PROBE_RATE, validations=PROBE_EPOCHS)
        scale = cell.config.scale
        recipe = Recipe(train, PROBE_EPOCHS, scale.max_steps, scale.max_length_tokens, False)
        recipe = replace(recipe, head_bias=self.options.head_bias)
        return self._task_step(cell, plain, parts, Goal.probe, recipe, vectors=vectors)

    def _task_step(
        self,
        cell: Cell,
        start: Step,
        parts: Parts,
        goal: Goal,
        recipe: Recipe,
        teacher: Step | None = None,
        vectors: Step | None = None,
    ) -> Step:
        training, labels = self._training(cell), _task(cell).labels
        config = cell.config
        return task_step(start, training, parts, goal, labels, cell.source, recipe, config, teacher, vectors)

    def _task_recipe(self, cell: Cell, trains_bridge: bool) -> Recipe:
        scale, train = cell.config.scale, cell.config.train
        recipe = self._recipe(train, scale.epochs, scale.max_steps, scale.max_length_tokens, trains_bridge)
        return replace(recipe, head_bias=self.options.head_bias)

    def _recipe(self, train: TrainConfig, epochs: int, steps: int, max_tokens: int, trains_bridge: bool) -> Recipe:
        return Recipe(train, epochs, steps, max_tokens, trains_bridge, self.options.bridge_rate)

    def _training(self, cell: Cell) -> Step:
        return training_step(_task(cell), cell.source, cell.config.scale.corpus_rows, self.options.validation_rows)

    def _texts(self, cell: Cell) -> Step:
        return texts.texts_step(cell.config.text, cell.config.scale.text_rows)

    def _vectors(self, cell: Cell, model: Step, parts: Parts) -> Step:
        return vectors_step(model, parts, self._training(cell), cell.source, cell.config.scale.max_length_tokens)

    def _answers(self, cell: Cell, model: Step, parts: Parts, suite: ReadingSuite, who: str) -> Step:
        label = f"{suite.task.name} {suite.language.code} {who}"
        told = self._told(suite.language)
        return answers_step(model, parts, suite.items, told, cell.config.scale.max_length_tokens, label)

    def _heard(self, cell: Cell) -> list[Language]:
        """The languages that the encoder must know."""
        return [cell.source, *map(self._told, cell.targets)]

    def _told(self, language: Language) -> Language:
        """What encoder and translator are told that a language is.

        Raises:
            InputError: `read_as` names a language that is not in the table.
        """
        told = {}
        for pair in self.options.read_as:
            one, colon, other = pair.partition(":")
            if not colon:
                raise InputError(
                    f"method.read_as=[{pair}] is no pair of languages; give two with a colon, as in [ug:kk]"
                )
            try:
                told[find(one.strip())] = find(other.strip())
            except ValueError as error:
                raise InputError(f"method.read_as=[{pair}]: {error}") from None
        return told.get(language, language)


def _check_wordless(name: str, options: MTStackConfig) -> None:
    """Raises InputError for options that need the words of an encoder's tokens."""
    least_squares = options.bridge.projection is Projection.least_squares
    wrong = {"bridge.projection=random": least_squares, "alignment.words=false": options.alignment.words}
    if fixes := " ".join(f"method.{fix}" for fix, needed in wrong.items() if needed):
        raise InputError(
            f"encoder={name} has a tokenizer that does not tell which words its tokens belong to; give {fixes}"
        )


def cell_parts(cell: Cell) -> Parts:
    """Both parts of the cell's stack."""
    given = cell.config.encoder
    return Parts(encoder.encoder_step(given), cell.backbone, given.prefix, cell.config.engine.precision)


def llm_alone(cell: Cell) -> Parts:
    return Parts(None, cell.backbone, precision=cell.config.engine.precision)


def _task(cell: Cell) -> ReadTask:
    """The one task that is learnt.

    Raises:
        InputError: there is none, or more than one.
    """
    found = [task for task in cell.tasks.values() if isinstance(task, ReadTask)]
    if len(found) != 1:
        which = f"{' and '.join(task.name for task in found)} are several" if found else "none of them is one"
        raise InputError(
            f"task={','.join(cell.tasks) or '[]'}: a stack learns one task of classification or multiple choice, and "
            f"{which}; give mmlu_subject, xnli, nusax, americas_nli, kardes_nlu or belebele_mc"
        )
    return found[0]


def _untranslated(cell: Cell, target: Language) -> str | None:
    """Why there is no translate-test of a language."""
    pair = target.flores, cell.source.flores
    reason = cell.mt.obstacle(*pair)
    if not reason and not cell.mt.for_pair(*pair).independent:
        reason = "leaves the backbone itself to translate; translator@mt=nllb_600m is one that can"
    return f"translate-test in {target.name}: {cell.mt.name} {reason}." if reason else None


SCHEMAS = {"mt_stack": MTStackConfig}
