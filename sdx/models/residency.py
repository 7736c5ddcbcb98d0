"""One large model in memory at a time: whoever asks for another frees the one that is there."""

import gc
import sys
from collections.abc import Callable, Hashable
from logging import getLogger
from pathlib import Path
from typing import Any, TypeVar, cast

from sdx import InputError

log = getLogger("sdx")

T = TypeVar("T")

OUT_OF_MEMORY = (
    *("CUDA error: out of memory", "CUDA driver error: out of memory"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
)


class Resident:
    """A model, with what is kept as long as the model is: tokenizers, the states of a prompt's beginning."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._kept: dict[Hashable, Any] = {}

    def keep(self, name: Hashable, make: Callable[[], T]) -> T:
        """What goes by this name, made by the first call."""
        if name not in self._kept:
            self._kept[name] = make()
        return cast(T, self._kept[name])


_held: dict[Hashable, Resident] = {}


def resident(what: tuple[str, Path, Hashable], load: Callable[[], Any]) -> Resident:
    """The model that `load` gives, loaded by the first call, until another is asked for or `release` is called.

    Ask each time instead of storing the answer: a model that somebody holds is not freed.

    Args:
        what: the model's kind, its directory, and what else tells one from another, such as its precision.
    """
    if what not in _held:
        release()
        log.info("%-12s loads   %s", *what[:2])
        try:
            _held[what] = Resident(load())
        except RuntimeError as error:
            if not ran_out(error):
                raise
            raise InputError(
                f"{what[1]} does not fit in the GPU's memory; take a smaller model or a larger GPU"
            ) from error
    return _held[what]


def release() -> None:
    """Frees the model that is there, if any. A training comes after this."""
    if _held or ("torch.cuda" in sys.modules and sys.modules["torch"].cuda.is_available()):
        _held.clear()
        free()


def ran_out(error: RuntimeError) -> bool:
    """Whether the GPU's memory was used up. Libraries that allocate for themselves say so in their own words."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def free() -> None:
    """Gives back the device's memory that nobody uses."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
