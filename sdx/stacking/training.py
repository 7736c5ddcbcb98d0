"""The trainings of a stack and of its parts, each as a step over the shared loop."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sdx import InputError
from sdx.config import Config, ShapeConfig, TrainConfig
from sdx.languages import Language
from sdx.models import residency
from sdx.process import events
from sdx.stacking.bridge import fitted
from sdx.stacking.parts import Goal, PartsStep, directories
from sdx.store.files import read_json, read_rows
from sdx.store.step import Step, Workspace, runtime

if TYPE_CHECKING:
    from sdx.stacking.trainable import TrainableStack

VALIDATION_TEXTS = 256
"""Of the alignment, not trained on; a tenth where there are few."""


@dataclass(frozen=True)
class Recipe:
    """A training's options.

    Args:
        max_tokens: longest text; a longer one loses its end.
        trains_bridge: whether the bridge's projection is trained.
        bridge_rate: by what the learning rate is multiplied for the bridge.
        head_bias: of a head on the vectors.
    """

    train: TrainConfig
    epochs: int
    max_steps: int
    max_tokens: int
    trains_bridge: bool = True
    bridge_rate: float = 1.0
    head_bias: bool = True

    @property
    def decides(self) -> dict[str, Any]:
        """What of it decides the model, as JSON."""
        from sdx.training.step import deciding

        decides = {**asdict(self), "train": deciding(self.train, validated=True)}
        if self.head_bias:  # the key is that of the time when every head had one
            del decides["head_bias"]
        return decides


@dataclass(frozen=True, eq=False)
class StackTraining(PartsStep):
    """Publishes `model/` and `log.jsonl`; the model is selected by validation data."""

    name: ClassVar[str] = "train"
    collective: ClassVar[bool] = True
    trains: ClassVar[bool] = True

    stack: Step
    """The stack to begin with, or one of its parts."""
    recipe: Recipe
    goal: Goal
    _: KW_ONLY
    run_config: Config = runtime()

    @property
    def config(self) -> Mapping[str, Any]:
        given = self.run_config
        shared = {"precision": given.engine.precision.value, "seed": given.seed}
        return {"goal": self.goal.value, **self.recipe.decides, **shared}

    @property
    def about(self) -> str:
        return f"{self.parts.system.value}, {self.goal.value}"

    @abstractmethod
    def trainable(self, work: Workspace) -> "TrainableStack":
        """What is trained."""

    @abstractmethod
    def data(self, work: Workspace) -> tuple[Any, Sequence[Any], Sequence[Any]]:
        """The objective, what is learnt from, and what is validated on."""

    def run(self, work: Workspace) -> None:
        from sdx.training.loop import train
        from sdx.training.step import layout_for

        residency.release()  # such as the teacher, whose vectors were the last thing to be made
        recipe, config, trainable = self.recipe, self.run_config, self.trainable(work)
        objective, examples, validation = self.data(work)
        _check_lengths(work, recipe.max_tokens)
        lengths = [objective.tokens(example) for example in examples]
        shape = _shape(work, self.goal)
        given = recipe.train, shape, lengths, recipe.epochs, recipe.max_steps, bool(validation)
        layout = layout_for(work, config, *given, whole=False)
        if layout.zero_stage == 3 and _quantised(work):
            raise InputError("method.quantised=true: ZeRO-3 does not shard weights in 4 bits; give engine=zero2")
        stage = self.goal.name if self.goal is Goal.alignment else self.parts.system.name  # for dashboards
        summary = train(
            trainable=trainable,
            objective=objective,
            examples=examples,
            out=work.dir,
            train=recipe.train,
            layout=layout,
            epochs=recipe.epochs,
            max_steps=recipe.max_steps,
            seed=config.seed,
            on_log=partial(events.trained, stage=stage),
            validation=validation,
        )
        work.counts.update(examples=len(examples), validation_examples=len(validation), **summary)


@dataclass(frozen=True, eq=False)
class AlignmentStep(StackTraining):
    """Stage 1: the stack that says of English what the LLM says."""

    tokens: Step
    """The texts, of which the last ones are for validation."""
    words: bool
    """Whether the error of words counts, too."""

    @property
    def config(self) -> Mapping[str, Any]:
        return {**super().config, "words": self.words}

    def trainable(self, work: Workspace) -> "TrainableStack":
        from sdx.stacking.trainable import TrainableStack

        bridge = self.recipe.trains_bridge, self.recipe.bridge_rate
        return TrainableStack(work.inputs["stack"] / "model", directories(work), self.goal, (), *bridge)

    def data(self, work: Workspace) -> tuple[Any, Sequence[Any], Sequence[Any]]:
        from sdx.stacking.objectives import Alignment
        from sdx.stacking.tokens import AlignmentTexts

        figures = fitted(work.inputs["stack"])
        objective = Alignment(_reader(work), (figures["variance_sequences"], figures["variance_words"]), self.words)
        directory = work.inputs["tokens"]
        texts = AlignmentTexts(directory)
        if self.words and not len(texts.words):
            raise InputError(
                "method.alignment.words=true needs tokenizers that know the characters of their tokens, and one of "
                "encoder and backbone does not; give method.alignment.words=false"
            )
        learnt = len(texts) - min(VALIDATION_TEXTS, len(texts) // 10)
        return (
            objective,
            AlignmentTexts(work.inputs["tokens"], 0, learnt),
            AlignmentTexts(work.inputs["tokens"], learnt),
        )


@dataclass(frozen=True, eq=False)
class TaskStep(StackTraining):
    """Stage 2, or a baseline: the model that answers the task."""

    training: Step
    """Labelled texts."""
    labels: Sequence[str]
    """Of classification; none for multiple choice."""
    source: Language
    """Of the labelled texts."""
    teacher: Step | None = None
    """Of distillation, whose head is copied."""
    vectors: Step | None = None
    """Of distillation the teacher's, of a probe those of the model that it is for."""

    @property
    def config(self) -> Mapping[str, Any]:
        return {**super().config, "labels": list(self.labels), "language": self.source.flores}

    @property
    def language(self) -> Language:
        return self.source

    def trainable(self, work: Workspace) -> "TrainableStack":
        from sdx.stacking.trainable import TrainableStack

        recipe = self.recipe
        return TrainableStack(
            work.inputs["stack"] / "model",
            directories(work),
            self.goal,
            tuple(self.labels),
            recipe.trains_bridge,
            recipe.bridge_rate,
            copied=work.inputs["teacher"] / "model" if self.teacher else None,
            head_bias=recipe.head_bias,
        )

    def data(self, work: Workspace) -> tuple[Any, Sequence[Any], Sequence[Any]]:
        from sdx.stacking.model import StackConfig, segments_of
        from sdx.stacking.objectives import Classification, Distillation, Probe
        from sdx.stacking.reader import examples
        from sdx.stacking.vectors import FILES, Vectors

        segments = segments_of(
            StackConfig.from_pretrained(work.inputs["stack"] / "model"), directories(work), self.source
        )
        rows = {name: read_rows(work.inputs["training"] / f"{name}.jsonl") for name in FILES}
        if self.goal is Goal.generation:
            return self._written(work, segments, rows)
        reader, objective = _reader(work), Classification(_reader(work))
        if self.vectors:
            stored = Vectors(work.inputs["vectors"])
            distils = self.goal is Goal.distillation
            objective = Distillation(reader, stored, stored.variance) if distils else Probe(reader, stored)
        learnt, held = (examples(its, segments, self.recipe.max_tokens, name) for name, its in rows.items())
        return objective, learnt, held

    def _written(self, work: Workspace, segments: Any, rows: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        from transformers import AutoTokenizer

        from sdx.models.loading import pretrained
        from sdx.stacking.generation import answer, cue
        from sdx.stacking.objectives import SoftPromptedLM
        from sdx.stacking.reader import written
        from sdx.training.objectives import CausalLM

        tokenizer, reader = pretrained(AutoTokenizer, directories(work)["llm"]), _reader(work)
        answers = [answer(tokenizer, label) for label in self.labels]
        given = segments, answers, cue(tokenizer), reader.stacked, self.recipe.max_tokens
        learnt, held = (written(its, *given, name) for name, its in rows.items())
        return (SoftPromptedLM if reader.stacked else CausalLM)(reader.pad_id), learnt, held


def _check_lengths(work: Workspace, max_tokens: int) -> None:
    """Raises InputError for texts that may be longer than a part reads: one would read less of them than the other."""
    from sdx.models.backbone import check_length
    from sdx.stacking.encoder import context_tokens

    parts = directories(work)
    if "llm" in parts:
        check_length(parts["llm"], max_tokens)
    context = context_tokens(parts["encoder"]) if "encoder" in parts else None
    if context and max_tokens > context:
        raise InputError(
            f"texts of {max_tokens} tokens exceed the encoder's context of {context}; lower scale.max_length_tokens or "
            "method.alignment.max_length_tokens"
        )


def _shape(work: Workspace, goal: Goal) -> ShapeConfig:
    """As memory is reckoned with: the layers of what is trained on top of both parts' weights, and no logits."""
    from sdx.models.shape import shape_in

    shapes = {part: shape_in(path) or ShapeConfig() for part, path in directories(work).items()}
    weights = sum(shape.parameters for shape in shapes.values())
    if "llm" in shapes and _quantised(work):  # a quarter of 2 bytes each, but for the embeddings
        llm = shapes["llm"]
        weights -= (llm.parameters - llm.vocab_size * llm.hidden_size) * 3 // 4
    top = ShapeConfig(hidden_size=1) if goal is Goal.probe else list(shapes.values())[-1]
    return replace(top, parameters=weights, vocab_size=0)


def _quantised(work: Workspace) -> bool:
    return bool(read_json(work.inputs["stack"] / "model/config.json").get("quantised"))


def _reader(work: Workspace) -> Any:
    """How texts are collated for the parts that a step was given."""
    from sdx.stacking.objectives import Reader

    parts = directories(work)
    pads = {part: _pad_id(path) for part, path in parts.items()}
    return Reader("encoder" in parts, "llm" in parts, pads[next(iter(parts))], pads.get("llm", 0))


def _pad_id(model_dir: Path) -> int:
    return int(read_json(model_dir / "config.json").get("pad_token_id") or 0)
