"""MT-LLM: a frozen multilingual encoder stacked under an LLM (Schmidt et al., arXiv 2406.12739).

The stack first learns to represent English text as the LLM itself does, then a task in English; then it reads the task
in every language that the encoder knows.

    v(x) = mean over the tokens of LLM(inputs_embeds=up_proj(encoder(x)))         the stack's vector of a text
    1.  min over up_proj and LoRA  |v(x) - v_LLM(x)|^2        x: English text, v_LLM: the LLM on its own tokens
    2.  min over LoRA              |v(x) - v_teacher(x)|^2    x: English task data, the head is the teacher's

[P]: the paper, its authors' code or their model card. [2]: at second hand. [O]: ours. Files are below sdx/.

| statement | mark | where |
|---|---|---|
| encoder frozen, in eval mode | [P] | stacking/model.py:StackModel.train |
| `inputs_embeds = up_proj(encoder(ids))`, no tokens of the LLM's own | [P] | stacking/model.py:StackModel.soft_prompt |
| the LLM's start token in place of the encoder's, an option | [O] | stacking/bridge.py:_start_token |
| masked mean of the last hidden state | [P] | stacking/model.py:masked_mean |
| the same over spans and packs, in training | [O] | training/hidden_states.py:pooled |
| LLM made bidirectional (LLM2Vec), an option | [P] | stacking/model.py:_make_bidirectional |
| LLM in 4 bits (nf4), an option | [P] | models/loading.py:four_bits |
| LoRA r 16, alpha 32, dropout 0.05 on all linear layers | [P] | stacking/model.py:StackModel.add_lora |
| language code by language, an unknown one is an error | [P] | stacking/encoder_languages.py:encoder_tokenizer |
| EOS between a premise and a hypothesis | [O] | stacking/encoder_languages.py:encoder_tokenizer |
| `up_proj` without bias by least squares (later recipe), or random | [P] | stacking/bridge.py:_least_squares |
| its scale, that of the LLM's embeddings; standardised states, an option | [O] | stacking/bridge.py:_fit |
| stage 1: 10,000 x 256 texts, 512 tokens, 2e-4, 1 % warm-up, linear | [P] | methods/mt_stack.py:AlignmentConfig |
| stage 1: the teacher is the LLM without its adapters, on its own tokens | [P] | stacking/model.py:without_adapters |
| stage 1: MSE, 1/3 of sequences and 2/3 of words (later recipe) | [P] | stacking/objectives.py:Alignment.loss |
| its division by the variance of what is taught: the share unexplained | [O] | stacking/objectives.py:Alignment.loss |
| words aligned by the tokens' characters | [P] | stacking/alignment_data.py:aligned_words |
| stage 2a: the LLM and a head learn the English task: the teacher | [P] | methods/mt_stack.py:Study.teacher |
| stage 2b: its vectors of the training set, by example id | [P] | stacking/vectors.py:VectorsStep.answers |
| stage 2c: its head is copied and frozen | [P] | stacking/trainable.py:TrainableStack.load |
| stage 2c: MSE to its vectors, no labels | [P] | stacking/objectives.py:Distillation.loss |
| `direct`: cross-entropy after stage 1 | [P] | stacking/objectives.py:Classification.loss |
| `generation`: the labels' words behind a soft prompt | [O] | stacking/generation.py:StackForCausalLM |
| multiple choice: each choice's span -> Linear(d, 1) | [P] | stacking/model.py:StackForMultipleChoice.classify |
| stage 2: rate, schedule and AdamW of conf/method/mt_stack.yaml | [P] | methods/mt_stack.py:Study.recipe |
| selection on English validation data | [P] | stacking/training.py:StackTraining.run |
| zero-shot test in every language | [P] | methods/mt_stack.py:MTStack.outcomes |
| baselines: LLM alone, encoder alone, no stage 1, translate-test | [P] | methods/mt_stack.py:Study.baselines |
| encoder alone with LoRA | [P] | methods/mt_stack.py:Study.encoder |
| encoder alone with a head on its vectors, an option | [O] | stacking/objectives.py:Probe |
| Uyghur in Cyrillic letters is read as Kazakh, an option | [P] | methods/mt_stack.py:Study.read_as |

`bidirectional` is for LLM2Vec models: see experiments/mt_llm_*.yaml.
"""

