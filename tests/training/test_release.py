"""A training leaves nothing in memory: the same process answers questions afterwards, and trains again."""

import gc
from collections.abc import Iterator

import pytest

from sdx.config import Adapter, Precision
from tests.kit.training import alive, fit

CASES = {
    "zero0": {"zero_stage": 0},
    "zero1": {"zero_stage": 1, "precision": Precision.bf16},
    "zero2": {"zero_stage": 2},
    "zero3": {"zero_stage": 3, "activation_checkpointing": True},
    "lora": {"zero_stage": 1, "precision": Precision.bf16, "adapter": Adapter.lora},
}


@pytest.fixture(autouse=True)
def collected_by_the_training_alone() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_a_training_gives_its_memory_back(model_dir, tmp_path, name):
    fit(model_dir, tmp_path / "warm", epochs=1, **CASES[name])  # what the libraries keep once and for all
    gc.collect()
    engines, before = alive()
    for number in (1, 2):
        fit(model_dir, tmp_path / str(number), epochs=1, **CASES[name])[0].clear()
        assert alive() == (engines, before)
    assert engines == 0
