"""One large model in memory at a time: asking for another frees the previous one."""

import gc
import sys
from collections.abc import Callable, Hashable
from logging import getLogger
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from sdx import InputError

log = getLogger("sdx")

T = TypeVar("T")

OUT_OF_MEMORY = (
    *("CUDA error: out of memory", "CUDA driver error: out of memory"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
)


class Resident:
    """A model, and a cache that lives as long: tokenizers, the states of a prompt's beginning."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._cache: dict[Hashable, Any] = {}

    def cached(self, name: Hashable, make: Callable[[], T]) -> T:
        """The value under `name`, made by the first call."""
        if name not in self._cache:
            self._cache[name] = make()
        return cast(T, self._cache[name])


@runtime_checkable
class Closing(Protocol):
    """A model in another process, which `close` ends."""

    close: Callable[[], Any]


_held: dict[Hashable, Resident] = {}


def resident(what: tuple[str, Path, Hashable], load: Callable[[], Any]) -> Resident:
    """The model that `load` returns, loaded by the first call and held until another is asked for or `release` called.

    Call this each time instead of storing the result: a model with other references is not freed. `what` is the model's
    kind, its directory, and whatever else identifies it, such as its precision.
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
    """Frees the model that is held, if any; called before a training."""
    for held in _held.values():
        if isinstance(held.model, Closing):
            held.model.close()
    if _held or ("torch.cuda" in sys.modules and sys.modules["torch"].cuda.is_available()):
        _held.clear()
        free()


def ran_out(error: RuntimeError) -> bool:
    """Whether the GPU's memory was used up. Libraries that allocate by themselves have their own messages."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def free() -> None:
    """Returns unused GPU memory to the device."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
