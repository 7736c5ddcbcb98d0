"""The trainings of a stack and of its parts, each as a step over the shared loop."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdx import InputError
from sdx.config import Config, ShapeConfig, TrainConfig
from sdx.languages import Language
from sdx.models import residency
from sdx.process import events
from sdx.stacking.bridge import fitted
from sdx.stacking.parts import Parts, directories
from sdx.store.files import read_json, read_rows
from sdx.store.step import PlainStep, Step, Workspace

if TYPE_CHECKING:
    from sdx.stacking.trainee import StackTrainee

VALIDATION_TEXTS = 256
"""Of the alignment, not trained on; a tenth where there are few."""
VERSION = 1


class Goal(str, Enum):
    """What a training on a task minimises, see `sdx.stacking.objectives`."""

    classification = "classification"
    distillation = "distillation"
    probe = "probe"
    """The head alone, on vectors that are there already."""
    generation = "generation"
    """The loss of the label's words, see `sdx.stacking.objectives`."""


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


def alignment_step(stack: Step, tokens: Step, parts: Parts, recipe: Recipe, words: bool, config: Config) -> Step:
    """Stage 1: publishes `model/`, the stack that says of English what the LLM says, and `log.jsonl`.

    Args:
        stack: the first stack.
        tokens: the texts, of which the last ones are for validation.
        words: whether the error of words counts, too.
    """
    run = partial(_align, recipe=recipe, words=words, config=config)
    decides = {"goal": "alignment", "words": words, **_shared(recipe, config)}
    inputs = {"stack": stack, "tokens": tokens, **parts.inputs}
    return PlainStep("train", run, decides, inputs, VERSION, collective=True)


def task_step(
    start: Step,
    training: Step,
    parts: Parts,
    goal: Goal,
    labels: Sequence[str],
    source: Language,
    recipe: Recipe,
    config: Config,
    teacher: Step | None = None,
    vectors: Step | None = None,
) -> Step:
    """Stage 2, or a baseline: publishes `model/`, which answers the task, and `log.jsonl`.

    Args:
        start: the stack to begin with, or one of its parts.
        training: labelled texts in `source`.
        labels: of classification; none for multiple choice.
        teacher: of distillation, whose head is copied.
        vectors: of distillation the teacher's, of a probe those of the model that it is for.
    """
    run = partial(_learn, goal=goal, labels=tuple(labels), source=source, recipe=recipe, config=config)
    decides = {"goal": goal.value, "labels": list(labels), "language": source.flores, **_shared(recipe, config)}
    more = {name: step for name, step in (("teacher", teacher), ("vectors", vectors)) if step}
    inputs = {"stack": start, "training": training, **more, **parts.inputs}
    return PlainStep("train", run, decides, inputs, VERSION, collective=True)


def _shared(recipe: Recipe, config: Config) -> dict[str, Any]:
    return {**recipe.decides, "precision": config.engine.precision.value, "seed": config.seed}


