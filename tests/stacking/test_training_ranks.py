"""Trainings of a stack: ranks and ZeRO stages agree, preemption, and what is exported."""

import json
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from sdx.config import Precision
from sdx.process.ranks import is_main
from sdx.stacking.alignment_data import AlignmentExample
from sdx.stacking.model import StackForSequenceClassification
from sdx.stacking.objectives import Alignment, Classification, Collator, TextExample
from sdx.stacking.parts import ObjectiveKind
from sdx.stacking.trainable import TrainableStack
from sdx.store.files import read_json, write_json
from sdx.training.objectives import evaluating
from tests.kit.processes import Processes, train
from tests.kit.tiny_stack import RANK, tiny_stack
from tests.kit.training import assert_close, fit, grad_norms, losses

STAGES = (0, 2, 3)
BUFFERS = {"bridge.mean", "bridge.std", "bridge.gain"}
"""Of the bridge; they are not trained."""
LABELS = ("no", "perhaps", "yes")
OPTIONS: dict[str, Any] = {"batch_size": 5, "learning_rate": 1e-3, "epochs": 2}
SAVED = "model/model.safetensors"


def questions(count: int = 11) -> list[AlignmentExample]:
    """11 leave a rank without an example in the last micro-step. With what the teacher reads."""
    found = []
    for number in range(count):
        size, own = 5 + 2 * (number % 7), 4 + 3 * (number % 5)
        ids = [6 + (7 * number + 3 * place) % 190 for place in range(max(size, own))]
        words = [1, 3, 0, 2, 3, 4, 2, 4]
        found.append(AlignmentExample(f"x{number}", ids[:size], ids[-own:], words, label=number % 3))
    return found


def classified(rows: list[AlignmentExample]) -> list[TextExample]:
    return [TextExample(row.id, row.input_ids, row.spans[:1], label=row.label) for row in rows]


@dataclass(frozen=True)
class Noted(TrainableStack):
    """Also saves the logits of the model as exported."""

    def export(self, engine: Any, out: Path) -> None:
        super().export(engine, out)
        if self.goal is ObjectiveKind.alignment:
            return
        pads = {name: pad for name, pad in {"encoder": 1, "llm": 3}.items() if name in self.parts}
        objective = Classification(Collator(pads))
        batch = objective.collate(classified(questions()), engine.module.packed)
        with evaluating(engine):
            logits = engine(lambda model, its: model.classify(objective.vectors(model, its)), batch)
        if is_main():
            torch.save(logits, out.parent / "logits.pt")


def case(start: Path, encoder_dir: Path, llm_dir: Path, goal: str) -> dict[str, Any]:
    """Arguments of `fit` for a stack in `start`."""
    parts = {"encoder": encoder_dir, "llm": llm_dir}
    collator = Collator({"encoder": 1, "llm": 3})
    if goal == "encoder":
        trainable = Noted(start / "encoder", {"encoder": start / "calm"}, ObjectiveKind.classification, LABELS)
        objective = Classification(Collator({"encoder": 1}))
        return {"trainable": trainable, "objective": objective, "rows": classified(questions()), **OPTIONS}
    if goal == "alignment":
        trainable, objective = (
            Noted(start, parts, ObjectiveKind.alignment, (), 2.0),
            Alignment(collator, (0.5, 2.0), True),
        )
        return {"trainable": trainable, "objective": objective, "rows": questions(), **OPTIONS}
    trainable = Noted(start, parts, ObjectiveKind.classification, LABELS, 2.0)
    return {"trainable": trainable, "objective": Classification(collator), "rows": classified(questions()), **OPTIONS}


GOALS = ("alignment", "classification", "encoder")


