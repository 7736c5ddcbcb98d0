"""From the live engine to a directory that `from_pretrained` loads; no rank ever holds the whole model."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from sdx.process.ranks import is_main, rank, world_size
from sdx.store.files import write_json
from sdx.training.checkpoints import publish
from sdx.training.launch import RankErrors
from sdx.training.quiet import deepspeed, silence

SHARD_BYTES = 2 * 10**9
DTYPE = torch.bfloat16


@torch.no_grad()
def export(engine: deepspeed.DeepSpeedEngine, tokenizer: Any, out: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Writes the trained model to `out` in bf16, with merged adapters, completely or not at all. Called on every rank.

    Writing takes longest, so each rank writes every n-th shard, all at the same time. A rank holds one shard in the
    CPU's memory and, on the device, the weights of one module beside what it trains with.

    Args:
        out: the same directory for all ranks; its content is replaced at the end.
        shard_bytes: largest size of a shard, unless a single layer is larger.

    Raises:
        RuntimeError: another rank failed, with its message; that rank raises its own error.
    """
    model = _plain(engine.module.model)
    layers = _layers(model)
    sizes = {}
    for layer, parts in layers.items():
        weights = [weight for part in parts for weight in part.weights.values()]
        size = sum(getattr(weight, "ds_numel", weight.numel()) * _dtype(weight).itemsize for weight in weights)
        sizes[layer] = torch.empty(size, dtype=torch.uint8, device="meta")
    plan = split_torch_state_dict_into_shards(sizes, max_shard_size=shard_bytes)
    files = list(plan.filename_to_tensors.items())
    weight_map: dict[str, str] = {}
    partial, errors = out.with_name(f"{out.name}.partial"), RankErrors()

    with errors.catch():
        if is_main():
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
    errors.gather()
    for first in range(0, len(files), world_size()):
        round_files = files[first : first + world_size()]
        shard: dict[str, Tensor] = {}
        for writer, (_, names) in enumerate(round_files):
            for name in names:
                shard |= _collect(model, layers[name], engine, writer, errors)
        with errors.catch():
            if shard:
                save_file(shard, partial / round_files[rank()][0], metadata={"format": "pt"})
        for (file, _), written in zip(round_files, errors.gather(list(shard)), strict=False):
            weight_map |= dict.fromkeys(written, file)
    with errors.catch():
        if is_main():
            if plan.is_sharded:
                write_json(partial / SAFE_WEIGHTS_INDEX_NAME, {"metadata": plan.metadata, "weight_map": weight_map})
            _describe(model, tokenizer, partial)
            publish(partial, out)
    errors.gather()


class _Part(NamedTuple):
    """A module and what it alone adds to the exported model."""

    module: nn.Module
    weights: dict[str, Tensor]
    """Parameters and persistent buffers by their names in the plain model; perhaps sharded."""


def _plain(model: Any) -> Any:
    """The transformers model inside torch.compile and PEFT."""
    model = getattr(model, "_orig_mod", model)
    model = model.get_base_model() if hasattr(model, "peft_config") else model
    # At stage 3 transformers notes conversions that it did not make; reverting them would change names.
    if (conversions := getattr(model, "_weight_conversions", None)) is not None:
        model._weight_conversions = [conversion for conversion in conversions if conversion.was_used()]
    return model


def _layers(model: Any) -> dict[str, list[_Part]]:
    """The model's parts by layer, such as `model.layers.0`; parts outside of layers are on their own.

    Weights that transformers fuses or splits are in the same layer.
    """
    tied = model.all_tied_weights_keys
    parts = dict(_parts(model))
    names: dict[Tensor, str] = {}  # one name for each weight: transformers reads the source of tied weights
    for part in parts.values():
        for name, weight in part.weights.items():
            if names.setdefault(weight, name) in tied:
                names[weight] = name
    layers: dict[str, list[_Part]] = {}
    for path, (module, weights) in parts.items():
        if weights := {name: weight for name, weight in weights.items() if names[weight] == name}:
            layer = re.match(r".*?\.\d+(?=\.|$)", path)
            layers.setdefault(layer[0] if layer else path, []).append(_Part(module, weights))
    return layers


