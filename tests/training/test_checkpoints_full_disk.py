"""A finished training survives a full disk, for which the export's error stands."""

import errno
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoTokenizer

from sdx.config import Adapter, TrainConfig
from sdx.process.preemption import Preempted, Preemption
from sdx.training import checkpoints
from sdx.training.log import TrainingLog
from sdx.training.trainable import TrainableLM
from tests.kit.training import assert_equal, checkpoints_of, examples, fit

OPTIONS: dict[str, Any] = {"epochs": 2, "save_every_steps": 1}
STEPS = 4


class Full(TrainableLM):
    """The export fails for as long as `is_full` says so of the number of attempts."""

    def __init__(self, model_dir: Path, is_full: Callable[[int], bool]) -> None:
        super().__init__(model_dir, AutoTokenizer.from_pretrained(model_dir))
        self.tried, self.is_full = 0, is_full

    def export(self, engine: Any, out: Path) -> None:
        self.tried += 1
        if self.is_full(self.tried):
            out.with_name("model.partial").mkdir(exist_ok=True)
            raise RuntimeError(f"rank 1 could not write the model: [Errno 28] {os.strerror(errno.ENOSPC)}")
        super().export(engine, out)


def no_checkpoint(*_: Any) -> int:
    return 0


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "RETRY_S", 0.02)
    monkeypatch.setattr(checkpoints, "LOOK_S", 0.01)


@pytest.fixture(scope="module")
def whole(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    fit(model_dir, out, **OPTIONS)
    return out


def test_earlier_checkpoints_are_removed_for_the_model(model_dir: Path, tmp_path: Path, whole: Path):
    trainable = Full(model_dir, lambda _: len(checkpoints_of(tmp_path)) > 1)
    fit(model_dir, tmp_path, trainable=trainable, **OPTIONS)
    assert trainable.tried == 2
    assert_equal(*(load_file(out / "model/model.safetensors") for out in (tmp_path, whole)))


@pytest.mark.parametrize("adapter", Adapter)
def test_the_last_state_is_kept_and_nothing_is_trained_again(model_dir: Path, tmp_path: Path, adapter: Adapter):
    with pytest.raises(RuntimeError, match="No space left"):
        fit(model_dir, tmp_path, trainable=Full(model_dir, lambda _: True), adapter=adapter, **OPTIONS)
    assert checkpoints_of(tmp_path) == [f"step_{STEPS - 1}", f"step_{STEPS}"]
    assert not (tmp_path / "model.partial").exists()
    logged = (tmp_path / "log.jsonl").read_text()
    fit(model_dir, tmp_path, adapter=adapter, **OPTIONS)
    assert (tmp_path / "log.jsonl").read_text() == logged
    assert (tmp_path / "model/model.safetensors").exists()


def test_the_training_waits_for_space(
    model_dir: Path,
    tmp_path: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr(checkpoints, "save", no_checkpoint)
    trainable = Full(model_dir, lambda tried: tried < 4)
    with caplog.at_level(logging.WARNING, logger="sdx"):
        fit(model_dir, tmp_path, trainable=trainable, **OPTIONS)
    assert_equal(*(load_file(out / "model/model.safetensors") for out in (tmp_path, whole)))
    [said] = [record.getMessage() for record in caplog.records]
    assert f"no space left for the trained model {tmp_path}/model; waits up to 60 min, free some" in said


def test_it_does_not_wait_for_ever(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoints, "save", no_checkpoint)
    monkeypatch.setattr(checkpoints, "PATIENCE_S", 0.1)
    trainable = Full(model_dir, lambda _: True)
    with pytest.raises(RuntimeError, match="No space left"):
        fit(model_dir, tmp_path, trainable=trainable, **OPTIONS)
    assert trainable.tried > 2


def test_a_signal_ends_the_waiting(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No checkpoint of the last step could be saved."""
    save = checkpoints.save
    monkeypatch.setattr(checkpoints, "save", lambda *given: save(*given) if given[2]["step"] < STEPS else 0)
    monkeypatch.setattr(checkpoints, "RETRY_S", 60.0)
    requested = Preemption.requested

    def asked(preemption: Preemption) -> bool:
        if trainable.tried > 1:
            preemption._noted = 15
        return requested(preemption)

    trainable = Full(model_dir, lambda _: True)
    monkeypatch.setattr(Preemption, "requested", asked)
    with pytest.raises(Preempted, match=f"stopped by SIGTERM; .* from step {STEPS - 1}"):
        fit(model_dir, tmp_path, trainable=trainable, **OPTIONS)


def test_the_best_model_waits_as_well(model_dir: Path, tmp_path: Path):
    """No checkpoint is saved: a training resumed from it would not score that step."""
    trainable = Full(model_dir, lambda tried: tried in (1, 2))
    fit(model_dir, tmp_path, trainable=trainable, epochs=2, validation=examples(3), validations=1)
    assert trainable.tried == 3
    assert (tmp_path / "model/model.safetensors").exists()


def test_other_errors_are_no_full_disk(model_dir: Path, tmp_path: Path):
    class Broken(TrainableLM):
        def export(self, engine: Any, out: Path) -> None:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))  # more space would not help

    with pytest.raises(OSError, match="too large"):
        fit(model_dir, tmp_path, trainable=Broken(model_dir, AutoTokenizer.from_pretrained(model_dir)), epochs=1)


def test_an_earlier_checkpoint_is_removed_for_a_later_one(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write, refused = checkpoints._write, []

    def written(state: Any, files: Any, folder: Path, errors: Any) -> None:
        with errors.catch():
            if len(list(folder.parents[1].glob("step_?"))) > 1:
                refused.append(folder.parent.name)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(state, files, folder, errors)

    monkeypatch.setattr(checkpoints, "_write", written)
    with pytest.raises(RuntimeError, match="No space left"):
        fit(model_dir, tmp_path, trainable=Full(model_dir, lambda _: True), **OPTIONS)
    assert refused == ["step_3.partial"]
    assert checkpoints_of(tmp_path) == ["step_3", "step_4"]


def test_the_log_waits_for_space(tmp_path: Path):
    row = {"loss": 1.0, "grad_norm": 1.0, "learning_rate": 1e-3, "useful_tokens_per_s": 9.0}
    reading: Any = SimpleNamespace(copied=None, row=lambda: row)
    train = TrainConfig(batch_size=8, learning_rate=1e-3)
    with TrainingLog(tmp_path / "log.jsonl", {"step": 0}, 400, train, None) as log:
        assert log.file
        kept = os.dup(log.file.fileno())
        with open("/dev/full", "ab") as full:
            os.dup2(full.fileno(), log.file.fileno())
        for step in range(1, 401):  # more than the system's buffers hold
            if step == 400:
                os.dup2(kept, log.file.fileno())
            log.add({"step": step}, reading)
    os.close(kept)
    lines = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 401))
