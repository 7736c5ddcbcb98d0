"""Batches of a second objective alternate with those of the first, in any layout as in a plain loop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from sdx import InputError
from sdx.config import Adapter, TrainConfig
from sdx.models.loading import padded
from sdx.training import packing
from sdx.training.hidden_states import hidden_states, layers_of, pooled, pooling
from sdx.training.objectives import Auxiliary, Example
from sdx.training.schedule import Order, count_steps, learning_rate, turn
from tests.kit.training import (
    PAD_ID,
    SEED,
    Weights,
    assert_close,
    examples,
    fit,
    interrupted,
    losses,
    plain_loss,
    rows_of,
)

LAYER = 1
SHARE = 0.5
STEPS = 8


class Sizes:
    """Squared means of the first layer's states, a loss without the second layer and the head."""

    def collate(self, examples: Sequence[Example], packed: bool) -> dict[str, Any]:
        rows = [one.input_ids for one in examples]
        inputs = packing.join(rows) if packed else padded(rows, PAD_ID)
        return {"inputs": inputs, **pooling(rows, [[(0, len(row))] for row in rows], packed)}

    def targets(self, example: Example) -> int:
        return 1

    def tokens(self, example: Example) -> int:
        return len(example.input_ids)

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        loss = pooled(hidden_states(model, batch["inputs"], LAYER), batch).square().mean(1).sum()
        return loss, torch.full_like(loss, len(batch["sizes"]))

    score = loss


def beside(share: float = SHARE) -> Auxiliary:
    return Auxiliary("size", Sizes(), examples(20)[11:], batch_size=3, share=share)


