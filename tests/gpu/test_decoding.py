"""Answers, translations and scores do not depend on the batch, on a shared beginning or on the device."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.child import call
from benchmarks.machine import threads
from sdx.config import Precision, TemplateKind
from sdx.generation.hf import HFGenerator
from sdx.store.files import write_rows
from sdx.store.store import Store
from sdx.translation.seq2seq import Seq2Seq
from tests.kit.gpu import apart
from tests.kit.gpu.machine import CUDA, TRANSLATING, needs_cuda
from tests.kit.prompts import ITEMS, SHOTS, TEXTS
from tests.kit.tiny import tiny_nllb

pytestmark = pytest.mark.gpu

NEW_TOKENS = 40
THREADS = threads() if CUDA else 1
FP32, BF16 = 1e-4, 0.05
"""Norm of a difference between logits to their norm: a product of another shape is rounded otherwise."""
EN, TH = "eng_Latn", "tha_Thai"
SENTENCES = [
    "The cat is asleep on the table.",
    "X",
    "A sentence that goes on for a while, and then for another while, until nobody listens.",
    "Boil the water. Add the rice.",
    "How many legs does a dog have?",
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_padded_rows_are_answered_as_if_alone(small: Path, precision: str):
    """Without a NaN also where cuDNN's attention, which gave them for padded rows, is what PyTorch prefers."""
    found = call(apart.answers, THREADS, model_dir=str(small), precision=precision, max_new_tokens=NEW_TOKENS)
    batch, alone = found["batch"], found["alone"]
    assert batch["finite"]
    assert alone["finite"]
    ours, expected = (torch.tensor(way["first"]) for way in (batch, alone))
    tolerance = FP32 if precision == "fp32" else BF16
    assert ((ours - expected).norm(dim=1) <= tolerance * expected.norm(dim=1)).all()
    assert len(set(alone["answers"])) == len(apart.PROMPTS), "the prompts do not matter"
    if precision == "fp32":
        assert batch["answers"] == alone["answers"]


def test_a_shared_beginning_changes_no_answer(small: Path):
    generator = HFGenerator(len(TEXTS), Precision.fp32)
    generator.load(small, TemplateKind.auto)
    limits = [NEW_TOKENS] * len(TEXTS)
    shared = generator.complete_lines(TEXTS, limits, "".join(SHOTS))
    assert generator._ready().prefix is not None
    assert shared == generator.complete_lines(TEXTS, limits)


@pytest.mark.parametrize("beams", [1, 4])
def test_sentences_are_translated_as_if_alone(tmp_path: Path, beams: int):
    model = tiny_nllb(tmp_path / "nllb", **TRANSLATING)
    store = Store(tmp_path / "cache")

    def translated(batch_size: int, precision: Precision) -> list[str]:
        translator = Seq2Seq(None, None, str(model), batch_size, precision, beams)
        translator.prepare({name: store.realise(step) for name, step in translator.needs(EN, TH).items()})
        return translator.translate_sentences(SENTENCES, EN, TH)

    batch = translated(len(SENTENCES), Precision.fp32)
    assert batch == translated(1, Precision.fp32)
    assert len(set(batch)) > 2, "the sentences do not matter"
    assert all(translated(len(SENTENCES), Precision.bf16))


@needs_cuda
def test_scores_are_those_of_the_cpu(small: Path, tmp_path: Path):
    write_rows(tmp_path / "items.jsonl", ITEMS)

    def scored(name: str, hide_gpus: bool) -> list[dict[str, Any]]:
        given = {"model_dir": str(small), "items": str(tmp_path / "items.jsonl"), "work_dir": str(tmp_path / name)}
        results: list[dict[str, Any]] = call(apart.scores, THREADS, **given, hide_gpus=hide_gpus)["results"]
        return results

    for ours, theirs in zip(scored("cuda", False), scored("cpu", True), strict=True):
        assert ours.pop("log_probs") == pytest.approx(theirs.pop("log_probs"), rel=FP32)
        assert ours == theirs
