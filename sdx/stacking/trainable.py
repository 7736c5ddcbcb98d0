"""A stack, or a part of one, as the model that the training loop trains."""

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
from sdx.models.loading import gpu_options
from sdx.process.ranks import is_main
from sdx.stacking.generation import StackForCausalLM
from sdx.stacking.model import (
    BRIDGE,
    HEAD,
    StackConfig,
    StackForMultipleChoice,
    StackForSequenceClassification,
    StackModel,
    is_trained,
)
from sdx.stacking.parts import ObjectiveKind
from sdx.training.checkpoints import publish
from sdx.training.launch import RankErrors
from sdx.training.quiet import deepspeed
from sdx.training.throughput import Cost
from sdx.training.trained_state import WEIGHT, TrainedState


@dataclass(frozen=True)
class TrainableStack:
    """Trains the model in `start`, see `sdx.training.trainable`."""

    start: Path
    """Directory of a stack, with or without adapters."""
    parts: Mapping[str, Path]
    """Directories of its parts."""
    goal: ObjectiveKind
    labels: tuple[str, ...] = ()
    """Of classification, or of the texts that are written; empty for multiple choice and in the alignment."""
    bridge_rate: float | None = None
    """Factor on the learning rate of `up_proj`; None: it is not trained."""
    head_from: Path | None = None
    """Directory of a model whose head is copied and frozen; None: a new head is trained."""
    head_bias: bool = True

    @property
    def model_class(self) -> type[StackModel]:
        if self.goal is ObjectiveKind.alignment:
            return StackModel
        if self.goal is ObjectiveKind.generation:
            return StackForCausalLM
        return StackForSequenceClassification if self.labels else StackForMultipleChoice

    def load(self, dtype: torch.dtype, train: TrainConfig) -> StackModel:
        config = StackConfig.from_pretrained(self.start)
        if self.labels:
            config.id2label = dict(enumerate(self.labels))
            config.label2id = {label: number for number, label in enumerate(self.labels)}
        config.head_bias = self.head_bias
        device = gpu_options() if config.quantised else {}  # 4-bit weights are laid out for the device they go to
        model = self.model_class.from_pretrained(self.start, config=config, parts=self.parts, dtype=dtype, **device)
        if self.goal is not ObjectiveKind.probe and config.lora is None:
            config.lora = {"rank": train.lora_rank, "alpha": train.lora_alpha, "dropout": train.lora_dropout}
            model.add_lora()
        if self.head_from:
            stored = load_file(self.head_from / SAFE_WEIGHTS_NAME)
            model.load_state_dict({name: stored[name] for name in stored if name.startswith(HEAD)}, strict=False)
        for name, weight in model.named_parameters():
            frozen = (name.startswith(HEAD) and self.head_from) or (name.startswith(BRIDGE) and not self.bridge_rate)
            weight.requires_grad_(is_trained(name) and not frozen)
        return model

    def llm(self, model: Any) -> nn.Module | None:
        llm: nn.Module | None = model.llm
        return llm

    def rate(self, name: str) -> float:
        return self.bridge_rate if self.bridge_rate and name.startswith(BRIDGE) else 1.0

    def cost(self, model: Any) -> Cost:
        """FLOPs per token and weight: 4 of the part with adapters (gradients pass through it, its weights get none), 2
        of parts that only run forward: encoder and teacher, each on its own tokens, assumed to be equally many.
        Embeddings are left out."""
        if self.goal is ObjectiveKind.probe:
            return Cost(0.0, 0.0)
        encoder, llm = _size(model.encoder), _size(model.llm)
        if self.goal is ObjectiveKind.alignment:  # half of an example's tokens are the teacher's
            return Cost((4 * llm + 2 * llm + 2 * encoder) / 2, 0.0)
        return Cost(4 * llm + (4 if model.trains_encoder else 2) * encoder, 0.0)

    def export(self, engine: Any, out: Path) -> None:
        """Writes adapters, bridge and head in fp32, trained ones as the optimizer has them."""
        model: StackModel = engine.module.model
        state, sharded = TrainedState(engine), engine.zero_optimization_partition_weights()
        weights: dict[str, Tensor] = {}
        for name, tensor in model.state_dict(keep_vars=True).items():
            if is_trained(name):
                with deepspeed.zero.GatheredParameters([tensor], enabled=sharded and not tensor.requires_grad):
                    whole = state.read(name, WEIGHT) if tensor.requires_grad else tensor
                    if is_main():
                        weights[name] = whole.detach().float().to("cpu", copy=True).contiguous()
        errors = RankErrors()
        with errors.catch():
            if is_main():
                partial, named = out.with_name(f"{out.name}.partial"), {"architectures": [type(model).__name__]}
                shutil.rmtree(partial, ignore_errors=True)
                StackConfig(**{**model.config.to_dict(), "dtype": "bfloat16", **named}).save_pretrained(partial)
                save_file(weights, partial / SAFE_WEIGHTS_NAME, metadata={"format": "pt"})
                publish(partial, out)
        errors.gather()


def _size(part: Any) -> float:
    """Weights of a part without its input embeddings; sharded ones count whole, and a byte holds two in 4 bits."""
    if part is None:
        return 0.0
    embedding = part.get_input_embeddings().weight
    weights = (weight for weight in part.parameters() if weight is not embedding)
    return float(sum(getattr(w, "ds_numel", w.numel()) * (2 if w.dtype is torch.uint8 else 1) for w in weights))
