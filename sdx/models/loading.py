"""How transformers loads a directory, where to, what that prints, and what batches look like."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdx import InputError
from sdx.config import Precision
from sdx.models.residency import ran_out
from sdx.process.ranks import device

if TYPE_CHECKING:
    import torch
    from torch import Tensor

REASON_LETTERS = 200


def pretrained(kind: Any, model_dir: Path, what: str | None = None, /, **options: Any) -> Any:
    """`kind.from_pretrained` on a directory: code that lies there is never run, and nobody asks whether it may be.

    Args:
        what: names the directory in messages.

    Raises:
        InputError: whatever transformers says against the files, in one line.
        RuntimeError: the GPU's memory was used up.
    """
    with named(what or str(model_dir.resolve())):
        return kind.from_pretrained(model_dir, trust_remote_code=False, local_files_only=True, **options)


@contextmanager
def named(what: str) -> Iterator[None]:
    """What goes wrong inside with the files of a model becomes one line that names them."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and ran_out(error):
            raise
        raise InputError(f"{what} cannot be loaded ({reason(error)}); get its files again") from error


def reason(error: BaseException) -> str:
    """What an error says, in a line: transformers lists all that it knows, and the traceback of another library."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " ".join(lines[:2]) if lines and lines[0].endswith(":") else next(iter(lines), "")
    said = said if len(said) <= REASON_LETTERS else f"{said[:REASON_LETTERS]}..."
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def dtype_of(precision: Precision) -> "torch.dtype":
    """Of the weights of a model that computes in it."""
    import torch

    return {Precision.bf16: torch.bfloat16, Precision.fp32: torch.float32}[precision]


def straight() -> dict[str, Any]:
    """Options of `from_pretrained` with which the weights go from the disk to this process' GPU, without a copy in the
    machine's own memory; none where there is no GPU."""
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

    longest = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[*row, *[pad_id] * (longest - len(row))] for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
    }


def keep_layout(llm: Any) -> None:
    """In eval mode, on some CPUs, bitsandbytes lays weights out for a kernel without a backward pass, for good."""
    for module in llm.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
