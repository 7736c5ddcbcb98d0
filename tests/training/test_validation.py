"""The best model on validation data is kept, in any layout and after any interruption."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from sdx.config import Adapter, Schedule, TrainConfig
from sdx.training import loop
from sdx.training.objectives import CausalLM, Example
from sdx.training.schedule import validation_steps
from sdx.training.step import deciding
from sdx.training.trainable import TrainableLM
from tests.kit.processes import Processes
from tests.kit.training import (
    PAD_ID,
    Interrupted,
    Weights,
    assert_equal,
    examples,
    fit,
    interrupt_after,
    interrupted,
    losses,
    plain_loss,
    trained_weights,
)

HELD_OUT = examples(14)[11:]
STEPS = 8
OPTIONS: dict[str, Any] = {"epochs": 4, "learning_rate": 1e-3, "validations": STEPS}
BEST_STEP = 5


class Exports(TrainableLM):
    """Stores the exported weights."""

    def __init__(self, model_dir: Path) -> None:
        super().__init__(model_dir, AutoTokenizer.from_pretrained(model_dir))
        self.weights: list[Weights] = []

    def export(self, engine: Any, out: Path) -> None:
        self.weights.append(trained_weights(engine))
        super().export(engine, out)


class Falling(CausalLM):
    """The score is the loss."""

    def score(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return self.loss(model, batch)


class Peak(CausalLM):
    """The score is best when the loss of the validation data, all in one micro-batch, is `best`."""

    def __init__(self, best: float) -> None:
        super().__init__(PAD_ID)
        self.best = best

    def score(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        loss, count = self.loss(model, batch)
        return -count * (loss / count - self.best).abs(), count


def scores(out: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {row["step"]: row["validation"] for row in rows if "validation" in row}


def peaking(model_dir: Path, out: Path) -> Peak:
    """An objective that peaks after `BEST_STEP`, on the training examples."""
    fit(model_dir, out, validation=examples(), **OPTIONS, micro_batch_tokens=1000)
    losses_after = {step: -score for step, score in scores(out).items()}
    assert list(losses_after) == list(range(1, STEPS + 1))
    assert sorted(losses_after.values(), reverse=True) == list(losses_after.values())
    return Peak(losses_after[BEST_STEP])


@pytest.fixture(scope="module")
def peak(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Peak:
    return peaking(model_dir, tmp_path_factory.mktemp("peak"))


def selected(model_dir: Path, out: Path, peak: Peak, **options: Any) -> tuple[Exports, dict[str, Any]]:
    trainable = Exports(model_dir)
    given = OPTIONS | {"validation": examples(), "objective": peak, "micro_batch_tokens": 1000} | options
    _, summary = fit(model_dir, out, trainable=trainable, **given)
    return trainable, summary


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_keeps_the_best_and_not_the_last(model_dir: Path, tmp_path: Path, peak: Peak, zero_stage: int):
    trainable, summary = selected(model_dir, tmp_path, peak, zero_stage=zero_stage)
    assert summary["best_step"] == BEST_STEP
    assert summary["steps"] == STEPS
    assert summary["validation"] == scores(tmp_path)[BEST_STEP] == max(scores(tmp_path).values())
    assert len(trainable.weights) == BEST_STEP  # each was better than the one before, none after it was
    kept = AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    for name, weight in trainable.weights[-1].items():
        assert torch.equal(kept[name], weight.bfloat16()), name


def test_the_score_is_that_of_plain_transformers_after_the_step(model_dir: Path, tmp_path: Path):
    fit(model_dir, tmp_path, validation=HELD_OUT, objective=Falling(PAD_ID), epochs=1, micro_batch_tokens=1)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").float()
    count = sum(len(row.input_ids) - row.prompt_tokens for row in HELD_OUT)
    with torch.no_grad():
        expected = plain_loss(model, HELD_OUT).item() / count
    best = json.loads((tmp_path / "summary.json").read_text())
    assert best["validation"] == max(scores(tmp_path).values()) == pytest.approx(expected, rel=1e-3)  # bf16


@pytest.mark.parametrize("options", [
    {"zero_stage": 0, "adapter": Adapter.lora, "lora_dropout": 0.3},
    {"zero_stage": 1},
    {"zero_stage": 2},
    pytest.param({"zero_stage": 2, "compile": True}, marks=pytest.mark.slow),
    {"zero_stage": 3, "adapter": Adapter.lora, "lora_dropout": 0.3},
])  # fmt: skip
def test_changes_nothing_of_the_training(model_dir: Path, tmp_path: Path, options: dict[str, Any]):
    last, _ = fit(model_dir, tmp_path / "without", **options)
    best, summary = fit(model_dir, tmp_path / "with", validation=HELD_OUT, validations=4, **options)
    assert losses(tmp_path / "with") == losses(tmp_path / "without")
    if summary["best_step"] == 4:
        assert_equal(best, last)


@pytest.mark.parametrize(("kept", "killed"), [(2, 4), (4, 4), (6, 7), (4, 5)])
def test_an_interrupted_training_keeps_the_same(model_dir: Path, tmp_path: Path, peak: Peak, kept: int, killed: int):
    """Killed after a checkpoint, or some steps later: the best step may be before, among or after these."""
    selected(model_dir, tmp_path / "whole", peak)
    out = tmp_path / "parts"
    options = OPTIONS | {"validation": examples(), "objective": peak, "micro_batch_tokens": 1000}
    if kept == killed:
        interrupted(model_dir, out, after=kept, save_every_steps=kept, **options)
    else:
        with pytest.raises(Interrupted):
            fit(model_dir, out, save_every_steps=kept, on_log=interrupt_after(killed), **options)
    progress = json.loads((out / f"checkpoints/step_{kept}/progress.json").read_text())
    assert progress["best_step"] == min(kept, BEST_STEP)
    _, summary = selected(model_dir, out, peak)
    assert (summary["best_step"], summary["steps"]) == (BEST_STEP, STEPS)
    assert scores(out) == scores(tmp_path / "whole")
    assert summary["validation"] == scores(out)[BEST_STEP]
    assert_equal(*(load_file(run / "model/model.safetensors") for run in (out, tmp_path / "whole")))


def on_two_ranks(model_dir: Path, out: Path) -> None:
    """With three validation examples one at a time, the second rank has none in the last micro-step."""
    for stage in (0, 2, 3):
        fit(model_dir, out / str(stage), validation=HELD_OUT, validations=2, zero_stage=stage, micro_batch_tokens=1)


def test_two_ranks_give_the_score_of_one(model_dir: Path, tmp_path: Path):
    processes = Processes(tmp_path / "log", on_two_ranks, model_dir, tmp_path, ranks=2)
    assert processes.end(timeout_s=200) == [0, 0], processes.log.read_text()
    fit(model_dir, tmp_path / "one", validation=HELD_OUT, validations=2)
    assert list(scores(tmp_path / "one")) == [2, 4]
    for stage in (0, 2, 3):
        assert list(scores(tmp_path / str(stage)).values()) == pytest.approx(
            list(scores(tmp_path / "one").values()), rel=1e-5
        )


def test_validations_are_logged_and_their_time_does_not_count(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    validate, slept = loop.validate, 1.0

    def slowly(*arguments: Any) -> float:
        time.sleep(slept)
        return validate(*arguments)

    monkeypatch.setattr(loop, "validate", slowly)
    _, summary = fit(model_dir, tmp_path, validation=HELD_OUT, validations=2, log_every_steps=100)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    assert all("validation" in row for row in rows)
    tokens = sum(len(row.input_ids) for row in examples())
    assert all(row["useful_tokens_per_s"] > tokens / slept for row in rows)
    assert summary["seconds"] < slept


def test_evenly_spread_and_the_last_step_always():
    assert sorted(validation_steps(12, 3)) == [4, 8, 12]
    assert sorted(validation_steps(10, 4)) == [3, 5, 8, 10]
    assert sorted(validation_steps(3, 10)) == [1, 2, 3]
    assert sorted(validation_steps(7, 1)) == [7]


def test_only_what_decides_is_in_a_step_s_key():
    train = TrainConfig(batch_size=8, learning_rate=1e-4)
    assert "validations" not in deciding(train)
    assert deciding(train, validated=True)["validations"] == 4
    assert deciding(train).keys() == {  # what it was before there was more, so that finished steps stay finished
        "adapter", "lora_rank", "lora_alpha", "lora_dropout", "batch_size", "optimizer", "learning_rate",
        "warmup_ratio", "final_ratio", "keep_groups", "weight_decay", "max_grad_norm",
    }  # fmt: skip
    assert deciding(replace(train, schedule=Schedule.linear))["schedule"] == "linear"


def test_the_causal_lm_scores_by_its_loss(model_dir: Path):
    model, objective = AutoModelForCausalLM.from_pretrained(model_dir), CausalLM(PAD_ID)
    batch = objective.collate([Example("x", [5, 6, 7, 8], 1)], packed=False)
    (loss, targets), (score, count) = objective.loss(model, batch), objective.score(model, batch)
    assert (score.item(), count.item()) == (-loss.item(), targets.item())
