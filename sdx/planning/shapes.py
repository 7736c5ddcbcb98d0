"""Sizes of a run's models, from their files if they are there."""

from collections.abc import Sequence
from dataclasses import replace

from sdx.config import Config, ShapeConfig
from sdx.models.hub import ModelStep, local
from sdx.models.shape import shape_in
from sdx.planning.graph import Node
from sdx.store.store import Store

ENCODERS = {
    "e5_small": ShapeConfig(117_505_920, 12, 384, 1536, 384, 250_037),
    "nllb_600m": ShapeConfig(413_511_680, 12, 1024, 4096, 1024, 256_206),
    "nllb_1b": ShapeConfig(766_091_264, 24, 1024, 8192, 1024, 256_206),
    "nllb_3b": ShapeConfig(1_733_312_512, 24, 2048, 8192, 2048, 256_206),
    "opus_mt": ShapeConfig(52_000_000, 6, 512, 2048, 512, 64_172),
}
"""The encoders in conf/encoder, by name."""


def backbone_shape(config: Config, store: Store, nodes: Sequence[Node]) -> ShapeConfig:
    """From the model's files if they are there, else `backbone.shape`."""
    return _in_files("backbone", config.backbone.path, store, nodes) or config.backbone.shape


def encoder_shape(config: Config, store: Store, nodes: Sequence[Node]) -> ShapeConfig | None:
    """From the encoder's files if they are there, else by its name; None if no step loads an encoder."""
    if not _steps("encoder", nodes):
        return None
    known = ENCODERS.get(config.encoder.name) or ShapeConfig(config.encoder.parameters)
    return _in_files("encoder", config.encoder.path, store, nodes) or known


def _steps(role: str, nodes: Sequence[Node]) -> list[ModelStep]:
    return [node.step for node in nodes if isinstance(node.step, ModelStep) and node.step.name == role]


def _in_files(role: str, path: str | None, store: Store, nodes: Sequence[Node]) -> ShapeConfig | None:
    places = [store.path(step) / "model" for step in _steps(role, nodes)[:1] if store.cached(step)]
    return next(filter(None, map(shape_in, [*places, *([local(path)] if path else [])])), None)


def stacked(llm: ShapeConfig, encoder: ShapeConfig | None) -> ShapeConfig:
    """The shape that decides the memory of training: the LLM's layers, the weights of both, no logits."""
    return replace(llm, parameters=llm.parameters + encoder.parameters, vocab_size=0) if encoder else llm


def longest_tokens(config: Config) -> int:
    """The greatest length of a training example of the run."""
    alignment = getattr(config.method, "alignment", None)
    return max(config.scale.max_length_tokens, alignment.max_length_tokens if alignment else 0)
