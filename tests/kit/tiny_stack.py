"""Stacks of the tiny models, whose bridge, adapters and head are random, as if they were trained."""

from pathlib import Path
from typing import Any

import torch

from sdx.stacking.model import StackConfig, StackModel, is_trained

RANK = {"rank": 4, "alpha": 8, "dropout": 0.0}
WIDTHS = {"encoder": 32, "llm": 64}
"""Of the states of `tests.kit.tiny`'s encoders and LLM."""
LABELS = {0: "no", 1: "perhaps", 2: "yes"}


def stack_config(encoder: Path | None, llm: Path | None, **options: Any) -> StackConfig:
    """Its parts are directories."""
    given: dict[str, Any] = {
        "encoder": encoder and {"path": str(encoder)},
        "llm": llm and {"path": str(llm)},
        "encoder_size": WIDTHS["encoder"] if encoder else 0,
        "llm_size": WIDTHS["llm"] if llm else 0,
        "lora": RANK if llm else None,
        "dtype": "float32",
        "id2label": LABELS,
    }
    return StackConfig(**given | options)


def tiny_stack(
    encoder: Path | None,
    llm: Path | None,
    kind: type[Any] = StackModel,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Any:
    """In eval mode.

    Args:
        kind: the class of the model.
        options: of its config.
    """
    parts = {name: path for name, path in (("encoder", encoder), ("llm", llm)) if path}
    model = kind(stack_config(encoder, llm, **options), parts, dtype).eval()
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if is_trained(name):
                drawn = torch.randn(tensor.shape, generator=random) * 0.2
                tensor.copy_(drawn.abs() + 0.5 if name in ("bridge.std", "bridge.gain") else drawn)
    return model
