"""kill -9 at random moments of MT-encoder stacking, then the same command: nothing is made twice, nothing differs."""

from pathlib import Path

import pytest

from sdx.store.files import read_json
from tests.kit.kills import Launcher, assert_nothing_twice, killed_often, published, undisturbed
from tests.kit.task_files import jsonl, read_files
from tests.kit.tiny import tiny_model, tiny_nllb

KILLS = {"stack": 1, "tokens": 1, "train": 2, "vectors": 1, "classify": 1}
"""Step at which a run is killed -> how many times."""
ARGUMENTS = (
    "method=mt_stack",
    "lang=th",
    "backbone=path",
    "encoder=path",
    "encoder.path=nllb",
    "text=file",
    "text.path=texts.jsonl",
    "task=xnli",
    "task.xnli.train.path=hub/mnli.parquet",
    "task.xnli.validation.path=hub/xnli.valid.parquet",
    "task.xnli.test.path='hub/xnli.{language}.parquet'",
    "method.baselines=[llm,encoder]",
    "method.validation_rows=6",
    "method.alignment.batch_size=8",
    "scale.text_rows=32",
    "scale.max_length_tokens=256",
    "train.batch_size=16",
    "train.save_every_steps=1",
    "train.validations=2",
    "engine.precision=fp32",
    "engine.compile=false",
    "tracking=none",
)


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    tiny_model(tmp_path / "tiny", chat=False)
    tiny_nllb(tmp_path / "nllb")
    read_files(tmp_path / "hub")
    jsonl(tmp_path / "texts.jsonl", [{"text": f"Text {n} is about the number {n * n}."} for n in range(32)])
    return Launcher(tmp_path, ARGUMENTS)


@pytest.mark.slow
def test_six_kills_change_nothing(launcher: Launcher):
    calm, rough = undisturbed(launcher, launcher.path / "calm"), launcher.path / "rough"
    killed_often(launcher, calm, rough, KILLS)
    assert published(rough) == published(calm.cache)
    assert_nothing_twice(rough)
    one, other = (read_json(next(Path(f"{cache}-runs").glob("*/results.json"))) for cache in (calm.cache, rough))
    assert one["scores"] == other["scores"]
    assert {score["language"] for score in one["scores"]} == {"en", "th"}