def _parts(module: nn.Module, name: str = "") -> Iterator[tuple[str, _Part]]:
    """All modules by their names in the plain model; adapters are part of the module that they wrap."""
    module = getattr(module, "_orig_mod", module)
    plain: Any = module.get_base_layer() if _adapted(module) else module  # type: ignore[operator]
    weights: dict[str, Tensor] = dict(plain.named_parameters(name, recurse=False))
    for key, buffer in plain.named_buffers(name, recurse=False):
        if key.rpartition(".")[2] not in plain._non_persistent_buffers_set:
            weights[key] = buffer
    yield name, _Part(module, weights)
    for key, child in plain.named_children():
        yield from _parts(child, f"{name}.{key}" if name else key)


def _adapted(module: nn.Module) -> bool:
    """Whether the module has LoRA."""
    return hasattr(module, "get_delta_weight")


def _dtype(weight: Tensor) -> torch.dtype:
    return DTYPE if weight.is_floating_point() else weight.dtype


def _collect(
    model: Any, parts: list[_Part], engine: deepspeed.DeepSpeedEngine, writer: int, errors: RankErrors
) -> dict[str, Tensor]:
    """On the writing rank a layer as it is written, on the CPU; empty on the others, which give their shares."""
    layer: dict[str, Tensor] = {}
    for part in parts:
        needed = [*part.module.parameters()] if _adapted(part.module) else [*part.weights.values()]
        sharded = engine.zero_optimization_partition_weights()
        with deepspeed.zero.GatheredParameters(needed, enabled=sharded), errors.catch():
            if writer == rank():
                layer |= _copied(part)
    with errors.catch():
        # Loading may have fused weights, such as the experts of a layer.
        layer = {name: weight.contiguous() for name, weight in revert_weight_conversion(model, layer).items()}
    return layer


def _copied(part: _Part) -> dict[str, Tensor]:
    """The whole weights on the CPU, rounded, with merged adapters."""
    copied = {}
    changes = _changes(part.module) if _adapted(part.module) else {}
    for name, weight in part.weights.items():
        if (change := changes.get(name.rpartition(".")[2])) is not None:
            weight = weight.float() + change
        copied[name] = weight.detach().to("cpu", _dtype(weight), copy=True)
    return copied


def _changes(adapted: Any) -> dict[str, Tensor]:
    """alpha / r B A of each adapted parameter, in fp32: bf16 would round away most of a small change."""
    changes: dict[str, Tensor] = {}
    with _in_fp32(adapted):
        while _adapted(adapted):  # the fused experts of a layer have a wrapper for each parameter
            parameter = getattr(adapted, "parameter_name", "weight")
            changes[parameter] = sum(adapted.get_delta_weight(adapter) for adapter in adapted.active_adapters)
            adapted = adapted.base_layer
    return changes


@contextmanager
def _in_fp32(adapted: nn.Module) -> Iterator[None]:
    """While inside, the weights are fp32, because PEFT multiplies in their dtype."""
    originals = [(weight, weight.data) for weight in adapted.parameters()]
    try:
        for weight, data in originals:
            weight.data = data.float()
        yield
    finally:
        for weight, data in originals:
            weight.data = data


def _describe(model: Any, tokenizer: Any, out: Path) -> None:
    """Writes everything but the weights. The config is the base model's, with another dtype."""
    config = deepcopy(model.config)
    for part in [config, *(getattr(config, name, None) for name in config.sub_configs)]:
        if part is not None:
            part.dtype = DTYPE
    config.architectures = [type(model).__name__]
    with silence():
        config.save_pretrained(out)
        if model.can_generate():
            model.generation_config.save_pretrained(out)
        tokenizer.save_pretrained(out)
