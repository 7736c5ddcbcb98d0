"""The disk space that a training needs."""

import shutil
from collections import namedtuple

import pytest

from sdx import InputError
from sdx.config import Adapter, Optimizer, ShapeConfig, TrainConfig
from sdx.training import disk
from tests.kit.configs import LLAMA2, N

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("options", "checkpoint"),
    [({}, 12 * N), ({"optimizer": Optimizer.adamw_8bit}, 6 * N), ({"adapter": Adapter.lora}, 12 * 39_976_960)],
)
def test_a_checkpoint_has_the_trained_weights_and_their_moments(options, checkpoint):
    train = TrainConfig(batch_size=8, learning_rate=1e-4, **options)
    needed = disk.space(LLAMA2, train, validated=False)
    assert (needed.checkpoint, needed.model) == (checkpoint, 2 * N)
    assert needed.total == 3 * checkpoint + 2 * N
    assert disk.space(LLAMA2, train, validated=True).total == 3 * checkpoint + 4 * N


def test_adapters_alone_take_what_was_trained():
    train = TrainConfig(batch_size=8, learning_rate=1e-4, adapter=Adapter.lora)
    assert disk.space(LLAMA2, train, validated=False, whole=False).model == 4 * 39_976_960


def test_too_little_space_is_warned_of_with_numbers(monkeypatch, tmp_path):
    needed = disk.space(ShapeConfig(parameters=N), TrainConfig(batch_size=8, learning_rate=1e-4), False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 300e9))
    assert disk.shortage(needed, tmp_path) == ""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 40e9))
    assert disk.shortage(needed, tmp_path / "not" / "there").startswith(
        "cache_dir has 40 GB free, and the training may write 3 checkpoints of 81 GB and a model of 13 GB; free some"
    )


def test_a_disk_that_cannot_take_the_model_ends_the_run_before_the_training(monkeypatch, tmp_path):
    needed = disk.space(ShapeConfig(parameters=N), TrainConfig(batch_size=8, learning_rate=1e-4), False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, needed.model - 100))
    says = rf"cache_dir has 13 GB free for {tmp_path}, and the trained model alone takes 13 GB; free some or give anoth"
    with pytest.raises(InputError, match=says):
        disk.shortage(needed, tmp_path)
    (tmp_path / "checkpoints").mkdir()  # files of the training count as available
    (tmp_path / "checkpoints/state").write_bytes(bytes(100))
    assert "waits for space" in disk.shortage(needed, tmp_path)
