"""Attention over packs on a CPU: sdx's compiled kernels against PyTorch's attention, example by example and padded.

    python benchmarks/attention.py
    python benchmarks/attention.py --heads 32 --key-heads 8 --width 128

Forward and backward of one layer in bf16, the ways in turns in one process. Prints what RESULTS.md records.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script's own folder is all that Python would search

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence

from benchmarks.data import LENGTHS
from benchmarks.machine import machine, threads, versions
from benchmarks.report import table
from sdx.training import attention, kernels
from sdx.training.packing import join

Way = Callable[[Tensor, Tensor, Tensor, list[int]], Tensor]
"""Queries, keys and values of a pack and its examples' lengths -> `[1, tokens, heads, head_dim]`."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--heads", type=int, default=9, help="of queries; SmolLM2-135M's")
    add("--key-heads", type=int, default=3)
    add("--width", type=int, default=64, help="of a head")
    add("--rounds", type=int, default=20)
    options = parser.parse_args(arguments)
    torch.set_num_threads(threads())
    about, rows = machine("CPU"), []
    print(f"{about['cpu']}, {threads()} threads; {versions()}\n")
    for name, lengths in texts().items():
        heads = options.heads, options.key_heads, options.key_heads
        milliseconds = {way: 1e3 * seconds for way, seconds in measure(lengths, heads, options).items()}
        sdx = milliseconds["sdx"]
        shown = [f"{each:.1f} ({each / sdx:.2f} x)" for way, each in milliseconds.items() if way != "sdx"]
        rows.append([name, str(len(lengths)), str(sum(lengths)), f"{sdx:.1f}", *shown])
    print("\n".join(table(("texts", "examples", "tokens", "sdx, ms", "by example", "padded"), rows)))
    return 0


def texts() -> dict[str, list[int]]:
    """Lengths of the examples of a pack."""
    random = Random(0)
    return {
        "questions": [random.randint(20, 64) for _ in range(22)],
        "instructions": [random.randint(30, 130) for _ in range(16)],
        "worked answers": random.sample(LENGTHS, 16),
    }


def measure(lengths: list[int], heads: tuple[int, int, int], options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of forward and backward, by way."""
    generator = torch.Generator().manual_seed(0)
    made = (torch.randn(1, sum(lengths), count, options.width, generator=generator) for count in heads)
    tensors = [one.bfloat16().transpose(1, 2).detach().requires_grad_() for one in made]
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for round_ in range(-2, options.rounds):  # the first two compile
        for name, way in WAYS.items():
            began = time.perf_counter()
            out = way(*tensors, lengths)
            torch.autograd.grad(out, tensors, torch.ones_like(out))
            if round_ >= 0:
                found[name].append(time.perf_counter() - began)
    return {name: median(times) for name, times in found.items()}


def _packed(query: Tensor, key: Tensor, value: Tensor, lengths: list[int], compiled: bool) -> Tensor:
    pack = join([[0] * length for length in lengths])
    shown = {name: pack[name] for name in ("cu_seq_lens_q", "max_length_q", "attention_pairs")}
    with kernels.compiling(compiled):
        return attention.packed_attention(torch.nn.Identity(), query, key, value, None, **shown)[0]


def _sdx(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
    return _packed(query, key, value, lengths, compiled=True)


def _by_example(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
    return _packed(query, key, value, lengths, compiled=False)


def _padded(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
    """As a padded batch is computed; taking the rows apart and together again is in the time."""
    rows = (
        pad_sequence(list(one[0].transpose(0, 1).split(lengths)), batch_first=True).transpose(1, 2)
        for one in (query, key, value)
    )
    out = scaled_dot_product_attention(*rows, is_causal=True, enable_gqa=True).transpose(1, 2)
    return torch.cat([row[:length] for row, length in zip(out, lengths, strict=True)])[None]


WAYS: dict[str, Way] = {"sdx": _sdx, "by example": _by_example, "padded": _padded}


if __name__ == "__main__":
    sys.exit(main())
