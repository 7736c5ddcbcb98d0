"""The model that is trained: how it is loaded, what learns how fast, what it costs and how it is written."""

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from sdx.config import Adapter, TrainConfig
from sdx.models.loading import pretrained
from sdx.training.export import export
from sdx.training.quiet import deepspeed
from sdx.training.throughput import Cost


class TrainableModel(Protocol):
    """A model on disk that the loop trains. The loop knows this protocol and no architecture."""

    def load(self, dtype: torch.dtype, train: TrainConfig) -> nn.Module:
        """The model with its adapters; what has `requires_grad` is trained.

        Called on every rank, with the same random state, inside ZeRO-3's sharded loading.
        """

    def llm(self, model: nn.Module) -> Any:
        """The part that may take packs and is compiled and checkpointed: a transformers model that takes ids, and
        perhaps embeddings. None if there is no such part.
        """

    def rate(self, name: str) -> float:
        """Factor of the learning rate of a trained parameter, above 0, by the parameter's name in the model."""

    def cost(self, model: nn.Module) -> Cost:
        """FLOPs of training. Sharded weights count whole."""

    def export(self, engine: deepspeed.DeepSpeedEngine, out: Path) -> None:
        """Replaces `out` by the model as it is now, completely or not at all. Called on every rank."""


class TrainableLM:
    """The causal LM in `model_dir`; its tokenizer is written beside the trained model."""

    def __init__(self, model_dir: Path, tokenizer: Any) -> None:
        self.model_dir = model_dir
        self.tokenizer = tokenizer

    def load(self, dtype: torch.dtype, train: TrainConfig) -> nn.Module:
        model: nn.Module = pretrained(AutoModelForCausalLM, self.model_dir, dtype=dtype)
        return with_adapters(model, train) if train.adapter is Adapter.lora else model

    def llm(self, model: nn.Module) -> nn.Module:
        return model

    def rate(self, name: str) -> float:
        return 1.0

    def cost(self, model: nn.Module) -> Cost:
        return Cost.of(model)

    def export(self, engine: deepspeed.DeepSpeedEngine, out: Path) -> None:
        export(engine, self.tokenizer, out)


def with_adapters(model: nn.Module, train: TrainConfig) -> nn.Module:
    """Freezes the model and puts LoRA on all its linear layers but the head, in the model's own dtype."""
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(
        r=train.lora_rank,
        lora_alpha=train.lora_alpha,
        lora_dropout=train.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    # ZeRO wants one dtype in all weights; the optimizer keeps an fp32 copy.
    adapted: nn.Module = get_peft_model(model, lora, autocast_adapter_dtype=False)
    return adapted
