"""A stack, or a part of one, as what the training loop trains."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils import SAFE_WEIGHTS_NAME

from sdx.config import TrainConfig
from sdx.models.loading import straight
from sdx.process.disk import sync
from sdx.process.ranks import is_main
from sdx.stacking.generation import StackForCausalLM
from sdx.stacking.model import (
    StackConfig,
    StackForMultipleChoice,
    StackForSequenceClassification,
    StackModel,
    is_trained,
)
from sdx.stacking.parts import Goal
from sdx.training.launch import RankErrors
from sdx.training.throughput import Cost
from sdx.training.trained_state import WEIGHT, TrainedState

HEAD, BRIDGE = "classifier.", "bridge."
HEADLESS = {Goal.alignment: StackModel, Goal.generation: StackForCausalLM}
"""Models without a head of their own: one gives vectors, one writes with the LLM's."""


@dataclass(frozen=True)
class TrainableStack:
    """What is trained of the model in `start`, see `sdx.training.trainable`.

    Args:
        start: directory of a stack, with adapters or without.
        parts: directories of its parts.
        labels: of classification, or of what is written; none for multiple choice and in the alignment.
        trains_bridge: whether `up_proj` is trained.
        bridge_rate: by what the learning rate of the bridge is multiplied.
        copied: directory of a model whose head is taken and stays as it is; none for a new one, which is trained.
        head_bias: whether the head has a bias.
    """

    start: Path
    parts: Mapping[str, Path]
    goal: Goal
    labels: tuple[str, ...] = ()
    trains_bridge: bool = False
    bridge_rate: float = 1.0
    copied: Path | None = None
    head_bias: bool = True

    @property
    def model(self) -> type[StackModel]:
        """The class of the model."""
        if self.goal in HEADLESS:
            return HEADLESS[self.goal]
        return StackForSequenceClassification if self.labels else StackForMultipleChoice

    def load(self, dtype: torch.dtype, train: TrainConfig) -> StackModel:
        config = StackConfig.from_pretrained(self.start)
        if self.labels:
            config.id2label = dict(enumerate(self.labels))
            config.label2id = {label: number for number, label in enumerate(self.labels)}
        config.head_bias, kind = self.head_bias, self.model
        device = straight() if config.quantised else {}  # 4 bits are laid out for the device that they are loaded to
        model = kind.from_pretrained(self.start, config=config, parts=self.parts, dtype=dtype, **device)
        if self.goal is not Goal.probe and config.lora is None:
            config.lora = {"rank": train.lora_rank, "alpha": train.lora_alpha, "dropout": train.lora_dropout}
            model.add_lora()
        if self.copied:
            theirs = load_file(self.copied / SAFE_WEIGHTS_NAME)
            model.load_state_dict({key: theirs[key] for key in theirs if key.startswith(HEAD)}, strict=False)
        for name, weight in model.named_parameters():
            weight.requires_grad_(self._trains(name))
        return model

    def _trains(self, name: str) -> bool:
        if name.startswith(HEAD):
            return self.copied is None
        return is_trained(name) and (self.trains_bridge or not name.startswith(BRIDGE))

    def llm(self, model: Any) -> nn.Module | None:
        found: nn.Module | None = model.llm
        return found

    def rate(self, name: str) -> float:
        return self.bridge_rate if name.startswith(BRIDGE) else 1.0

    def cost(self, model: Any) -> Cost:
        """Of a token: 4 FLOPs a weight of what has adapters, which has gradients but its frozen weights none, 2 of what
        only runs forward: encoder and teacher, each on its own tokens, taken to be as many. Embeddings are left out."""
        body = {"encoder": 0.0, "llm": 0.0}
        for kind in body:
            if (part := getattr(model, kind)) is not None:
                embedding = part.get_input_embeddings().weight
                sizes = (_weights(weight) for weight in part.parameters() if weight is not embedding)
                body[kind] = float(sum(sizes))
        if self.goal is Goal.probe:
            return Cost(0.0, 0.0)
        if self.goal is Goal.alignment:  # half of an example's tokens are the teacher's
            return Cost((4 * body["llm"] + 2 * body["llm"] + 2 * body["encoder"]) / 2, 0.0)
        return Cost(4 * body["llm"] + (4 if model.trains_encoder else 2) * body["encoder"], 0.0)

    def export(self, engine: Any, out: Path) -> None:
        """What was trained, in fp32 as the optimizer has it, and what belongs to it and was not."""
        model: StackModel = engine.module.model
        state = TrainedState(engine)
        weights: dict[str, Tensor] = {}
        for name, tensor in model.named_buffers():
            if is_trained(name):
                weights[name] = tensor.float().cpu()
        for name, weight in model.named_parameters():
            if is_trained(name):
                whole = state.read(name, WEIGHT) if weight.requires_grad else _gathered(engine, weight)
                if is_main():
                    weights[name] = whole.detach().float().to("cpu", copy=True).contiguous()
        errors = RankErrors()
        with errors.catch():
            if is_main():
                self._write(model, weights, out)
        errors.gather()

    def _write(self, model: StackModel, weights: dict[str, Tensor], out: Path) -> None:
        partial = out.with_name(f"{out.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        config = StackConfig(**{**model.config.to_dict(), "dtype": "bfloat16", "architectures": [type(model).__name__]})
        config.save_pretrained(partial)
        save_file(weights, partial / SAFE_WEIGHTS_NAME, metadata={"format": "pt"})
        for path in (*partial.iterdir(), partial):
            sync(path)
        shutil.rmtree(out, ignore_errors=True)
        os.replace(partial, out)
        sync(out.parent)


def _weights(weight: Any) -> int:
    """How many there are, of sharded weights in all, of weights in 4 bits two in a byte."""
    count = int(getattr(weight, "ds_numel", weight.numel()))
    return 2 * count if weight.dtype is torch.uint8 else count


def _gathered(engine: Any, weight: Any) -> Tensor:
    from sdx.training.quiet import deepspeed

    with deepspeed.zero.GatheredParameters([weight], enabled=engine.zero_optimization_partition_weights()):
        whole: Tensor = weight.detach().clone()
    return whole
