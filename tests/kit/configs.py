"""Configurations and steps as sdx composes them, and a small configuration without Hydra."""

from collections import defaultdict
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sdx.cli import main
from sdx.config import BackboneConfig, Config, EngineConfig, Precision, ScaleConfig, ShapeConfig
from sdx.models.precision import ANY_GPU, ResolvedConfig, resolve_for_plan
from sdx.run import prepare
from sdx.store.step import Step

main.register()


def elsewhere(config: Config) -> ResolvedConfig:
    """Its precisions and batch sizes as a machine that computes in bf16 has them."""
    return resolve_for_plan(config, Path("nowhere"), ANY_GPU)


def resolved(config: Config) -> Config:
    return elsewhere(config).config


def composed(*overrides: str) -> Config:
    """What a command line with these overrides comes to."""
    with initialize_config_dir(str(main.CONF), version_base="1.3"):
        cfg = compose("config", overrides=list(overrides))
    assert not OmegaConf.missing_keys(cfg)
    config = OmegaConf.to_object(cfg)
    assert isinstance(config, Config)
    return config


def step_keys(tmp_path: Path, *overrides: str) -> dict[str, set[str]]:
    """Keys of all steps of a run, by name."""
    return keys_of(resolved(composed(*overrides)), tmp_path)


def keys_of(config: Config, tmp_path: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)

    def visit(step: Step) -> None:
        found[step.name].add(step.key)
        for needed in step.inputs.values():
            visit(needed)

    for step in prepare(config, tmp_path).steps:
        visit(step)
    return found


def tiny_config(**scale: int) -> Config:
    """Enough to ask and to score a tiny model."""
    return Config(
        backbone=BackboneConfig(name="tiny", context_tokens=300),
        engine=EngineConfig(name="zero0", precision=Precision.fp32),
        scale=ScaleConfig(name="test", max_new_tokens=8, **scale),
    )


N = 6_738_415_616
LLAMA2 = ShapeConfig(N, 32, 4096, 11008, 4096, 32000)
"""LLaMA-2-7B, and how many parameters it has."""
