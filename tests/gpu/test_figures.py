"""How fast this card is: figures for its file in benchmarks/gpu. On the CPU, tiny shapes show that they can be had."""

import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import ceiling, contestants
from benchmarks.child import call
from benchmarks.compare import write_examples
from benchmarks.data import LENGTHS, random_tokens
from benchmarks.machine import threads
from benchmarks.measure import Job, wait_for_device
from benchmarks.models import SHAPES
from benchmarks.readings import NLLB_600M
from benchmarks.report import flops_per_token
from sdx.config import Adapter, Precision, TemplateKind
from sdx.generation.hf import HFGenerator
from sdx.models.shape import shape_in
from sdx.store.store import Store
from sdx.training import attention, kernels
from sdx.translation.seq2seq import Seq2Seq
from tests.kit.gpu.machine import CUDA, DEVICE, TRAINED
from tests.kit.tiny import tiny_nllb

pytestmark = pytest.mark.gpu

THREADS = threads() if CUDA else 1
BATCH, PACK_TOKENS, STEPS = (64, 4096, 4) if CUDA else (2, 64, 1)
ROWS, NEW_TOKENS = (32, 128) if CUDA else (2, 4)
PACK = [length for length in LENGTHS for _ in range(3 if CUDA else 1)][:: 1 if CUDA else 8]
"""Lengths of a pack's examples, 14k tokens on a GPU."""
EN, TH = "eng_Latn", "tha_Thai"


@pytest.fixture(scope="module")
def reached(llama: Path) -> float:
    """FLOP/s of the model's own products."""
    with pytest.MonkeyPatch.context() as patch:
        if not CUDA:
            patch.setattr(ceiling, "STRETCH_S", 1e-3)
        return float(ceiling.matmul(str(llama))["flops_per_s"])


@pytest.mark.parametrize("adapter", list(Adapter))
def test_training(llama: Path, reached: float, tmp_path: Path, figures: dict[str, float], adapter: Adapter):
    """`loop.train` in a process of its own, laid out as for a long training."""
    rows = random_tokens(SHAPES[TRAINED]["vocab_size"], BATCH * (STEPS + 1), PACK_TOKENS)
    job = Job(
        model_dir=str(llama),
        data=write_examples(tmp_path, rows),
        adapter=adapter.value,
        optimizer="adamw",
        batch_size=BATCH,
        warmup_steps=1,
        steps=STEPS,
        seed=0,
        tokens=PACK_TOKENS,
    )
    engine = {} if CUDA else {"compile": False}  # which takes minutes there
    measured = call(contestants.sdx, THREADS, job=asdict(job), engine=engine)
    shape = shape_in(llama)
    assert shape
    assert measured["isolated"]
    flops, _ = flops_per_token(shape, [len(row["input_ids"]) for row in rows], adapter)
    figures[f"train_{adapter.value}_useful_tokens_per_s"] = measured["tokens_per_s"]
    figures[f"train_{adapter.value}_of_ceiling_share"] = measured["tokens_per_s"] * flops / reached
    figures[f"train_{adapter.value}_compiled_peak_bytes"] = measured["peak_bytes"]
    figures["ceiling_flops_per_s"] = reached


def test_decoding(llama: Path, figures: dict[str, float]):
    generator = HFGenerator(ROWS, Precision.bf16)
    generator.load(llama, TemplateKind.auto)
    prompts = ["The quick brown fox jumps over the lazy dog. " * 8] * ROWS
    generator.complete(prompts, 2)
    written, seconds = timed(lambda: generator.complete(prompts, NEW_TOKENS))
    figures["decode_tokens_per_s"] = sum(completion.tokens for completion in written) / seconds


def test_translating(space: Path, figures: dict[str, float]):
    """NLLB-600M's shape with 4 beams, 128 sentences at once; its random weights write to the limit."""
    with torch.device(DEVICE):
        model = tiny_nllb(space / "nllb", **(NLLB_600M | {"init_std": 0.02} if CUDA else {}))
    translator = Seq2Seq(None, None, str(model), 4 * ROWS, Precision.bf16, 4)
    store = Store(space / "cache")
    translator.prepare({name: store.realise(step) for name, step in translator.needs(EN, TH).items()})
    sentences = ["The cat is asleep on the table."] * 4 * ROWS
    translator.translate_sentences(sentences[:1], EN, TH)
    _, seconds = timed(lambda: translator.translate_sentences(sentences, EN, TH))
    figures["nllb_600m_sentences_per_s"] = len(sentences) / seconds


@pytest.mark.parametrize("width", [64, 128])
def test_attention(figures: dict[str, float], width: int):
    """Forward and backward of a layer with 32 query heads and 8 key heads over a pack."""
    attention.prepare(DEVICE)
    heads = (32, 8, 8) if CUDA else (4, 2, 2)
    q, k, v = (torch.randn(1, n, sum(PACK), width, device=DEVICE).bfloat16().requires_grad_() for n in heads)
    pack: dict[str, Any] = {
        "cu_seq_lens_q": torch.tensor([0, *accumulate(PACK)], dtype=torch.int32, device=DEVICE),
        "max_length_q": max(PACK),
        "attention_pairs": kernels.stored_pairs(PACK),
    }

    def step() -> None:
        attention.packed_attention(torch.nn.Module(), q, k, v, None, **pack)[0].sum().backward()

    step()
    repeats = 20 if CUDA else 1
    _, seconds = timed(lambda: [step() for _ in range(repeats)])
    figures[f"attention_{width}_ms"] = 1e3 * seconds / repeats


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and its seconds."""
    wait_for_device()
    began = time.perf_counter()
    result = work()
    wait_for_device()
    return result, time.perf_counter() - began
