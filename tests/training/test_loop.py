"""Training in one process, compared with a plain PyTorch loop and plain transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch.nn.functional import linear
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.integrations import is_deepspeed_zero3_enabled

from sdx import InputError
from sdx.config import Adapter, Precision, TrainConfig
from sdx.training.objectives import CausalLM, Example
from sdx.training.schedule import Order, learning_rate
from tests.kit.training import (
    PAD_ID,
    SEED,
    Weights,
    assert_close,
    examples,
    fit,
    grad_norms,
    losses,
    plain_loss,
    rows_of,
)

STAGES = pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])


def distance(ours: Weights, theirs: Weights) -> float:
    return sum(((ours[name] - theirs[name]).norm() ** 2).item() for name in ours) ** 0.5


def plain_training(model_dir: Path, steps: int) -> tuple[Weights, list[float], list[float]]:
    """Weights, losses and gradient norms."""
    train = TrainConfig(batch_size=8, learning_rate=2e-4)
    model = AutoModelForCausalLM.from_pretrained(model_dir).train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=train.weight_decay)
    logged, norms = [], []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate(step, steps, train)
        rows = [examples()[i] for i in Order([""] * 11, 8, SEED).batch(step)]
        loss = plain_loss(model, rows) / sum(len(row.input_ids) - row.prompt_tokens for row in rows)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), train.max_grad_norm).item())
        optimizer.step()
        optimizer.zero_grad()
        logged.append(loss.item())
    return {name: weight.detach() for name, weight in model.named_parameters()}, logged, norms


@pytest.mark.parametrize("options", [
    {"micro_batch_tokens": 1000},
    {"micro_batch_tokens": 1},
    {"micro_batch_tokens": 48, "zero_stage": 1},
    {"micro_batch_tokens": 48, "zero_stage": 2, "offload_optimizer": True},
    {"micro_batch_tokens": 48, "zero_stage": 3, "offload_optimizer": True, "activation_checkpointing": True},
])  # fmt: skip
def test_equals_a_plain_loop_whatever_the_layout(model_dir: Path, tmp_path: Path, options: dict[str, Any]):
    expected_weights, expected_losses, expected_norms = plain_training(model_dir, steps=4)
    weights, summary = fit(model_dir, tmp_path, **options)
    assert losses(tmp_path) == pytest.approx(expected_losses, abs=1e-5)
    assert grad_norms(tmp_path) == pytest.approx(expected_norms, rel=1e-5)
    assert_close(weights, expected_weights, 1e-5)
    base = dict(AutoModelForCausalLM.from_pretrained(model_dir).named_parameters())
    assert distance(weights, expected_weights) < 1e-4 * distance(base, expected_weights)
    tokens = 2 * sum(len(row.input_ids) for row in examples())
    assert summary["steps"] == 4
    assert summary["useful_tokens"] == tokens
    assert summary["loss"] == losses(tmp_path)[-1]
    assert summary["peak_memory_bytes"] > 10**8
    assert [row["epoch"] for row in rows_of(tmp_path)] == [0.5, 1.0, 1.5, 2.0]


def test_compiled_layers_equal_the_plain_loop_too(model_dir: Path, tmp_path: Path):
    """`test_auxiliary` compiles layers with checkpointing at stage 2."""
    expected_weights, expected_losses, expected_norms = plain_training(model_dir, steps=4)
    weights, _ = fit(model_dir, tmp_path, compile=True)
    assert losses(tmp_path) == pytest.approx(expected_losses, abs=1e-5)
    assert grad_norms(tmp_path) == pytest.approx(expected_norms, rel=1e-5)
    assert_close(weights, expected_weights, 1e-5)


def test_the_log_says_how_fast_and_what_for(model_dir: Path, tmp_path: Path):
    fit(model_dir, tmp_path, log_every_steps=2)
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == [2, 4]
    for row in rows:
        assert row["padding_share"] == 0.0
        assert 0 < row["data_wait_share"] < 0.5
        assert row["peak_memory_bytes"] > 10**8
        # Between 6 body parameters a token and 6 of all.
        body, head = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64) + 64, 64 * 400
        per_token = row["model_flops_per_s"] / row["useful_tokens_per_s"]
        assert 6 * body < per_token < 6 * (body + head)
        assert "mfu" not in row  # the peak of a CPU is not known


@pytest.mark.parametrize("adapter", list(Adapter))
def test_export_is_the_trained_model(model_dir: Path, tmp_path: Path, adapter: Adapter):
    weights, _ = fit(model_dir, tmp_path, adapter=adapter, learning_rate=1e-2)
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto")
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    assert exported.dtype == torch.bfloat16
    if adapter is Adapter.lora:
        assert all(".lora_" in name for name in weights)
        expected = merged(base.state_dict(), weights)
    else:
        expected = base.state_dict() | weights
    changed = 0
    for name, weight in exported.state_dict().items():
        torch.testing.assert_close(weight, expected[name].bfloat16(), rtol=0, atol=0)
        changed += not torch.equal(weight, base.state_dict()[name].bfloat16())
    assert changed == (14 if adapter is Adapter.lora else len(weights))

    # The loop's own loss of the exported model, at its first step, is the one of plain transformers.
    rows = examples()
    fit(tmp_path / "model", tmp_path / "again", rows=rows, epochs=1, batch_size=len(rows))
    count = sum(len(row.input_ids) - row.prompt_tokens for row in rows)
    with torch.no_grad():
        loss = plain_loss(exported.float(), rows).item() / count
    assert losses(tmp_path / "again") == [pytest.approx(loss, rel=1e-6)]


def merged(base: Weights, adapters: Weights) -> Weights:
    """W + alpha / r * B A, written out."""
    train = TrainConfig()
    result = dict(base)
    for name, down in adapters.items():
        if ".lora_A." in name:
            target = name.removeprefix("base_model.model.").replace(".lora_A.default", "")
            up = adapters[name.replace(".lora_A.", ".lora_B.")]
            result[target] = base[target] + train.lora_alpha / train.lora_rank * (up @ down)
    return result


def test_export_carries_nothing_of_the_training(model_dir: Path, tmp_path: Path):
    fit(model_dir, tmp_path, activation_checkpointing=True, zero_stage=3)
    ours, theirs = (json.loads((path / "config.json").read_text()) for path in (tmp_path / "model", model_dir))
    assert ours == theirs | {"dtype": "bfloat16"}
    tokenizers = [AutoTokenizer.from_pretrained(path) for path in (tmp_path / "model", model_dir)]
    assert tokenizers[0]("Olá, mundo") == tokenizers[1]("Olá, mundo")
    assert tokenizers[0].chat_template == tokenizers[1].chat_template


@STAGES
def test_bf16_gradients_are_accumulated_in_fp32(model_dir: Path, tmp_path: Path, zero_stage: int):
    """64 times 1/64 of a gradient is that gradient; a sum in bf16 would lose the small terms."""
    row = examples()[0]
    norms = []
    for copies in (1, 64):
        options: dict[str, Any] = {"batch_size": copies, "micro_batch_tokens": 1, "zero_stage": zero_stage}
        out = tmp_path / str(copies)
        fit(model_dir, out, rows=[row] * copies, epochs=1, precision=Precision.bf16, **options)
        norms += grad_norms(out)
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)


def test_learns_in_bf16_and_leaves_the_process_as_it_was(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    options: dict[str, Any] = {"zero_stage": 3, "precision": Precision.bf16, "log_every_steps": 7}
    fit(model_dir, tmp_path, rows=examples(4), epochs=40, batch_size=4, learning_rate=5e-3, **options)
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == [7, 14, 21, 28, 35, 40]
    assert rows[0]["loss"] > 2 > 0.2 > rows[-1]["loss"]
    assert all(row["grad_norm"] > 0 and row["useful_tokens_per_s"] > 0 for row in rows)
    assert rows[-1]["learning_rate"] == pytest.approx(5e-4)

    assert capsys.readouterr().out == ""
    assert not dist.is_initialized()
    assert not is_deepspeed_zero3_enabled()
    assert torch.nn.functional.linear is linear
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    row = examples(4)[0]
    prompt = torch.tensor([row.input_ids[: row.prompt_tokens]])
    answer = model.generate(prompt, max_new_tokens=len(row.input_ids), do_sample=False)[0].tolist()
    assert answer[: len(row.input_ids)] == row.input_ids


@pytest.mark.parametrize(("options", "message"), [
    ({"rows": []}, "0 training examples"),
    ({"rows": [Example("all-prompt", [1, 2], 2)]}, "1 training examples have no target token, all-prompt"),
])  # fmt: skip
def test_refuses_before_anything_is_loaded(model_dir: Path, tmp_path: Path, options: Any, message: str):
    with pytest.raises(InputError, match=message):
        fit(model_dir, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_refuses_to_go_on_when_the_loss_diverged(model_dir: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"train.learning_rate=1e\+30 is too high: at step 2"):
        fit(model_dir, tmp_path, learning_rate=1e30)


def test_padding_is_of_no_consequence():
    batch = CausalLM(PAD_ID).collate(
        [Example("x", [PAD_ID, PAD_ID, 7], 1), Example("y", [5, 6, 7, 8], 2)], packed=False
    )
    assert batch["labels"].tolist() == [PAD_ID, 7, 7, 8]