def on_two_ranks(start: Path, encoder_dir: Path, llm_dir: Path, out: Path) -> None:
    for goal in GOALS:
        for stage in STAGES:
            options = case(start, encoder_dir, llm_dir, goal)
            fit(llm_dir, out / f"{goal}{stage}", zero_stage=stage, **options | {"micro_batch_tokens": 1})


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path, llm_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("start")
    tiny_stack(encoder_dir, llm_dir, start_token=5).save_pretrained(folder)
    tiny_stack(encoder_dir, None, lora=RANK).save_pretrained(folder / "encoder")
    calm = shutil.copytree(encoder_dir, folder / "calm")  # no dropout of its own
    config = read_json(calm / "config.json")
    write_json(calm / "config.json", config | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    return folder


@pytest.fixture(scope="module")
def two_ranks(start: Path, encoder_dir: Path, llm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ranks")
    processes = Processes(out / "log", on_two_ranks, start, encoder_dir, llm_dir, out, ranks=2)
    assert processes.end(timeout_s=200) == [0, 0], processes.log.read_text()
    return out


@pytest.fixture(scope="module")
def one_rank(start: Path, encoder_dir: Path, llm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one")
    for goal in GOALS:
        fit(llm_dir, out / goal, zero_stage=0, **case(start, encoder_dir, llm_dir, goal))
    return out


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("goal", GOALS)
def test_two_ranks_at_every_stage_equal_one(two_ranks: Path, one_rank: Path, start: Path, goal: str, stage: int):
    many, one = two_ranks / f"{goal}{stage}", one_rank / goal
    assert losses(many) == pytest.approx(losses(one), rel=1e-5)
    assert grad_norms(many) == pytest.approx(grad_norms(one), rel=1e-4)
    first = start / ("encoder/model.safetensors" if goal == "encoder" else "model.safetensors")
    ours, theirs, begun = (load_file(path) for path in (many / SAVED, one / SAVED, first))
    assert_close(ours, theirs, 2e-5)
    assert {name for name in begun if torch.equal(ours[name], begun[name])} == BUFFERS & begun.keys()


@pytest.mark.parametrize("stage", STAGES)
def test_the_export_gives_the_logits_of_the_model(two_ranks: Path, encoder_dir: Path, llm_dir: Path, stage: int):
    out = two_ranks / f"classification{stage}"
    parts = {"encoder": encoder_dir, "llm": llm_dir}
    model = AutoModelForSequenceClassification.from_pretrained(out / "model", parts=parts, dtype=torch.float32)
    assert type(model) is StackForSequenceClassification
    assert list(model.config.id2label.values()) == list(LABELS)
    objective, rows = Classification(Collator({"encoder": 1, "llm": 3})), classified(questions())
    with torch.no_grad():
        logits = model.classify(objective.vectors(model, objective.collate(rows, packed=False)))
    torch.testing.assert_close(logits, torch.load(out / "logits.pt"), atol=2e-5, rtol=1e-4)
    assert sorted(path.name for path in (out / "model").iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("goal", GOALS)
def test_bf16_at_stage_2(one_rank: Path, start: Path, encoder_dir: Path, llm_dir: Path, tmp_path: Path, goal: str):
    options = case(start, encoder_dir, llm_dir, goal)
    fit(llm_dir, tmp_path, zero_stage=2, precision=Precision.bf16, activation_checkpointing=True, **options)
    assert losses(tmp_path) == pytest.approx(losses(one_rank / goal), rel=0.05)
    first = start / ("encoder/model.safetensors" if goal == "encoder" else "model.safetensors")
    begun, ours = load_file(first), load_file(tmp_path / SAVED)
    assert {tensor.dtype for tensor in ours.values()} == {torch.float32}
    assert all(tensor.isfinite().all() for tensor in ours.values())
    assert {name for name in begun if torch.equal(ours[name], begun[name])} <= BUFFERS


def test_checkpointing_changes_nothing(one_rank: Path, start: Path, encoder_dir: Path, llm_dir: Path, tmp_path: Path):
    options = case(start, encoder_dir, llm_dir, "alignment")
    fit(llm_dir, tmp_path, zero_stage=0, activation_checkpointing=True, **options)
    assert_close(load_file(tmp_path / SAVED), load_file(one_rank / "alignment" / SAVED), 1e-6)


def test_preempted_and_resumed(start: Path, encoder_dir: Path, llm_dir: Path, tmp_path: Path, one_rank: Path):
    """With dropout in the adapters, at a stage that shards its state."""
    lora = read_json(start / "config.json")["lora"]
    start_dropping = tmp_path / "start"
    tiny_stack(encoder_dir, llm_dir, lora={**lora, "dropout": 0.2}).save_pretrained(start_dropping)
    options = case(start_dropping, encoder_dir, llm_dir, "alignment") | {"zero_stage": 2}
    outs = tmp_path / "calm", tmp_path / "rough"
    calm = Processes(tmp_path / "calm.log", train, llm_dir, outs[0], options)
    rough = Processes(tmp_path / "rough.log", train, llm_dir, outs[1], options, "step 2")
    while not (outs[1] / "paused").exists():
        assert rough.running(), rough.log.read_text()
        time.sleep(0.005)
    rough.signal(signal.SIGTERM)
    (outs[1] / "go_on").touch()
    assert rough.end() == [os.EX_TEMPFAIL], rough.log.read_text()
    assert [path.name for path in (outs[1] / "checkpoints").iterdir()] == ["step_2"]
    resumed = Processes(tmp_path / "resumed.log", train, llm_dir, outs[1], options)
    assert resumed.end() == [0], resumed.log.read_text()
    assert calm.end() == [0], calm.log.read_text()
    for name in ("model.safetensors", "config.json"):
        assert (outs[0] / "model" / name).read_bytes() == (outs[1] / "model" / name).read_bytes()
    steps = [json.loads(line)["step"] for line in (outs[1] / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 7))
    assert losses(outs[1]) == losses(outs[0]) != losses(one_rank / "alignment")
