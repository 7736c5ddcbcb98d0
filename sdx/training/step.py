"""Training as a step: from a mix of (prompt, response) rows and a backbone to a model in Hugging Face format."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from logging import getLogger
from typing import TYPE_CHECKING, Any

from sdx import InputError
from sdx.config import Config, Schedule, ShapeConfig, TrainConfig
from sdx.models.batches import Arithmetic
from sdx.models.work import ModelWork
from sdx.process import events
from sdx.process.ranks import is_main
from sdx.store.estimate import Estimate, Plan
from sdx.store.step import Step, Workspace, runtime
from sdx.text.lengths import TEMPLATE_TOKENS
from sdx.training import disk
from sdx.training.hardware import read_hardware
from sdx.training.layout import Setup, choose, describe, shortage
from sdx.training.memory import Layout
from sdx.training.tokens import Examples, Tokens

if TYPE_CHECKING:
    from sdx.training.objectives import Auxiliary

log = getLogger("sdx")


@dataclass(frozen=True)
class Beside:
    """Auxiliary batches, as an estimate needs them."""

    share: float
    """Of all optimizer steps."""
    rows: int
    """In a batch, from the `rows.jsonl` of each of `inputs`."""
    inputs: Sequence[Step]


@dataclass(frozen=True, eq=False)
class Train(Step):
    """A backbone trained on a mix. Publishes `model/` and `log.jsonl`.

    A method with an auxiliary objective has a subclass, with the data of that objective as fields.
    """

    mix: Step
    backbone: Step
    settings: Config = runtime()
    """The part that decides the model is in `config`."""

    name = "train"
    collective = True
    is_data = False
    trains = True

    @property
    def config(self) -> Mapping[str, Any]:
        scale = self.settings.scale
        decides = {
            "train": deciding(self.settings.train, validated=scale.validation_rows > 0),
            "precision": self.settings.engine.precision.value,
            "template": self.settings.backbone.template,
            "max_length_tokens": scale.max_length_tokens,
            "epochs": scale.epochs,
            "max_steps": scale.max_steps,
            "seed": self.settings.seed,
        }
        if scale.validation_rows:  # keys from before there were validation rows stay valid
            decides["validation_rows"] = scale.validation_rows
        return decides

    @property
    def derived(self) -> Mapping[str, Step]:
        return {"tokens": self.tokens}

    @cached_property
    def tokens(self) -> Step:
        """What `run` reads instead of the mix."""
        template, limit = self.settings.backbone.template, self.settings.scale.max_length_tokens
        return Tokens(self.mix, self.backbone, template, limit)

    @property
    def about(self) -> str:
        return f"{self.settings.train.adapter.value}, {self.settings.engine.name}"

    @property
    def beside(self) -> Beside | None:
        """The auxiliary batches, for an estimate."""
        return None

    def estimate(self, plan: Plan) -> Estimate:
        mix, scale, batch = plan.rows(self.mix), self.settings.scale, self.settings.train.batch_size
        example = min(mix.of("prompt") + mix.of("response") + TEMPLATE_TOKENS, scale.max_length_tokens)
        examples, steps = scale.epochs * mix.count, float(scale.epochs * math.ceil(mix.count / batch))
        own = 1 - self.beside.share if self.beside else 1.0  # of the steps, those on the mix
        if scale.max_steps and scale.max_steps < steps / own:
            steps, examples = scale.max_steps * own, scale.max_steps * own * batch
        trained = examples * example
        if self.beside:
            files = [plan.rows(step) for step in self.beside.inputs]
            tokens = sum(file.total for file in files) / max(sum(file.count for file in files), 1.0)
            trained += steps / own * self.beside.share * self.beside.rows * tokens
        work = ModelWork(
            loads=1,
            shape=plan.shape,
            trained=trained,
            steps=steps / own,
            context=example / 2,
            arithmetic=Arithmetic(self.settings.engine.precision, plan.on_gpus.engine.precision),
        )
        bound = plan.of(self.mix).bound
        return Estimate(mix.count, trained, work=work, bound=bound, units=work.steps, counts_as="trained")

    def auxiliary(self, work: Workspace, tokenizer: Any) -> "Auxiliary | None":
        """Batches of another objective, which alternate with those of the mix."""
        return None

    def run(self, work: Workspace) -> None:
        from sdx.models.backbone import load_tokenizer
        from sdx.models.shape import shape_in
        from sdx.training.loop import train
        from sdx.training.objectives import CausalLM
        from sdx.training.trainable import TrainableLM

        config, scale, model_dir = self.settings, self.settings.scale, work.inputs["backbone"] / "model"
        tokenizer = load_tokenizer(model_dir, config.backbone.template)
        usable = Examples(work.inputs["tokens"])
        examples, validation = usable.split(scale.validation_rows)
        if not examples:
            raise InputError(
                f"scale.validation_rows={scale.validation_rows} leaves nothing to train on: the mix has "
                f"{usable.groups} questions and sentence pairs; lower it or raise scale.corpus_rows"
            )
        shape = shape_in(model_dir)
        assert shape is not None, model_dir
        lengths = examples.lengths
        if auxiliary := self.auxiliary(work, tokenizer):
            lengths.extend(map(auxiliary.objective.tokens, auxiliary.examples))
        given = config.train, shape, lengths, scale.epochs, scale.max_steps, bool(validation)
        summary: dict[str, Any] = train(
            trainable=TrainableLM(model_dir, tokenizer),
            objective=CausalLM(pad_id=tokenizer.pad_token_id),
            examples=examples,
            out=work.dir,
            train=config.train,
            layout=layout_for(work, config, *given),
            epochs=scale.epochs,
            max_steps=scale.max_steps,
            seed=config.seed,
            on_log=events.trained,
            validation=validation,
            auxiliary=auxiliary,
        )
        work.counts.update(
            examples=len(examples),
            **({f"{auxiliary.name}_examples": len(auxiliary.examples)} if auxiliary else {}),
            **({"validation_examples": len(validation)} if validation else {}),
            too_long=usable.too_long,
            subsets=examples.subsets,
            **summary,
        )


def deciding(train: TrainConfig, validated: bool = False) -> dict[str, Any]:
    """The fields of `train` that decide the trained model, for a step's key.

    Args:
        validated: the model is selected by validation data.
    """
    values = asdict(train)
    for name in ("log_every_steps", "save_every_steps", "save_every_minutes"):
        del values[name]
    if not validated:
        del values["validations"]
    if train.schedule is Schedule.cosine:  # keys from before there were other schedules stay valid
        del values["schedule"]
    return values


def layout_for(
    work: Workspace,
    config: Config,
    train: TrainConfig,
    shape: ShapeConfig,
    lengths: Sequence[int],
    epochs: int,
    max_steps: int,
    validated: bool,
    whole: bool = True,
) -> Layout:
    """The layout for examples of these lengths on the hardware of this launch. Logs the layout and its memory, and a
    warning if memory or disk may not suffice.

    Args:
        validated, whole: see `disk.space`.

    Raises:
        InputError: the disk cannot suffice.
    """
    mean = sum(lengths) / len(lengths)
    tokens = mean * min(epochs * len(lengths), max_steps * train.batch_size or math.inf)
    setup = Setup(config.engine, train, shape, max(lengths), read_hardware())
    layout = choose(setup, mean * min(train.batch_size, len(lengths)), tokens)
    lack = disk.shortage(disk.space(shape, train, validated, whole), work.dir)
    if is_main():
        log.info("%-12s %s", "engine", describe(setup, layout))
        for reason in filter(None, (shortage(setup, layout), lack)):
            log.warning("%-12s %s", "engine", reason)
    return layout
