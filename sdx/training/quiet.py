"""DeepSpeed without its messages: every module here imports `deepspeed` from this one."""

import gc
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from transformers.utils import logging as hf_logging

_disabled = logging.root.manager.disable
logging.disable(logging.WARNING)  # the import warns on stdout, by a logger of its own, that there is no GPU
try:
    import deepspeed

    with redirect_stdout(io.StringIO()):  # without CUDA's toolkit, a warning for each kernel that cannot be compiled
        # An all-reduce for inference, compiled with g++ at the first start on a CPU. Training uses gloo.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
finally:
    logging.disable(_disabled)

__all__ = ["deepspeed", "frozen", "silence"]

deepspeed.utils.logger.setLevel(logging.ERROR)
# peft imports it if it is installed, and it warns of kernels for inference.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
# DeepSpeed calls collectives by their old names.
warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)


@contextmanager
def frozen() -> Iterator[None]:
    """Leaves existing objects out of garbage collections: with everything imported, each would take half a second."""
    outermost = gc.get_freeze_count() == 0
    if outermost:
        gc.freeze()
    try:
        yield
    finally:
        if outermost:
            gc.unfreeze()


@contextmanager
def silence() -> Iterator[None]:
    """Suppresses DeepSpeed's output, transformers' progress bars and warnings of deprecated names."""
    bars = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        # DeepSpeed collects garbage for some of its messages.
        with frozen(), redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if bars:
            hf_logging.enable_progress_bar()
