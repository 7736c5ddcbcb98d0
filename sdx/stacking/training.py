"""The trainings of a stack and its parts, each a step that runs the shared loop."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from sdx import InputError
from sdx.config import Config, ShapeConfig, TrainConfig
from sdx.languages import Language
from sdx.models import residency
from sdx.models.backbone import check_length
from sdx.models.loading import pretrained
from sdx.models.shape import shape_in
from sdx.process import events
from sdx.stacking.alignment_data import AlignmentData
from sdx.stacking.bridge import FIT
from sdx.stacking.encoder import context_tokens
from sdx.stacking.inference import text_examples
from sdx.stacking.parts import ObjectiveKind, PartsStep, directories
from sdx.stacking.vectors import SPLITS, Vectors
from sdx.stacking.work import cut, encoder_pass, lengths, llm_pass, one_pass
from sdx.store.estimate import Estimate, Plan, Work
from sdx.store.files import read_json, read_rows
from sdx.store.step import Step, Workspace, runtime
from sdx.training.step import deciding, layout_for

PROBE_STEP_S = 3e-3
"""One optimizer step of a head on stored vectors; measured on two cores."""
VALIDATION_TEXTS = 256
"""Texts of the alignment held out for validation; at most a tenth of all."""


@dataclass(frozen=True)
class TrainingSettings:
    """The options of a training."""

    train: TrainConfig
    epochs: int
    max_steps: int
    max_tokens: int
    """Longest text; longer ones are cut at the end."""
    trains_bridge: bool = True
    bridge_rate: float = 1.0
    """Factor on the learning rate of the bridge."""
    head_bias: bool = True

    @property
    def decides(self) -> dict[str, Any]:
        """What decides the trained model, as JSON."""
        decides = {**asdict(self), "train": deciding(self.train, validated=True)}
        if self.head_bias:  # in older caches every head had a bias
            del decides["head_bias"]
        return decides


@dataclass(frozen=True, eq=False)
class StackTraining(PartsStep):
    """Publishes `model/`, selected by validation data, and `log.jsonl`."""

    name: ClassVar[str] = "train"
    collective: ClassVar[bool] = True
    trains: ClassVar[bool] = True

    stack: Step
    """The stack, or part of one, to start from."""
    recipe: TrainingSettings
    goal: ObjectiveKind
    _: KW_ONLY
    run_config: Config = runtime()

    @property
    def config(self) -> Mapping[str, Any]:
        precision, seed = self.run_config.engine.precision.value, self.run_config.seed
        return {"goal": self.goal.value, **self.recipe.decides, "precision": precision, "seed": seed}

    @property
    def about(self) -> str:
        return f"{self.parts.system.value}, {self.goal.value}"

    @abstractmethod
    def read(self, plan: Plan) -> tuple[float, float, float, float]:
        """(texts trained on, texts held out, mean tokens of one by the LLM's tokenizer and by what reads it)."""

    def estimate(self, plan: Plan) -> Estimate:
        recipe, parts = self.recipe, self.parts
        count, held_out, own, read = self.read(plan)
        steps, examples = recipe.epochs * math.ceil(count / recipe.train.batch_size), recipe.epochs * count
        if recipe.max_steps and recipe.max_steps < steps:
            steps, examples = recipe.max_steps, recipe.max_steps * recipe.train.batch_size
        if self.goal is ObjectiveKind.probe:
            return Estimate(count, examples, work=Work(seconds=PROBE_STEP_S * steps), units=steps)
        scored = recipe.train.validations * held_out
        also = [one_pass(plan, parts, scored, own, read)]
        if parts.encoder and parts.backbone:
            also.append(encoder_pass(plan, examples, read))
        if self.goal is ObjectiveKind.alignment:  # the LLM alone is the teacher
            also += [llm_pass(plan, rows, own) for rows in (examples, scored)]
        trained = (llm_pass if parts.backbone else encoder_pass)(plan, 0, read)
        work = replace(trained, trained=examples * read, steps=steps, loads=1, also=tuple(also))
        return Estimate(count, work.trained, work=work, bound=True, units=steps, counts_as="trained")

    @abstractmethod
    def data(self, work: Workspace) -> tuple[Any, Sequence[Any], Sequence[Any]]:
        """The objective, the training examples and the validation examples."""

    def run(self, work: Workspace) -> None:
        from sdx.stacking.trainable import TrainableStack
        from sdx.training.loop import train

        residency.release()  # such as the teacher, which the step before has read with
        settings, config, parts = self.recipe, self.run_config, directories(work)
        trainable = TrainableStack(
            work.inputs["stack"] / "model",
            parts,
            self.goal,
            tuple(self.config.get("labels", ())),
            settings.bridge_rate if settings.trains_bridge else None,
            head_from=work.inputs["teacher"] / "model" if "teacher" in work.inputs else None,
            head_bias=settings.head_bias,
        )
        objective, examples, validation = self.data(work)
        _check_lengths(parts, settings.max_tokens)
        lengths = [objective.tokens(example) for example in examples]
        quantised = bool(read_json(work.inputs["stack"] / "model/config.json").get("quantised"))
        shape = _shape(parts, self.goal, quantised)
        given = settings.train, shape, lengths, settings.epochs, settings.max_steps, bool(validation)
        layout = layout_for(work, config, *given, whole=False)
        if layout.zero_stage == 3 and quantised:
            raise InputError("method.quantised=true: ZeRO-3 does not shard weights in 4 bits; give engine=zero2")
        stage = self.parts.system if self.goal is not ObjectiveKind.alignment else self.goal
        summary = train(
            trainable=trainable,
            objective=objective,
            examples=examples,
            out=work.dir,
            train=settings.train,
            layout=layout,
            epochs=settings.epochs,
            max_steps=settings.max_steps,
            seed=config.seed,
            on_log=partial(events.trained, stage=stage.name),  # for dashboards
            validation=validation,
        )
        work.counts.update(examples=len(examples), validation_examples=len(validation), **summary)


@dataclass(frozen=True, eq=False)
class AlignmentStep(StackTraining):
    """Stage 1: the stack learns the LLM's own vectors of English text."""

    tokens: Step
    """The texts; the last ones are for validation."""
    words: bool
    """Whether the error of words counts too."""

    @property
    def config(self) -> Mapping[str, Any]:
        return {**super().config, "words": self.words}

    def read(self, plan: Plan) -> tuple[float, float, float, float]:
        texts = plan.rows(self.tokens.inputs["texts"])
        held_out = min(VALIDATION_TEXTS, texts.count // 10)
        tokens = cut(texts.of("text"), self.recipe.max_tokens)
        return texts.count - held_out, held_out, tokens, tokens

    def data(self, work: Workspace) -> tuple[Any, Sequence[Any], Sequence[Any]]:
        from sdx.stacking.objectives import Alignment, Collator

        texts, fit = AlignmentData(work.inputs["tokens"]), read_json(work.inputs["stack"] / FIT)
        if self.words and not len(texts.words):
            raise InputError(
                "method.alignment.words=true needs tokenizers that know the characters of their tokens, and one of "
                "encoder and backbone does not; give method.alignment.words=false"
            )
        variances = fit["variance_sequences"], fit["variance_words"]
        objective = Alignment(Collator.of(directories(work)), variances, self.words)
        count = len(texts) - min(VALIDATION_TEXTS, len(texts) // 10)
        return objective, texts[:count], texts[count:]


@dataclass(frozen=True, eq=False)
class TaskStep(StackTraining):
    """Stage 2, or a baseline: the model learns the task."""

    training: Step
    """The labelled texts."""
    labels: Sequence[str]
    """Of classification; empty for multiple choice."""
    source: Language
    """The language of the labelled texts."""
    teacher: Step | None = None
    """In distillation: its head is copied."""
    vectors: Step | None = None
    """In distillation the teacher's; for a probe those of the model below the head."""

    @property
    def config(self) -> Mapping[str, Any]:
        return {**super().config, "labels": list(self.labels), "language": self.source.flores}

    @property
    def language(self) -> Language:
        return self.source

    def read(self, plan: Plan) -> tuple[float, float, float, float]:
        rows, held_out = plan.rows(self.training, "train.jsonl"), plan.rows(self.training, "validation.jsonl")
        tokens = lengths(plan, self.parts, rows, self.recipe.max_tokens, self.source, chooses=not self.labels)
        return rows.count, held_out.count, *tokens

    def data(self, work: Workspace) -> tuple[Any, Sequence[Any], Sequence[Any]]:
        from sdx.stacking.model import StackConfig, tokenizer_of
        from sdx.stacking.objectives import Classification, Collator, Distillation, Probe

        parts, limit = directories(work), self.recipe.max_tokens
        tokenizer = tokenizer_of(StackConfig.from_pretrained(work.inputs["stack"] / "model"), parts, self.source)
        rows = {split: read_rows(work.inputs["training"] / f"{split}.jsonl") for split in SPLITS}
        examples, validation = (text_examples(rows[split], tokenizer, limit, split) for split in SPLITS)
        if self.goal is ObjectiveKind.generation:
            return self._generation(parts, examples, validation)
        collator = Collator.of(parts)
        objective = Classification(collator)
        if self.vectors:
            stored = Vectors(work.inputs["vectors"])
            distils = self.goal is ObjectiveKind.distillation
            objective = Distillation(collator, stored, stored.variance) if distils else Probe(collator, stored)
        return objective, examples, validation

    def _generation(self, parts: Mapping[str, Path], *splits: Sequence[Any]) -> tuple[Any, Any, Any]:
        """The label's words follow the text, which the encoder reads, or without an encoder the LLM itself."""
        from transformers import AutoTokenizer

        from sdx.stacking.generation import cue_ids, label_ids
        from sdx.stacking.objectives import Collator, SoftPromptedLM
        from sdx.training.objectives import CausalLM, Example

        tokenizer, pad_id = pretrained(AutoTokenizer, parts["llm"]), Collator.of(parts).pad_id
        cue = cue_ids(tokenizer)
        answers = [[*cue, *label_ids(tokenizer, label)] for label in self.labels]

        def example(text: Any) -> Any:
            if "encoder" in parts:
                return replace(text, llm_ids=answers[text.label])
            return Example(text.id, [*text.input_ids, *answers[text.label]], len(text.input_ids) + len(cue))

        examples, validation = ([example(text) for text in split] for split in splits)
        objective = SoftPromptedLM(pad_id, len(cue)) if "encoder" in parts else CausalLM(pad_id)
        return objective, examples, validation


def _check_lengths(parts: Mapping[str, Path], max_tokens: int) -> None:
    """Raises InputError if texts may be longer than a part can read: parts would read different texts."""
    if "llm" in parts:
        check_length(parts["llm"], max_tokens)
    context = context_tokens(parts["encoder"]) if "encoder" in parts else None
    if context and max_tokens > context:
        raise InputError(
            f"texts of {max_tokens} tokens exceed the encoder's context of {context}; lower scale.max_length_tokens or "
            "method.alignment.max_length_tokens"
        )


def _shape(parts: Mapping[str, Path], goal: ObjectiveKind, quantised: bool) -> ShapeConfig:
    """The shape that memory is estimated by: the layers of the trained part, the weights of all parts, no logits."""
    shapes = {part: shape_in(path) or ShapeConfig() for part, path in parts.items()}
    weights = sum(shape.parameters for shape in shapes.values())
    if quantised and (llm := shapes.get("llm")):  # a quarter of 2 bytes each, except the embeddings
        weights -= (llm.parameters - llm.vocab_size * llm.hidden_size) * 3 // 4
    top = ShapeConfig(hidden_size=1) if goal is ObjectiveKind.probe else list(shapes.values())[-1]
    return replace(top, parameters=weights, vocab_size=0)
