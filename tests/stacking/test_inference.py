"""Answers to test items: the published rows, whatever the batches, and after a kill."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from sdx.languages import language
from sdx.models.batches import Most
from sdx.stacking import batches as stack_batches
from sdx.stacking import inference
from sdx.stacking.model import StackForMultipleChoice, StackForSequenceClassification
from sdx.store.batch_log import BatchLog
from sdx.store.files import read_rows
from sdx.store.step import Step, Workspace
from sdx.store.store import Store
from tests.kit.stack_steps import answers_step, labelled, model_step, parts_of, rows_step
from tests.kit.tiny_stack import tiny_stack

pytestmark = pytest.mark.whole

TH = language("th")
HEADS = {0: StackForSequenceClassification, 3: StackForMultipleChoice}


def step_of(encoder_dir: Path, llm_dir: Path, choices: int = 0) -> tuple[Any, Step]:
    model = tiny_stack(encoder_dir, llm_dir, HEADS[choices])
    items = rows_step(rows=labelled(choices))
    return model, answers_step(model_step(model), parts_of(encoder_dir, llm_dir), items, TH, 64)


@pytest.mark.parametrize("choices", HEADS)
def test_what_is_written_of_an_item(tmp_path: Path, encoder_dir: Path, llm_dir: Path, choices: int):
    model, step = step_of(encoder_dir, llm_dir, choices)
    store = Store(tmp_path)
    rows = read_rows(store.realise(step) / "rows.jsonl")
    items = labelled(choices)
    assert [row["id"] for row in rows] == [item["id"] for item in items]
    assert store.manifest(step)["counts"] == {"items": 8, "correct": sum(row["acc"] for row in rows)}
    for row, item in zip(rows, items, strict=True):
        assert list(row) == ["id", "gold", "choice", "acc", "log_probs"]
        assert row["gold"] == item["label"]
        assert row["acc"] is (row["choice"] == item["label"])
        assert row["choice"] == row["log_probs"].index(max(row["log_probs"]))
        assert sum(map(math.exp, row["log_probs"])) == pytest.approx(1, abs=1e-3)
        [encoded] = model.sequence_tokenizer("th").encode([item["segments"]], 64)
        spans = {"spans": torch.tensor([encoded.spans[1:]])} if choices else {}
        with torch.no_grad():
            logits = model(torch.tensor([encoded.ids]), **spans).logits[0]
        assert row["log_probs"] == pytest.approx(logits.log_softmax(-1).tolist(), abs=1e-3)
    assert len({tuple(row["log_probs"]) for row in rows}) == 8


def test_texts_that_lose_their_ends_are_told(
    tmp_path: Path, encoder_dir: Path, llm_dir: Path, caplog: pytest.LogCaptureFixture
):
    model = tiny_stack(encoder_dir, llm_dir, HEADS[0])
    for limit, told in ((64, False), (8, True)):
        caplog.clear()
        items, parts = rows_step(rows=labelled()), parts_of(encoder_dir, llm_dir)
        Store(tmp_path / str(limit)).realise(answers_step(model_step(model), parts, items, TH, limit))
        assert ("8 of 8 are longer than scale.max_length_tokens=8 and lose their ends" in caplog.text) is told


@pytest.mark.parametrize("tokens", [1, 64, 150])
def test_batches_change_nothing(
    tmp_path: Path, encoder_dir: Path, llm_dir: Path, tokens: int, monkeypatch: pytest.MonkeyPatch
):
    _, step = step_of(encoder_dir, llm_dir)
    whole = read_rows(Store(tmp_path / "whole").realise(step) / "rows.jsonl")
    monkeypatch.setattr(stack_batches, "READ_TOKENS", Most(tokens, tokens))
    cut = read_rows(Store(tmp_path / "cut").realise(step) / "rows.jsonl")
    for ours, theirs in zip(cut, whole, strict=True):
        assert ours["log_probs"] == pytest.approx(theirs["log_probs"], abs=2e-4)
        assert ours["id"] == theirs["id"]


class Killed(Exception):
    pass


@pytest.mark.parametrize("batches", [1, 2])
def test_killed_and_resumed(
    tmp_path: Path, encoder_dir: Path, llm_dir: Path, batches: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inference, "BATCH_ROWS", 3)
    _, step = step_of(encoder_dir, llm_dir)
    append = BatchLog.append
    done: list[str] = []
    until = batches

    def dying(log: BatchLog, rows: Any) -> Any:
        places = append(log, rows)
        done.extend(row["id"] for row in rows)
        nonlocal until
        until -= 1
        if not until:
            with log.path.open("ab") as lines:
                lines.write(b'{"id": "q')
            raise Killed
        return places

    monkeypatch.setattr(BatchLog, "append", dying)
    calm, rough = Store(tmp_path / "calm"), Store(tmp_path / "rough")
    with pytest.raises(Killed):
        rough.realise(step)
    until = -1
    assert 0 < len(done) < 8
    rows = (rough.realise(step) / "rows.jsonl").read_bytes()
    assert sorted(done) == [f"q{number}" for number in range(8)]  # none twice
    done.clear()
    assert rows == (calm.realise(step) / "rows.jsonl").read_bytes()


def test_nothing_is_loaded_where_all_is_answered(tmp_path: Path, encoder_dir: Path, llm_dir: Path):
    _, step = step_of(encoder_dir, llm_dir)
    store = Store(tmp_path)
    out = store.realise(step)
    inputs = {name: store.realise(given) for name, given in step.inputs.items()}
    rows = read_rows(out / "rows.jsonl")
    work = Workspace(tmp_path / "again", {**inputs, "model": tmp_path / "gone"})
    work.dir.mkdir()
    BatchLog(work.dir / "rows.log").append(rows)
    step.run(work)
    assert read_rows(work.dir / "rows.jsonl") == rows