def _align(work: Workspace, recipe: Recipe, words: bool, config: Config) -> None:
    from sdx.stacking.objectives import Alignment
    from sdx.stacking.tokens import AlignmentTexts
    from sdx.stacking.trainee import Passes, StackTrainee

    figures = fitted(work.inputs["stack"])
    texts = len(AlignmentTexts(work.inputs["tokens"]))
    held_out = min(VALIDATION_TEXTS, texts // 10)
    trainee = StackTrainee(
        work.inputs["stack"] / "model",
        directories(work),
        None,
        recipe.trains_bridge,
        recipe.bridge_rate,
        Passes.teacher,
    )
    objective = Alignment(_reader(work), (figures["variance_sequences"], figures["variance_words"]), words)
    learnt, held = (
        AlignmentTexts(work.inputs["tokens"], *some) for some in ((0, texts - held_out), (texts - held_out, texts))
    )
    if words and not len(learnt.words):
        raise InputError(
            "method.alignment.words=true needs tokenizers that know the characters of their tokens, and one of "
            "encoder and backbone does not; give method.alignment.words=false"
        )
    _train(work, trainee, objective, learnt, held, recipe, config)


def _learn(
    work: Workspace,
    goal: Goal,
    labels: tuple[str, ...],
    source: Language,
    recipe: Recipe,
    config: Config,
) -> None:
    from sdx.stacking.model import StackConfig, segments_of
    from sdx.stacking.objectives import Classification, Distillation, Probe
    from sdx.stacking.reader import examples
    from sdx.stacking.trainee import Head, Passes, StackTrainee
    from sdx.stacking.vectors import FILES, Vectors

    taught = work.inputs["teacher"] / "model" if "teacher" in work.inputs else None
    head = Head(labels, taught, writes=goal is Goal.generation, bias=recipe.head_bias)
    start = work.inputs["stack"] / "model"
    passes = Passes.head if goal is Goal.probe else Passes.student
    trainee = StackTrainee(start, directories(work), head, recipe.trains_bridge, recipe.bridge_rate, passes)
    segments = segments_of(StackConfig.from_pretrained(start), directories(work), source)
    rows = {name: read_rows(work.inputs["training"] / f"{name}.jsonl") for name in FILES}
    if goal is Goal.generation:
        _train(work, trainee, *_written(work, segments, rows, labels, recipe), recipe, config)
        return
    learnt, held = (examples(rows[name], segments, recipe.max_tokens, name) for name in FILES)
    reader = _reader(work)
    objective: Any = Classification(reader)
    if "vectors" in work.inputs:
        stored = Vectors(work.inputs["vectors"])
        objective = (
            Distillation(reader, stored, stored.variance) if goal is Goal.distillation else Probe(reader, stored)
        )
    _train(work, trainee, objective, learnt, held, recipe, config)


def _written(
    work: Workspace, segments: Any, rows: dict[str, Any], labels: Sequence[str], recipe: Recipe
) -> tuple[Any, Any, Any]:
    """Objective, training data and validation data of generation."""
    from transformers import AutoTokenizer

    from sdx.models.loading import pretrained
    from sdx.stacking.generation import answer, cue
    from sdx.stacking.objectives import SoftPromptedLM
    from sdx.stacking.reader import written
    from sdx.stacking.vectors import FILES
    from sdx.training.objectives import CausalLM

    tokenizer = pretrained(AutoTokenizer, directories(work)["llm"])
    answers = [answer(tokenizer, label) for label in labels]
    reader = _reader(work)
    given = (segments, answers, cue(tokenizer), reader.stacked, recipe.max_tokens)
    learnt, held = (written(rows[name], *given, name) for name in FILES)
    return (SoftPromptedLM if reader.stacked else CausalLM)(reader.pad_id), learnt, held


def _train(
    work: Workspace,
    trainee: "StackTrainee",
    objective: Any,
    examples: Sequence[Any],
    validation: Sequence[Any],
    recipe: Recipe,
    config: Config,
) -> None:
    from sdx.training.loop import train
    from sdx.training.step import layout_for

    residency.release()  # such as the teacher, whose vectors were the last thing to be made
    _check_lengths(work, recipe.max_tokens)
    lengths = [objective.tokens(example) for example in examples]
    given = recipe.train, _shape(work, trainee), lengths, recipe.epochs, recipe.max_steps, bool(validation)
    layout = layout_for(work, config, *given, whole=False)
    if layout.zero_stage == 3 and _quantised(work):
        raise InputError("method.quantised=true: ZeRO-3 does not shard weights in 4 bits; give engine=zero2")
    summary = train(
        trainee=trainee,
        objective=objective,
        examples=examples,
        out=work.dir,
        train=recipe.train,
        layout=layout,
        epochs=recipe.epochs,
        max_steps=recipe.max_steps,
        seed=config.seed,
        on_log=partial(events.trained, stage=_stage(work)),
        validation=validation,
    )
    work.counts.update(examples=len(examples), validation_examples=len(validation), **summary)


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


def _stage(work: Workspace) -> str:
    """The training's name among those of a cell, for dashboards."""
    parts = directories(work)
    if "tokens" in work.inputs:
        return "alignment"
    if len(parts) == 1:
        return next(iter(parts))
    return "unaligned" if work.inputs["stack"].parent.name == "stack" else "stack"


def _shape(work: Workspace, trainee: "StackTrainee") -> ShapeConfig:
    """As memory is reckoned with: the layers of what is trained on top of both parts' weights, and no logits."""
    from sdx.models.shape import shape_in
    from sdx.stacking.trainee import Passes

    shapes = {part: shape_in(path) or ShapeConfig() for part, path in directories(work).items()}
    weights = sum(shape.parameters for shape in shapes.values())
    if "llm" in shapes and _quantised(work):  # a quarter of 2 bytes each, but for the embeddings
        llm = shapes["llm"]
        weights -= (llm.parameters - llm.vocab_size * llm.hidden_size) * 3 // 4
    top = shapes.get("llm", shapes.get("encoder"))
    if top is None or trainee.passes is Passes.head:
        top = ShapeConfig(hidden_size=1)
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
