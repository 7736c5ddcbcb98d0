"""The causal LM as what is trained: its own weights, or LoRA adapters that are merged into the export."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from sdx.config import Adapter, TrainConfig
from sdx.models.loading import pretrained
from sdx.training.export import export
from sdx.training.quiet import deepspeed
from sdx.training.throughput import Cost


class CausalTrainee:
    """The causal LM in `model_dir`, a `Trainee`; its tokenizer is written beside the trained model."""

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
    # The optimizer keeps an fp32 copy anyway; ZeRO wants one dtype in all weights.
    adapted: nn.Module = get_peft_model(model, lora, autocast_adapter_dtype=False)
    return adapted