from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from importlib.util import find_spec

from sdx import InputError
from sdx.config import Adapter, Config, MethodConfig, Schedule
from sdx.evaluation.suites import Comparison, Suite, reading_suites, translated
from sdx.languages import Language
from sdx.languages import language as find
from sdx.methods.base import Method, Run
from sdx.options import fields
from sdx.stacking import encoder, english_texts
from sdx.stacking.alignment_data import TokensStep
from sdx.stacking.bridge import BridgeConfig, Projection, StackStep
from sdx.stacking.encoder_languages import check_languages
from sdx.stacking.inference import ClassifyStep
from sdx.stacking.parts import ObjectiveKind, Parts, System
from sdx.stacking.training import AlignmentStep, TaskStep, TrainingSettings
from sdx.stacking.vectors import VectorsStep
from sdx.store.step import Step
from sdx.tasks.items import Items
from sdx.tasks.reading import ReadTask, training_step
from sdx.training.optimizers import EXTRA

BASELINES = [system.name for system in System if system is not System.stack]
PROBE_EPOCHS, PROBE_RATE = 20, 1e-3
"""Training of a head on the encoder's stored vectors. Ours."""
LEAST_TEXTS = 10
DEFAULT_ENCODER, DEFAULT_TASK = "e5_small", "mmlu_subject"
"""Of conf/config.yaml and conf/method/mt_stack.yaml."""


class EncoderBaseline(str, Enum):
    """How the encoder alone learns the task."""

    probe = "probe"
    """A head on the frozen encoder's vectors. Ours."""
    lora = "lora"
    """A head and adapters, from the labels, with stage 2's epochs and rates (the authors')."""


class Learning(str, Enum):
    """How the stack learns the task."""

    distillation = "distillation"
    """From the vectors of an LLM that was trained on the task; no labels."""
    direct = "direct"
    """From the labels."""
    generation = "generation"
    """By writing the labels' words after the encoder's soft prompt; the baselines do so, too. Ours."""


@dataclass
class AlignmentConfig:
    """Stage 1: one pass over `scale.text_rows` English texts. Defaults are the paper's unless marked."""

    batch_size: int = fields.number(256, at_least=1, at_most=10**6)
    """Texts per optimizer step."""
    learning_rate: float = fields.number(2e-4, above=0, at_most=1)
    """Peak learning rate of AdamW."""
    warmup_ratio: float = fields.number(0.01, at_least=0, at_most=1)
    """Share of the steps with a linear rise from 0; the rate then falls linearly."""
    max_length_tokens: int = fields.number(512, at_least=1, at_most=10**7)
    """Longest text, in either tokenizer; longer texts are cut at the end."""
    words: bool = True
    """Whether two thirds of the loss are the error of words (the authors' later recipe); else all of the loss is the
    error of sequences (the paper's)."""
    validations: int = fields.number(4, at_least=1, at_most=1000)
    """Number of validation passes on held-out texts, evenly spaced; the best stack is kept."""
    seed: int | None = fields.number(None, at_least=0, at_most=fields.SEED)
    """Seed of the first stack and the alignment; none: the run's. With a seed here, runs with different seeds share an
    alignment."""


