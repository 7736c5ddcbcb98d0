"""The peers' configurations, and which of TRL's is its best.

A configuration is what its trainer is given beside what the comparison decides, see `contestants`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

Options = Mapping[str, Any]

TRL_DEFAULT: Options = {}
"""TRL 1.16: fp32 weights under bf16 autocast, gradient checkpointing, padded micro-batches of 8, chunked loss."""

PLAIN = {"gradient_checkpointing": False, "per_device_train_batch_size": 1}
PACKED = {**PLAIN, "packing": True}
BF16 = {"dtype": "bfloat16"}
"""The optimizer updates bf16 weights, with bf16 moments. sdx keeps both in fp32: faster and smaller, but less exact."""
FLASH = {"attn_implementation": "flash_attention_2"}

HF_DEFAULT: Options = {}
HF_BEST: Options = {"per_device_train_batch_size": 1}
"""No padding. On a CPU that is all there is to gain; on a GPU a larger micro-batch may be faster."""

# On two cores torch_compile=True took 200 s and then gained nothing without packing and 8 % with: not worth the wait.
CPU: dict[str, Options] = {
    "padded, micro-batch 1": PLAIN,
    "padded, micro-batch 1, bf16 weights": {**PLAIN, "model_init_kwargs": BF16},
    "padded, micro-batch 4, bf16 weights": {**PLAIN, "per_device_train_batch_size": 4, "model_init_kwargs": BF16},
    "packed": PACKED,
    "packed, bf16 weights": {**PACKED, "model_init_kwargs": BF16},
    "packed to 1024, bf16 weights": {**PACKED, "max_length": 1024, "model_init_kwargs": BF16},
}
CHECKPOINTING = {"gradient_checkpointing": True}
CUDA: dict[str, Options] = {
    "packed": PACKED,
    "packed, checkpointing": {**PACKED, **CHECKPOINTING},
    "packed, bf16 weights": {**PACKED, "model_init_kwargs": BF16},
    "packed, bf16 weights, checkpointing": {**PACKED, **CHECKPOINTING, "model_init_kwargs": BF16},
    "packed, bf16 weights, compiled": {**PACKED, "model_init_kwargs": BF16, "torch_compile": True},
    "packed, bf16 weights, flash": {**PACKED, "model_init_kwargs": BF16 | FLASH},
    "packed, bf16 weights, flash, checkpointing": {**PACKED, **CHECKPOINTING, "model_init_kwargs": BF16 | FLASH},
    "packed, bf16 weights, liger": {**PACKED, "model_init_kwargs": BF16, "use_liger_kernel": True},
    "packed, bf16 weights, flash, liger": {**PACKED, "model_init_kwargs": BF16 | FLASH, "use_liger_kernel": True},
    "padded, micro-batch 8, bf16 weights": {**PLAIN, "per_device_train_batch_size": 8, "model_init_kwargs": BF16},
    "padded, micro-batch 8, bf16 weights, flash": {
        **PLAIN,
        "per_device_train_batch_size": 8,
        "model_init_kwargs": BF16 | FLASH,
    },
}
NEEDS = {"flash": "flash_attn", "liger": "liger_kernel"}
"""A word in a candidate's name -> the module without which it is left out."""


@dataclass(frozen=True)
class Choice:
    """A candidate's name, and when, where and among what it was found to be the fastest."""

    name: str
    found: str


BEST: dict[tuple[str, str, str], Choice] = {
    ("CPU", "smollm2", "full"): Choice(
        "padded, micro-batch 1, bf16 weights", "2026-11-21, two AMD EPYC cores, by CPU time of one thread"
    ),
}
"""(device, model, adapter) -> what `--search-trl` found there. Where nothing is recorded, the comparison searches."""


def candidates(device: str) -> dict[str, Options]:
    """What the search tries on a device (`CPU` or a GPU's name), by name."""
    return {
        name: options
        for name, options in (CPU if device == "CPU" else CUDA).items()
        if all(find_spec(module) for word, module in NEEDS.items() if word in name)
    }
