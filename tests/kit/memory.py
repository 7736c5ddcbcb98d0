"""A mock for the memory of a GPU, which no test machine has: a forward pass of more rows than it holds is refused."""

import functools
from typing import Any

import pytest
import torch


def limit_rows(monkeypatch: pytest.MonkeyPatch, module: Any, rows: int, method: str = "forward") -> list[int]:
    """From now on the module's forward pass runs out of memory with more rows than this.

    Returns:
        The rows of each pass that is tried, as they come.
    """
    forward, tried = getattr(module, method), []

    @functools.wraps(forward)
    def limited(*args: Any, **named: Any) -> Any:
        given = [*args, *(named.get(name) for name in ("input_ids", "inputs_embeds", "decoder_input_ids"))]
        tried.append(len(next(tensor for tensor in given if torch.is_tensor(tensor))))
        if tried[-1] > rows:
            raise torch.OutOfMemoryError("CUDA out of memory, says a mock")
        return forward(*args, **named)

    monkeypatch.setattr(module, method, limited)
    return tried
