"""Shapes from a model's files, and those in conf/ against the architectures' own arithmetic."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sdx.config import ShapeConfig
from sdx.models.shape import shape_in
from tests.kit.tiny import tiny_model

CONF = Path(__file__).parents[2] / "conf" / "backbone"
QUERIES = {"gemma3_270m": 4 * 256, "qwen3_4b": 32 * 128}
"""Width of the queries where it is not that of the residual stream."""
TIED = ("smollm2_135m", "gemma3_270m", "qwen3_4b")
NORMS = {"gemma3_270m": 4 * 640 + 2 * 256, "qwen3_4b": 2 * 2560 + 2 * 128}
"""Weights of a layer's norms where they are not two of the residual stream's width."""


def test_a_directory_tells_its_shape(tmp_path):
    model = tiny_model(tmp_path / "model")
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64
    vocabulary = shape_in(model).vocab_size
    parameters = 2 * vocabulary * 64 + 2 * layer + 64
    assert shape_in(model) == ShapeConfig(parameters, 2, 64, 128, 32, vocabulary)


def test_a_directory_with_pytorchs_weights_alone_has_the_architectures_parameters_without_norms(tmp_path):
    model = tiny_model(tmp_path / "model")
    counted = shape_in(model)
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert shape_in(model) == replace(counted, parameters=counted.parameters - 5 * 64)


def test_a_directory_without_weights_tells_nothing(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert shape_in(tmp_path) is None
    assert shape_in(tmp_path / "nowhere") is None


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shapes_in_conf_add_up_to_their_parameters(path):
    given = yaml.safe_load(path.read_text())
    if path.stem == "path":
        assert "shape" not in given  # its files tell
        return
    shape = ShapeConfig(**given["shape"])
    h, f, k = shape.hidden_size, shape.intermediate_size, shape.kv_width
    q = QUERIES.get(path.stem, h)
    layer = 2 * h * q + 2 * h * k + 3 * h * f + NORMS.get(path.stem, 2 * h)
    tables = 1 if path.stem in TIED else 2
    assert shape.parameters == tables * shape.vocab_size * h + shape.layers * layer + h