@pytest.fixture(scope="module")
def plain(model_dir: Path) -> tuple[Weights, list[float]]:
    """Weights and losses of a plain loop, with one text at a time."""
    train = TrainConfig(batch_size=8, learning_rate=2e-4)
    model = AutoModelForCausalLM.from_pretrained(model_dir).train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=train.weight_decay)
    own, other = Order([""] * 11, 8, SEED), Order([""] * 9, 3, SEED)
    logged = []
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = learning_rate(step, STEPS, train)
        if step % 2:
            rows = [beside().examples[place] for place in other.batch(step // 2)]
            states = [model(torch.tensor([row.input_ids]), output_hidden_states=True).hidden_states for row in rows]
            loss = sum(one[LAYER][0].mean(0).square().mean() for one in states) / len(rows)
        else:
            rows = [examples()[place] for place in own.batch(step // 2)]
            loss = plain_loss(model, rows) / sum(len(row.input_ids) - row.prompt_tokens for row in rows)
        optimizer.zero_grad()
        loss.backward()
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        torch.nn.utils.clip_grad_norm_(model.parameters(), train.max_grad_norm)
        optimizer.step()
        logged.append(loss.item())
    return {name: weight.detach() for name, weight in model.named_parameters()}, logged


@pytest.mark.parametrize("options", [
    {"micro_batch_tokens": 1000},
    {"micro_batch_tokens": 1, "activation_checkpointing": True},
    pytest.param({"micro_batch_tokens": 40, "compile": True}, marks=pytest.mark.slow),
    {"micro_batch_tokens": 40, "compile": True, "activation_checkpointing": True, "zero_stage": 2},
    pytest.param({"micro_batch_tokens": 1, "zero_stage": 1}, marks=pytest.mark.slow),
    {"micro_batch_tokens": 40, "zero_stage": 3, "activation_checkpointing": True},
])  # fmt: skip
def test_equals_a_plain_loop_whatever_the_layout(
    plain: tuple[Weights, list[float]], model_dir: Path, tmp_path: Path, options: dict[str, Any]
):
    weights, summary = fit(model_dir, tmp_path, auxiliary=beside(), **options)
    rows = rows_of(tmp_path)
    assert [sorted({"loss", "size_loss"} & row.keys()) for row in rows] == [["loss"], ["size_loss"]] * (STEPS // 2)
    assert [row.get("loss", row.get("size_loss")) for row in rows] == pytest.approx(plain[1], rel=1e-5)
    assert_close(weights, plain[0], 2e-5)
    assert (summary["steps"], summary["loss"]) == (STEPS, rows[-2]["loss"])
    assert [row["epoch"] for row in rows[1::2]] == [0.5, 1.0, 1.5, 2.0]


def test_a_log_line_of_several_steps_has_both_losses(model_dir: Path, tmp_path: Path):
    fit(model_dir, tmp_path / "each", auxiliary=beside())
    fit(model_dir, tmp_path / "all", auxiliary=beside(), log_every_steps=STEPS)
    each, [every] = rows_of(tmp_path / "each"), rows_of(tmp_path / "all")
    assert every["size_loss"] == pytest.approx(sum(row.get("size_loss", 0) for row in each) / (STEPS // 2), rel=1e-5)
    assert min(losses_of(each)) < every["loss"] < max(losses_of(each))


def losses_of(rows: Sequence[dict[str, Any]]) -> list[float]:
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.parametrize("options", [{"zero_stage": 3}, {"adapter": Adapter.lora, "lora_dropout": 0.1}])
@pytest.mark.parametrize("after", [3, 4])
def test_an_interrupted_training_ends_in_the_same_model(
    model_dir: Path, tmp_path: Path, options: dict[str, Any], after: int
):
    options = {**options, "save_every_steps": 1}
    calm, _ = fit(model_dir, tmp_path / "calm", auxiliary=beside(), **options)
    interrupted(model_dir, tmp_path / "rough", after, auxiliary=beside(), **options)
    rough, _ = fit(model_dir, tmp_path / "rough", auxiliary=beside(), **options)
    assert_close(rough, calm, 0.0)
    fixed = ("step", "loss", "size_loss", "learning_rate", "grad_norm")
    told = [[{name: row.get(name) for name in fixed} for row in rows_of(tmp_path / run)] for run in ("calm", "rough")]
    assert told[0] == told[1]


def test_without_a_share_there_are_no_auxiliary_batches(model_dir: Path, tmp_path: Path):
    alone, _ = fit(model_dir, tmp_path / "alone")
    none, _ = fit(model_dir, tmp_path / "none", auxiliary=beside(share=0.0))
    assert_close(none, alone, 0.0)
    assert losses(tmp_path / "none") == losses(tmp_path / "alone")


def test_an_auxiliary_objective_without_examples_is_refused(model_dir: Path, tmp_path: Path):
    with pytest.raises(InputError, match="0 training examples"):
        fit(model_dir, tmp_path, auxiliary=Auxiliary("size", Sizes(), [], 3, SHARE))


@pytest.mark.parametrize("share", [0.1, 0.3, 1 / 3, 0.5, 0.6, 0.9])
@pytest.mark.parametrize("batches", [1, 7, 60])
def test_turns_are_evenly_spread_and_take_each_batch_once(share: float, batches: int):
    steps = count_steps(batches, 1, epochs=1, max_steps=0, share=share)
    turns = [turn(step, share) for step in range(steps)]
    own, other = ([number for kind, number in turns if kind == which] for which in (0, 1))
    assert own == list(range(batches))
    assert other == list(range(len(other)))
    assert turns[0] == (0, 0)
    for step in range(1, steps + 1):
        assert abs(sum(kind for kind, _ in turns[:step]) - share * step) <= 1
    assert count_steps(batches, 1, epochs=1, max_steps=3, share=share) == min(3, steps)


def test_states_are_those_of_the_layer_and_the_model_is_as_it_was(model_dir: Path):
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    before = list(layers_of(model))
    inputs = padded([[7, 9, 11], [13, 15, 17]], PAD_ID)
    every = model(**inputs, output_hidden_states=True).hidden_states
    torch.testing.assert_close(hidden_states(model, inputs, LAYER), every[LAYER])
    assert [one is other for one, other in zip(layers_of(model), before, strict=True)] == [True] * 2
    assert "held" not in repr(model)
