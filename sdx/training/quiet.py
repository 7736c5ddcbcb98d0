"""DeepSpeed without its chatter: every module here takes `deepspeed` from this one."""

import gc
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from transformers.utils import logging as hf_logging

_disabled = logging.root.manager.disable
logging.disable(logging.WARNING)  # the import makes its own logger and warns, on stdout, that there is no GPU
try:
    import deepspeed

    with redirect_stdout(io.StringIO()):  # without CUDA's toolkit it warns of each kernel that it cannot compile
        # A shared-memory all-reduce for inference, compiled with g++ at the first start on a CPU. Training uses gloo.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
finally:
    logging.disable(_disabled)

__all__ = ["deepspeed", "frozen", "silence"]

deepspeed.utils.logger.setLevel(logging.ERROR)
# peft imports it where it is installed, and it warns of kernels for inference.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
# DeepSpeed calls collectives by their old names, at every micro-step.
warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)


@contextmanager
def frozen() -> Iterator[None]:
    """Leaves out of garbage collections what is there before: with all that is imported, each takes half a second."""
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
    """Swallows what DeepSpeed prints, transformers' own progress bars and warnings of deprecated names."""
    bars = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        # For some of its messages DeepSpeed collects all garbage.
        with frozen(), redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if bars:
            hf_logging.enable_progress_bar()
