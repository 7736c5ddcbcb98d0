"""What Hydra composed is checked before it runs: a bad configuration, or one with a secret, gets no run directory."""

import sys
from collections.abc import Iterator
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdx import InputError
from sdx.options import schema
from sdx.process.printable import escaped
from sdx.process.ranks import rank
from sdx.process.secret import found_in, scrub

UNFORESEEN = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What Hydra raises for input that it did not foresee."""
HYDRA_OPTIONS = ("overrides", "job.env_set", "launcher", "sweeper")
"""The parts of Hydra's own configuration that a user gives."""


class ConfigCheck(Callback):
    """Ends a run with a bad configuration; `hydra.callbacks` in conf/config.yaml."""

    passed: ClassVar[bool] = False
    """Whether this process' configuration is valid: later errors are those of the run."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        self._check(config, config)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self._check(config, config.hydra, "hydra")  # the rest may lack values that the runs have

    def _check(self, config: DictConfig, part: DictConfig, at: str = "") -> None:
        try:
            schema.check(part, at)
            if why := secret_in(config):
                raise InputError(why)
        except InputError as error:
            sys.exit(print_error(str(error)))  # Hydra would turn an exception into a warning
        ConfigCheck.passed = True


def not_composable(overrides: list[str], error: Exception) -> InputError:
    """The error to show if Hydra's own error explains nothing."""
    reason = " ".join(str(error).split())
    return InputError(f"{' '.join(overrides)} cannot be composed: {reason}; see python -m sdx --help")


def print_error(message: str, code: int = 2) -> int:
    """Prints an error in one line, on rank 0 only, and returns the exit code."""
    if rank() == 0:
        print(f"sdx: {escaped(scrub(message))}".replace("\n", "\\n"), file=sys.stderr)
    return code


def secret_in(config: DictConfig) -> str | None:
    """Why a configuration is refused; None if it holds no secret."""
    for key, value in _options(config):
        if found := found_in(f"{key}={value}"):
            return (
                f"{scrub(key)} {found}; options are published, in the report and on dashboards: leave it out, and set "
                "tokens and passwords in the environment, such as HF_TOKEN and WANDB_API_KEY"
            )
    return None


def _options(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Key and value of the run's options, resolved if possible, and of `HYDRA_OPTIONS`."""
    run = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    try:
        yield from _leaves(OmegaConf.to_container(run, resolve=True))
    except OmegaConfBaseException:  # the run itself will report it
        yield from _leaves(OmegaConf.to_container(run))
    for part in HYDRA_OPTIONS:
        node = OmegaConf.select(config, f"hydra.{part}", throw_on_missing=False)
        for key, value in _leaves(OmegaConf.to_container(node) if OmegaConf.is_config(node) else node, f"hydra.{part}"):
            override = part == "overrides" and "=" in value
            yield tuple(value.lstrip("+~").split("=", 1)) if override else (key, value)  # type: ignore[misc]


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, (dict, list)):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, schema.below(key, str(name)))
    elif value is not None:
        yield key, str(value)
