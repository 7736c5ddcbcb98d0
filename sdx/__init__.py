"""sdx: experiments that make LLMs good at languages they are bad at."""

import os

__version__ = "0.1.0"
__path__.append(f"{__path__[0]}/cli")  # `python -m sdx.report` is sdx/cli/report.py
# PyTorch reads this at its first large block on a CPU and then asks for huge pages. Without them, new pages for logits
# and gradients cost a fifth of a training step.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


class InputError(ValueError):
    """The user's input cannot work. The message names the key, the value and the fix; the exit code is 2."""
