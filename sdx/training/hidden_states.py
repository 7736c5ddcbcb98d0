"""Hidden states after a layer of a model, and their means over the tokens of texts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from sdx.training import packing
from sdx.training.objectives import only_at

Span = tuple[int, int]
"""The first token and the one after the last."""


def layers_of(model: nn.Module) -> nn.ModuleList:
    """The transformer blocks of a model, in order."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    return next(blocks for blocks in lists if all(isinstance(block, GradientCheckpointingLayer) for block in blocks))


def hidden_states(model: Any, inputs: dict[str, Any], layer: int) -> Tensor:
    """The states `[batch, seq, hidden]` after a layer, counted from 1, to compute a loss on.

    A module that replaces the layer takes them: a compiled layer may ignore hooks that are added later, and a
    checkpointed layer runs hooks again in the backward pass.

    0 times the model's output is added to give the weights above the layer a gradient of zeros. Without a gradient, a
    weight is moved by the gradient of an earlier step at stage 3, and left out by AdamW at stage 0.
    """
    layers, name, taken = layers_of(model), str(layer - 1), list[Tensor]()
    original = layers._modules[name]
    layers._modules[name] = _Tapped(original, taken)
    first = torch.zeros(1, dtype=torch.int64, device=inputs["input_ids"].device)
    try:
        with only_at(model.get_output_embeddings(), first):
            output = model(**inputs, use_cache=False).logits
    finally:
        layers._modules[name] = original
    [states] = taken
    connected: Tensor = states + 0.0 * output.sum().to(states.dtype)
    return connected


class _Tapped(nn.Module):
    """A layer that also appends its output to `taken`. The layer is not a submodule, so its weights are not listed."""

    def __init__(self, layer: Any, taken: list[Tensor]) -> None:
        super().__init__()
        self.held = layer, taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["held"][0], name)

    def forward(self, *arguments: Any, **options: Any) -> Any:
        layer, taken = self.held
        output = layer(*arguments, **options)
        taken.append(output[0] if isinstance(output, tuple) else output)
        return output


def pooling(rows: Sequence[list[int]], spans: Sequence[Sequence[Span]], packed: bool) -> dict[str, Any]:
    """The arguments of `pooled`: which tokens of the flattened batch belong to which vector.

    Args:
        spans: of each of the rows of ids, the tokens of its vectors.
    """
    starts = packing.starts([len(row) for row in rows], packed)
    flat = [torch.arange(*span) + start for start, row in zip(starts, spans, strict=True) for span in row]
    counts = torch.tensor([len(tokens) for tokens in flat])
    return {
        "positions": torch.cat(flat),
        "owners": torch.arange(len(flat)).repeat_interleave(counts),
        "sizes": counts.clamp(min=1),  # the mean of a text without tokens is 0
    }


def pooled(states: Tensor, batch: dict[str, Any]) -> Tensor:
    """Means of states `[batch, seq, hidden]` over the tokens of each vector, `[vectors, hidden]` in fp32."""
    tokens = states.flatten(0, 1).index_select(0, batch["positions"]).float()
    sums = tokens.new_zeros(len(batch["sizes"]), tokens.shape[-1]).index_add(0, batch["owners"], tokens)
    means: Tensor = sums / batch["sizes"][:, None]
    return means
