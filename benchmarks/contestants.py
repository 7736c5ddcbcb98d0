"""sdx, TRL's SFTTrainer and transformers' Trainer on one job. Each function runs in a process of its own."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from benchmarks.measure import Clock, Job, isolated
from sdx.config import Adapter, EngineConfig, Optimizer, Precision
from sdx.training.layout import Setup, choose
from sdx.training.memory import Layout

IGNORED = -100
"""Label of a token that is not trained on, in transformers and TRL."""


class Measured(Exception):
    """Ends a training whose measured steps are done, so that no model is written."""


def sdx(job: dict[str, Any], engine: Mapping[str, Any]) -> dict[str, Any]:
    """`sdx.training.loop.train`, laid out as for a long training.

    Args:
        job: a `Job`.
        engine: fields of `EngineConfig`; what is not given is chosen as in every run of sdx.

    Returns:
        `Clock.result`, and `loss`: of the last step; `isolated`: whether an example is blind to its neighbours;
        `weights`: what the optimizer updates; `layout`: fields of `Layout`.
    """
    import torch
    from accelerate.utils import send_to_device
    from transformers import AutoTokenizer

    from sdx.training import loop
    from sdx.training.engine import update
    from sdx.training.objectives import CausalLM, Example
    from sdx.training.trainable import TrainableLM

    wanted = Job(**job)
    config = wanted.train_config()
    layout = _layout(wanted, engine)
    examples = [Example(str(n), **row) for n, row in enumerate(wanted.rows())]
    tokenizer = AutoTokenizer.from_pretrained(wanted.model_dir, trust_remote_code=False)
    clock = Clock()
    updates = count(1)
    result: dict[str, Any] = {}

    class Watched(CausalLM):
        """Sees each micro-batch as the loop asks for it, and keeps the engine's model."""

        model: Any = None

        def collate(self, examples: Sequence[Example], packed: bool) -> dict[str, Any]:
            if self.model is None:
                clock.lap()
            self.packed = packed
            batch = super().collate(examples, packed)
            clock.count(sum(len(example.input_ids) for example in examples), batch["inputs"]["input_ids"].numel())
            return batch

        def loss(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
            self.model = model
            return super().loss(model, batch)

        def second(self, first: list[int], second: list[int]) -> float:
            """The second's loss: no token of the first is a target."""
            pair = [Example("first", first, len(first)), Example("second", second, 1)]
            batch = send_to_device(super().collate(pair, self.packed), self.model.device)
            torch.manual_seed(0)  # adapters have dropout
            with torch.no_grad():
                return float(self.loss(self.model, batch)[0])

    objective = Watched(pad_id=tokenizer.pad_token_id)

    def timed(*arguments: Any) -> Any:
        """The loop's own, which ends an optimizer step: its log lines come a step late."""
        norm = update(*arguments)
        if next(updates) in (wanted.warmup_steps, wanted.warmup_steps + wanted.steps):
            clock.lap()
        return norm

    def on_log(row: dict[str, Any]) -> None:
        if row["step"] == wanted.warmup_steps + wanted.steps:
            result.update(clock.result(), loss=row["loss"], isolated=isolated(objective.second))
            raise Measured

    with TemporaryDirectory() as out, mock.patch.object(loop, "update", timed), suppress(Measured):
        loop.train(
            trainable=TrainableLM(Path(wanted.model_dir), tokenizer),
            objective=objective,
            examples=examples,
            out=Path(out),
            train=config,
            layout=layout,
            epochs=1,
            max_steps=wanted.warmup_steps + wanted.steps,
            seed=wanted.seed,
            on_log=on_log,
        )
    weights = "bf16 with an fp32 copy" if layout.precision is Precision.bf16 else "fp32"
    return result | {"weights": weights, "layout": asdict(layout)}


def _layout(job: Job, engine: Mapping[str, Any]) -> Layout:
    from sdx.models.shape import shape_in
    from sdx.training.hardware import read_hardware

    shape = shape_in(Path(job.model_dir))
    assert shape
    lengths = [len(row["input_ids"]) for row in job.rows()]
    batch_tokens = job.batch_size * sum(lengths) / len(lengths)
    given = EngineConfig(**{"name": "auto", "precision": Precision.bf16, "micro_batch_tokens": job.tokens, **engine})
    setup = Setup(given, job.train_config(), shape, max(lengths), read_hardware())
    return choose(setup, batch_tokens, math.inf)


def trl(job: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """TRL's SFTTrainer, which loads the model itself.

    Args:
        options: fields of `SFTConfig`; `max_length` is given the job's pack where `packing` is on.

    Returns:
        What `sdx` returns.
    """
    from trl import SFTConfig, SFTTrainer, pack_dataset

    wanted = Job(**job)
    dataset = _dataset(wanted)
    rows = len(dataset)
    given = dict(options)
    if given.get("packing"):
        given.setdefault("max_length", wanted.tokens)
        rows = len(pack_dataset(dataset, given["max_length"], "bfd"))
    with TemporaryDirectory() as out:
        config = SFTConfig(**_arguments(wanted, given, rows / len(dataset), out))
        trainer = _counting(SFTTrainer)(
            model=wanted.model_dir, args=config, train_dataset=dataset, peft_config=_adapters(wanted)
        )
        return _run(trainer, wanted, packed=config.packing)


def hf(job: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """transformers' Trainer with a collator that pads to the longest example of a micro-batch.

    Args:
        options: fields of `TrainingArguments`.

    Returns:
        What `sdx` returns.
    """
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    wanted = Job(**job)
    tokenizer = AutoTokenizer.from_pretrained(wanted.model_dir, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(wanted.model_dir, trust_remote_code=False)
    if adapters := _adapters(wanted):
        model = get_peft_model(model, adapters)
    with TemporaryDirectory() as out:
        trainer = _counting(Trainer)(
            model=model,
            args=TrainingArguments(**_arguments(wanted, {"bf16": True, **options}, 1.0, out)),
            train_dataset=_dataset(wanted),
            data_collator=DataCollatorForSeq2Seq(tokenizer),
        )
        return _run(trainer, wanted, packed=False)


def _dataset(job: Job) -> Any:
    from datasets import Dataset

    examples = [(row["input_ids"], row["prompt_tokens"]) for row in job.rows()]
    return Dataset.from_list(
        [{"input_ids": ids, "labels": [IGNORED] * prompt + ids[prompt:]} for ids, prompt in examples]
    )


def _arguments(job: Job, options: Mapping[str, Any], rows_per_example: float, out: str) -> dict[str, Any]:
    """What the comparison decides, and the trainer's defaults and `options` for the rest.

    Args:
        rows_per_example: below 1 where the trainer packs several examples into a row.
    """
    import torch

    train = job.train_config()
    micro = options.get("per_device_train_batch_size", DEFAULT_MICRO_BATCH)
    return {
        "output_dir": out,
        "max_steps": job.warmup_steps + job.steps,
        "gradient_accumulation_steps": max(1, round(job.batch_size * rows_per_example / micro)),
        "per_device_train_batch_size": min(micro, job.batch_size),
        "learning_rate": train.learning_rate,
        "seed": job.seed,
        "logging_steps": 1,  # sdx logs every step too
        "use_cpu": not torch.cuda.is_available(),
        **({"optim": "adamw_bnb_8bit"} if train.optimizer is Optimizer.adamw_8bit else {}),
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        **{key: value for key, value in options.items() if key != "per_device_train_batch_size"},
    }


DEFAULT_MICRO_BATCH = 8


def _adapters(job: Job) -> Any:
    """The adapters that sdx puts on, or none."""
    from peft import LoraConfig

    train = job.train_config()
    if train.adapter is Adapter.full:
        return None
    return LoraConfig(
        r=train.lora_rank,
        lora_alpha=train.lora_alpha,
        lora_dropout=train.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _counting(trainer: type) -> Any:
    """The trainer, which also keeps how many tokens each micro-batch has, and how many positions."""

    class Counting(trainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
            mask = inputs.get("attention_mask")  # a batch without padding has none
            positions = inputs["input_ids"].numel()
            self.counted.append((positions, positions if mask is None else mask.sum()))
            return super().training_step(model, inputs, *rest)

    return Counting


def _run(trainer: Any, job: Job, packed: bool) -> dict[str, Any]:
    import torch
    from transformers import TrainerCallback

    clock = Clock()
    trainer.counted = []

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.lap()

        def on_step_end(self, _args: Any, state: Any, *_: Any, **__: Any) -> None:
            if state.global_step in (job.warmup_steps, job.warmup_steps + job.steps):
                for positions, useful in trainer.counted:
                    clock.count(int(useful), positions)
                trainer.counted.clear()
                clock.lap()

    def second(first: list[int], second: list[int]) -> float:
        """The second's loss: no token of the first is a target."""
        rows: list[dict[str, Any]]
        ignored = [IGNORED] * len(first)
        if packed:
            lengths = [len(first), len(second)]
            rows = [{"input_ids": first + second, "labels": ignored + second, "seq_lengths": lengths}]
        else:
            rows = [{"input_ids": first, "labels": ignored}, {"input_ids": second, "labels": second}]
        torch.manual_seed(0)
        with torch.no_grad(), trainer.compute_loss_context_manager():
            return float(trainer.compute_loss(trainer.model, trainer._prepare_inputs(trainer.data_collator(rows))))

    trainer.add_callback(Watch())
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    trained = next(weight for weight in trainer.model.parameters() if weight.requires_grad)
    weights = "fp32" if trained.dtype is torch.float32 else "bf16 alone"
    return clock.result() | {"loss": losses[-1], "weights": weights, "isolated": isolated(second)}
