"""From the engine's weights to a directory that `from_pretrained` loads."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from sdx.config import Adapter, TrainConfig
from sdx.ranks import is_main
from sdx.training.engine import with_adapters
from sdx.training.quiet import deepspeed, silence


def gather(engine: deepspeed.DeepSpeedEngine) -> dict[str, Tensor]:
    """The trained weights by their names in the model, on rank 0's CPU; nothing on the other ranks.

    Sharded weights are gathered one module at a time: no device ever holds the whole model.
    """
    weights: dict[str, Tensor] = {}
    seen: set[Tensor] = set()
    for prefix, module in engine.module.model.named_modules():
        own = {name: weight for name, weight in module.named_parameters(recurse=False) if weight.requires_grad}
        own = {name: weight for name, weight in own.items() if weight not in seen}
        seen.update(own.values())
        sharded = engine.zero_optimization_partition_weights()
        with deepspeed.zero.GatheredParameters(list(own.values()), enabled=sharded):
            if is_main():
                for name, weight in own.items():
                    weights[f"{prefix}.{name}" if prefix else name] = weight.detach().to("cpu", copy=True)
    return weights


def export(weights: dict[str, Tensor], model_dir: Path, tokenizer: Any, out: Path, train: TrainConfig) -> None:
    """Writes `model_dir` with the trained weights to `out`, in bf16, adapters merged; all of it or nothing.

    The model is loaded afresh, so nothing of the engine is left in it.
    """
    lora = train.adapter is Adapter.lora
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with silence():
        # bf16 would round away most of an adapter's small change: merge in fp32.
        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32 if lora else torch.bfloat16)
        if lora:
            model = with_adapters(model, train)
        unknown = model.load_state_dict(weights, strict=False).unexpected_keys
        assert not unknown, unknown
        if lora:
            model = model.merge_and_unload()
        model.to(torch.bfloat16).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(partial, out)