@dataclass
class MTStackConfig(MethodConfig):
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    bridge: BridgeConfig = field(default_factory=BridgeConfig)
    learning: Learning = Learning.distillation
    """Stage 2."""
    train_bridge: bool = False
    """Train the bridge in stage 2, too; always done without stage 1."""
    bridge_rate: float = fields.number(1.0, above=0, at_most=1000)
    """Multiplies the learning rate of the bridge."""
    bidirectional: bool = False
    """Let the LLM's tokens attend to later tokens, as in the paper's LLM2Vec models."""
    quantised: bool = False
    """Keep the LLM's frozen weights in 4 bits (nf4), in training and in use: about a quarter of the memory, and less
    exact. Needs the extra `8bit`, and a ZeRO stage below 3."""
    validation_rows: int = fields.number(500, at_least=1, at_most=10**9)
    """English examples that select each trained model."""
    baselines: list[str] = field(default_factory=lambda: list(BASELINES))
    """Systems to compare the stack with: llm, encoder, unaligned, translate_test."""
    encoder_baseline: EncoderBaseline = EncoderBaseline.lora
    """How the encoder alone learns."""
    head_bias: bool = False
    """Whether the heads have a bias."""
    read_as: list[str] = field(default_factory=list)
    """Languages that encoder and translator read as another language: `[ug:kk]`, Uyghur as Kazakh."""


class MTStack(Method[MTStackConfig]):
    def validates(self, config: Config) -> bool:
        return True

    def model(self, run: Run) -> Step:
        return Study(run, self.options).stack

    def outcomes(self, run: Run, model: Step) -> tuple[list[Comparison], list[str]]:
        """The stack, zero-shot in every language, beside each baseline."""
        study = Study(run, self.options)
        suites, skipped = reading_suites(run.config, run.tasks, run.source, run.targets)
        stacked = {id(suite): study.answers(System.stack, model, suite) for suite in suites}
        others = [(suite, study.baselines(suite)) for suite in suites]
        found = [  # system by system, so that a model is loaded once
            Comparison(suite, answers[system], stacked[id(suite)], system.value)
            for system in System
            for suite, answers in others
            if system in answers
        ]
        found += [Comparison(suite, stacked[id(suite)]) for suite, answers in others if not answers]
        if System.translate_test.name in self.options.baselines:
            skipped += [reason for target in run.targets if (reason := study.untranslated(study.read_as(target)))]
        return found, skipped

    def check(self, run: Run) -> None:
        config, options = run.config, self.options
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
        for key, limit in (
            ("scale.max_length_tokens", config.scale.max_length_tokens),
            ("method.alignment.max_length_tokens", options.alignment.max_length_tokens),
        ):
            encoder.check_length(config.encoder, key, limit)
        if not encoder.has_character_offsets(config.encoder):
            _check_wordless(config.encoder.name, options)
        english_texts.check(config.text)
        study = Study(run, options)
        check_languages(config.encoder, study.encoder_languages)
        if options.learning is Learning.generation:
            if options.bidirectional:
                raise InputError(
                    "method.learning=generation writes from left to right; give method.bidirectional=false"
                )
            if not study.task.labels:
                raise InputError(
                    f"method.learning=generation writes the words of labels, and task={study.task.name} has none; give "
                    "method.learning=direct"
                )

    def compared_with(self, config: Config) -> list[str]:
        other = Learning.direct if self.options.learning is Learning.distillation else Learning.distillation
        overrides = [f"method={self.options.name}", f"method.learning={other.value}"]
        overrides += [f"task={name}" for name in config.task if name != DEFAULT_TASK]
        return overrides if config.encoder.name == DEFAULT_ENCODER else [*overrides, f"encoder={config.encoder.name}"]


