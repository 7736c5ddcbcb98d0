"""A model that is no causal LM in the same loop: a frozen part, an LLM inside, a rate for each part."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sdx import InputError
from sdx.training import engine
from sdx.training.attention import PACKED
from tests.kit.processes import Processes
from tests.kit.second_trainable import Classes, Labelled, TrainableStack, labelled
from tests.kit.training import Weights, assert_close, fit, losses

STAGES = (0, 2, 3)
OPTIONS: dict[str, Any] = {"validations": 2, "activation_checkpointing": True}


def run(model_dir: Path, out: Path, packs: bool = True, **options: Any) -> tuple[Weights, dict[str, Any]]:
    """Weights as they were exported, and the summary."""
    trainable = TrainableStack(model_dir, packs)
    options = {"rows": labelled(), "validation": labelled(5)} | OPTIONS | options
    _, summary = fit(model_dir, out, trainable=trainable, objective=Classes(), **options)
    return torch.load(out / "model/weights.pt"), summary


def on_two_ranks(model_dir: Path, out: Path) -> None:
    for stage in STAGES:
        run(model_dir, out / str(stage), zero_stage=stage, micro_batch_tokens=1, validation=())


@pytest.fixture(scope="module")
def two_ranks(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ranks")
    processes = Processes(out / "log", on_two_ranks, model_dir, out, ranks=2)
    assert processes.end(timeout_s=200) == [0, 0], processes.log.read_text()
    return out


@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_at_every_stage_equal_one_process(two_ranks: Path, model_dir: Path, tmp_path: Path, stage: int):
    weights, _ = run(model_dir, tmp_path, validation=())
    assert {name.partition(".")[0] for name in weights} == {"up", "llm", "head"}
    assert "llm.embed_tokens.weight" not in weights
    assert losses(two_ranks / str(stage)) == pytest.approx(losses(tmp_path), rel=1e-5)
    assert_close(torch.load(two_ranks / str(stage) / "model/weights.pt"), weights, 2e-5)


@pytest.mark.parametrize("compile", [False, True])
def test_packs_where_it_names_its_llm_and_rows_where_not(
    model_dir: Path, tmp_path: Path, compile: bool, monkeypatch: pytest.MonkeyPatch
):
    asked: list[str] = []
    takes_packs = engine.takes_packs

    def noted(engine: Any, llm: Any) -> bool:
        packed = takes_packs(engine, llm)
        asked.append(llm.config._attn_implementation)
        return packed

    monkeypatch.setattr(engine, "takes_packs", noted)
    packed, _ = run(model_dir, tmp_path / "packed", micro_batch_tokens=80, validation=(), compile=compile)
    assert asked == [PACKED]
    padded, _ = run(model_dir, tmp_path / "padded", packs=False, micro_batch_tokens=80, validation=(), compile=compile)
    assert asked == [PACKED]
    assert_close(packed, padded, 2e-5)
    shares = [
        json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[0])["padding_share"]
        for name in ("packed", "padded")
    ]
    assert shares[0] == 0 < shares[1]


def test_learns_and_is_selected_by_its_accuracy(model_dir: Path, tmp_path: Path):
    rows = labelled(8)
    options: dict[str, Any] = {"epochs": 20, "validations": 5, "zero_stage": 3, "learning_rate": 1e-3}
    _, summary = run(model_dir, tmp_path, rows=rows, validation=rows, **options)
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    scores = {row["step"]: row["validation"] for row in logged if "validation" in row}
    assert list(scores) == [4, 8, 12, 16, 20]
    assert summary["validation"] == max(scores.values()) == 1.0
    assert scores[summary["best_step"]] == 1.0
    assert all(score < 1 for step, score in scores.items() if step < summary["best_step"])


def test_validation_examples_without_a_target_are_refused_first(model_dir: Path, tmp_path: Path):
    class Without(Classes):
        def targets(self, example: Labelled) -> int:
            return int(example.id != "x3")

    with pytest.raises(InputError, match="1 validation examples have no target token, x3 first"):
        fit(model_dir, tmp_path / "out", trainable=None, objective=Without(), rows=labelled(3), validation=labelled(5))
    assert not (tmp_path / "out").exists()
