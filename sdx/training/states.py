"""Hidden states of a layer in the middle of a model, and means of states over the tokens of texts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from sdx.training.objectives import only_at

Span = tuple[int, int]
"""The first token and the one after the last."""


def layers_of(model: nn.Module) -> nn.ModuleList:
    """The transformer blocks of a model, one after the other."""
    for module in model.modules():
        if not isinstance(module, nn.ModuleList) or not len(module):
            continue
        if all(isinstance(one, GradientCheckpointingLayer) for one in module):
            return module
    raise AssertionError(f"{type(model).__name__} has no list of transformer blocks")


@contextmanager
def states_after(model: nn.Module, layer: int) -> Iterator[list[Tensor]]:
    """While inside, a forward pass puts the hidden states `[batch, seq, hidden]` behind a layer into the list.

    They are taken between two layers, by a module that stands in for the layer: a compiled layer may not look at hooks
    that it gets later, and a checkpointed one runs them again in the backward pass.

    Args:
        layer: counted from 1.
    """
    layers, name, taken = layers_of(model), str(layer - 1), list[Tensor]()
    whole = layers._modules[name]
    layers._modules[name] = _Tapped(whole, taken)
    try:
        yield taken
    finally:
        layers._modules[name] = whole


def hidden_states(model: Any, inputs: dict[str, Any], layer: int) -> Tensor:
    """The states `[batch, seq, hidden]` behind a layer, counted from 1, for an objective of their own.

    0 times the model's output is added, so that the weights above the layer have a gradient, of zeros, and not none: at
    stage 3 a weight without one is moved by that of an earlier step, and at stage 0 AdamW leaves such a weight out.
    """
    first = torch.zeros(1, dtype=torch.int64, device=inputs["input_ids"].device)
    with states_after(model, layer) as taken, only_at(model.get_output_embeddings(), first):
        output = model(**inputs, use_cache=False).logits
    [states] = taken
    reached: Tensor = states + 0.0 * output.sum().to(states.dtype)
    return reached


class _Tapped(nn.Module):
    """A layer that hands its output to `taken`, too. Its weights are not among those of this module."""

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
    """What `pooled` takes: which tokens of the flattened batch belong to which vector.

    Args:
        rows: ids of texts, packed or padded to the longest.
        spans: of each text, the tokens of its vectors.
    """
    lengths = [len(row) for row in rows]
    widths = lengths if packed else [max(lengths)] * len(lengths)
    starts = accumulate(widths[:-1], initial=0)
    flat = [(start + first, start + last) for start, its in zip(starts, spans, strict=True) for first, last in its]
    counts = torch.tensor([last - first for first, last in flat])
    return {
        "positions": torch.cat([torch.arange(first, last) for first, last in flat]),
        "owners": torch.arange(len(flat)).repeat_interleave(counts),
        "sizes": counts.clamp(min=1),  # of a text without tokens the mean is 0
    }


def pooled(states: Tensor, batch: dict[str, Any]) -> Tensor:
    """Means of states `[batch, seq, hidden]` over the tokens of each vector, `[vectors, hidden]` in fp32."""
    tokens = states.flatten(0, 1).index_select(0, batch["positions"]).float()
    sums = tokens.new_zeros(len(batch["sizes"]), tokens.shape[-1]).index_add(0, batch["owners"], tokens)
    means: Tensor = sums / batch["sizes"][:, None]
    return means