class Study:
    """The steps of one run: the stack and its baselines."""

    def __init__(self, run: Run, options: MTStackConfig) -> None:
        self.run, self.config, self.options = run, run.config, options
        self.task = _task(run)
        seed = options.alignment.seed
        self.first_seed = run.config.seed if seed is None else seed
        generates = options.learning is Learning.generation
        self.goal = ObjectiveKind.generation if generates else ObjectiveKind.classification
        """Objective of the models that learn the task from labels."""

    # Stage 1: the stack learns to represent English as the LLM does

    def untrained(self, system: System) -> Step:
        """A stack with a fitted bridge, or a part of such a stack."""
        options = self.options
        return StackStep(
            self.texts,
            options.bridge,
            options.bidirectional,
            options.quantised,
            options.alignment.max_length_tokens,
            self.first_seed,
            parts=self.parts(system),
            languages=self.encoder_languages,
        )

    def aligned(self) -> Step:
        given, parts = self.options.alignment, self.parts(System.stack)
        train = replace(
            self.config.train,
            batch_size=given.batch_size,
            learning_rate=given.learning_rate,
            warmup_ratio=given.warmup_ratio,
            schedule=Schedule.linear,
            final_ratio=0.0,
            keep_groups=False,
            validations=given.validations,
        )
        tokens = TokensStep(self.texts, given.max_length_tokens, parts=parts)
        recipe = TrainingSettings(train, 1, 0, given.max_length_tokens, True, self.options.bridge_rate)
        config = replace(self.config, seed=self.first_seed)
        first = self.untrained(System.stack)
        return AlignmentStep(
            first, recipe, ObjectiveKind.alignment, tokens, given.words, parts=parts, run_config=config
        )

    # Stage 2: the task

    @cached_property
    def stack(self) -> Step:
        return self.stacked(System.stack, self.aligned(), self.options.train_bridge)

    def stacked(self, system: System, start: Step, trains_bridge: bool) -> Step:
        """A stack that learns the task, from the teacher or from the labels."""
        recipe = self.recipe(trains_bridge)
        if self.options.learning is not Learning.distillation:
            return self.task_step(system, start, self.goal, recipe)
        vectors = self.vectors(System.llm, self.teacher)
        return self.task_step(system, start, ObjectiveKind.distillation, recipe, self.teacher, vectors)

    @cached_property
    def teacher(self) -> Step:
        """The LLM alone, trained on the task: the teacher, and the baseline of zero-shot transfer."""
        return self.task_step(System.llm, self.untrained(System.llm), self.goal, self.recipe(False))

    @cached_property
    def unaligned(self) -> Step:
        """Stage 2 without stage 1; trains the bridge, too."""
        return self.stacked(System.unaligned, self.untrained(System.stack), True)

    @cached_property
    def encoder(self) -> Step:
        """The encoder with a head and adapters, or with a head on the encoder's vectors."""
        plain, recipe = self.untrained(System.encoder), self.recipe(False)
        if self.options.encoder_baseline is EncoderBaseline.lora:
            return self.task_step(System.encoder, plain, ObjectiveKind.classification, recipe)
        train = replace(self.config.train, learning_rate=PROBE_RATE, validations=PROBE_EPOCHS)
        recipe = replace(recipe, train=train, epochs=PROBE_EPOCHS, bridge_rate=1.0)
        vectors = self.vectors(System.encoder, plain)
        return self.task_step(System.encoder, plain, ObjectiveKind.probe, recipe, vectors=vectors)

    def model(self, system: System) -> Step:
        """The model that answers for a baseline."""
        if system is System.encoder:
            return self.encoder
        return self.unaligned if system is System.unaligned else self.teacher

    def task_step(
        self,
        system: System,
        start: Step,
        goal: ObjectiveKind,
        recipe: TrainingSettings,
        teacher: Step | None = None,
        vectors: Step | None = None,
    ) -> Step:
        given = self.training, self.task.labels, self.run.source, teacher, vectors
        return TaskStep(start, recipe, goal, *given, parts=self.parts(system), run_config=self.config)

    def recipe(self, trains_bridge: bool) -> TrainingSettings:
        scale, options = self.config.scale, self.options
        steps = scale.epochs, scale.max_steps, scale.max_length_tokens
        return TrainingSettings(self.config.train, *steps, trains_bridge, options.bridge_rate, options.head_bias)

    # The test, zero-shot

    def baselines(self, suite: Suite) -> dict[System, Step]:
        found, source, read_as = {}, self.run.source, self.read_as(suite.language)
        for system in (system for system in System if system.name in self.options.baselines):
            items = suite.items
            if system is System.translate_test:
                if suite.language == source or self.untranslated(read_as):
                    continue
                assert isinstance(items, Items)
                items = translated(items, self.run.mt, read_as, source)
            found[system] = self.answers(system, self.model(system), suite, items)
        return found

    def answers(self, system: System, model: Step, suite: Suite, items: Step | None = None) -> Step:
        translated = system is System.translate_test
        return ClassifyStep(
            model,
            self.config.scale.max_length_tokens,
            self.read_as(self.run.source if translated else suite.language),
            items or suite.items,
            parts=self.parts(system),
            task=suite.task.name,
            tested=suite.language,
        )

    # Shared by all systems

    def parts(self, system: System) -> Parts:
        given = self.config.encoder
        read = None if system in (System.llm, System.translate_test) else encoder.encoder_step(given)
        backbone = None if system is System.encoder else self.run.backbone
        return Parts(read, backbone, given.prefix, self.config.engine.precision, system)

    @cached_property
    def texts(self) -> Step:
        return english_texts.texts_step(self.config.text, self.config.scale.text_rows)

    @cached_property
    def training(self) -> Step:
        rows = self.config.scale.corpus_rows
        return training_step(self.task, self.run.source, rows, self.options.validation_rows)

    def vectors(self, system: System, model: Step) -> Step:
        limit, parts = self.config.scale.max_length_tokens, self.parts(system)
        return VectorsStep(model, limit, self.run.source, self.training, parts=parts, task=self.task.name)

    @property
    def encoder_languages(self) -> list[Language]:
        return [self.run.source, *map(self.read_as, self.run.targets)]

    def read_as(self, language: Language) -> Language:
        """The language to which `method.read_as` maps a language; raises InputError for a language not in the table."""
        others = {}
        for pair in self.options.read_as:
            one, colon, other = pair.partition(":")
            if not colon:
                raise InputError(
                    f"method.read_as=[{pair}] is no pair of languages; give two with a colon, as in [ug:kk]"
                )
            try:
                others[find(one.strip())] = find(other.strip())
            except ValueError as error:
                raise InputError(f"method.read_as=[{pair}]: {error}") from None
        return others.get(language, language)

    def untranslated(self, target: Language) -> str | None:
        """Why a language has no translate-test."""
        engine, pair = self.run.mt, (target.flores, self.run.source.flores)
        reason = engine.why_unsupported(*pair)
        if not reason and not engine.for_pair(*pair).is_external:
            reason = "leaves the backbone itself to translate; translator@mt=nllb_600m is one that can"
        return f"translate-test in {target.name}: {engine.name} {reason}." if reason else None


def _task(run: Run) -> ReadTask:
    """The task that the stack learns; raises InputError unless there is exactly one."""
    found = [task for task in run.tasks.values() if isinstance(task, ReadTask)]
    if len(found) != 1:
        which = f"{' and '.join(task.name for task in found)} are several" if found else "none of them is one"
        raise InputError(
            f"task={','.join(run.tasks) or '[]'}: a stack learns one task of classification or multiple choice, and "
            f"{which}; give mmlu_subject, xnli, nusax, americas_nli, kardes_nlu or belebele_mc"
        )
    return found[0]


def _check_wordless(name: str, options: MTStackConfig) -> None:
    """Raises InputError for options that need to know which words the encoder's tokens belong to."""
    least_squares = options.bridge.projection is Projection.least_squares
    wrong = {"bridge.projection=random": least_squares, "alignment.words=false": options.alignment.words}
    if fixes := " ".join(f"method.{fix}" for fix, needed in wrong.items() if needed):
        raise InputError(
            f"encoder={name} has a tokenizer that does not tell which words its tokens belong to; give {fixes}"
        )


SCHEMAS = {"mt_stack": MTStackConfig}
