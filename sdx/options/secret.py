"""Options that hold a secret are refused before Hydra writes them down."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdx import InputError
from sdx.process.secret import found_in, scrub

GIVEN = ("overrides", "job.env_set", "launcher", "sweeper")
"""What a user says to Hydra itself."""


def check(config: DictConfig) -> None:
    """Raises InputError for a configuration that holds a secret."""
    if why := refused(config):
        raise InputError(why)


def refused(config: DictConfig) -> str | None:
    """Why a configuration cannot be taken; none where it holds no secret."""
    for key, value in _options(config):
        if found := found_in(f"{key}={value}"):
            return (
                f"{scrub(key)} {found}; options are published, in the report and on dashboards: leave it out, and set "
                "tokens and passwords in the environment, such as HF_TOKEN and WANDB_API_KEY"
            )
    return None


def _options(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Key and value of what the user gave: a run's own options, resolved where that works, and some of Hydra's."""
    run = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    try:
        yield from _leaves(OmegaConf.to_container(run, resolve=True))
    except OmegaConfBaseException:  # which the run itself will report
        yield from _leaves(OmegaConf.to_container(run))
    for part in GIVEN:
        node = OmegaConf.select(config, f"hydra.{part}", throw_on_missing=False)
        for key, value in _leaves(OmegaConf.to_container(node) if OmegaConf.is_config(node) else node, f"hydra.{part}"):
            override = part == "overrides" and "=" in value
            yield tuple(value.lstrip("+~").split("=", 1)) if override else (key, value)  # type: ignore[misc]


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, (dict, list)):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif value is not None:
        yield key, str(value)
