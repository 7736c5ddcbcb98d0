"""Loading with transformers: errors, devices, precision; and padding of batches."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdx import InputError
from sdx.config import Precision
from sdx.models.residency import ran_out
from sdx.process.quiet import quiet
from sdx.process.ranks import device

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def pretrained(kind: Any, model_dir: Path, what: str | None = None, /, **options: Any) -> Any:
    """`kind.from_pretrained` on a directory, called `what` in messages. Code in the directory is never run.

    Raises:
        InputError: transformers cannot load the files, or a step's link to them leads nowhere.
        RuntimeError: the GPU's memory was used up.
    """
    check_link(model_dir)
    quiet()
    with load_errors(what or str(model_dir.resolve())):
        return kind.from_pretrained(model_dir, trust_remote_code=False, local_files_only=True, **options)


def check_link(model_dir: Path) -> None:
    """Raises InputError if the files behind a step's `model` are gone."""
    if model_dir.is_symlink() and not model_dir.exists():
        raise InputError(
            f"{model_dir} points to {model_dir.readlink()}, which is gone; remove {model_dir.parent} and run again"
        )


@contextmanager
def load_errors(what: str) -> Iterator[None]:
    """Turns any error inside into an InputError of one line about the files of `what`."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and ran_out(error):
            raise
        # transformers may list all known models, or include the traceback of another library.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
        text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
        reason = textwrap.shorten(f"{type(error).__name__}: {text}".removesuffix(": "), 220, placeholder="...")
        raise InputError(f"{what} cannot be loaded ({reason}); get its files again") from error


def dtype_of(precision: Precision) -> "torch.dtype":
    import torch

    return {Precision.bf16: torch.bfloat16, Precision.fp32: torch.float32}[precision]


def gpu_options() -> dict[str, Any]:
    """Options of `from_pretrained` to load weights directly to this process' GPU, without a copy in the machine's
    memory; none without a GPU."""
    here = device()
    return {} if here.type == "cpu" else {"device_map": here}


def four_bits(dtype: "torch.dtype") -> dict[str, Any]:
    """Options of `from_pretrained` for weights in 4 bits, nf4 with quantised constants (QLoRA, arXiv 2305.14314), on
    the device of a `torch.device` context: bitsandbytes lays them out for it."""
    import torch
    from transformers import BitsAndBytesConfig

    quantised = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    return {"quantization_config": quantised, "device_map": {"": torch.get_default_device()}}


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> "dict[str, Tensor]":
    """`input_ids` and `attention_mask`, `[batch, seq]`, padded on the right."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    ids = [torch.tensor(row, dtype=torch.long) for row in rows]
    mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    return {"input_ids": pad_sequence(ids, batch_first=True, padding_value=pad_id), "attention_mask": mask}


def keep_layout(llm: Any) -> None:
    """Else bitsandbytes, in eval mode on some CPUs, lays weights out for good for a kernel without a backward pass."""
    for module in llm.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
