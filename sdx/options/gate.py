"""Between what Hydra composed and what runs: nothing wrong passes, and no directory is made for it."""

import sys
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from sdx import InputError
from sdx.options import conformity, secret
from sdx.process.printable import escaped
from sdx.process.ranks import is_main
from sdx.process.secret import scrub

STUMBLES = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What Hydra raises where it did not foresee what it is given."""


class Gate(Callback):
    """Ends a run whose configuration cannot be or holds a secret; `hydra.callbacks` in conf/config.yaml."""

    passed: ClassVar[bool] = False
    """Whether the configuration of this process is composed: errors that come later are those of the run."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        self._pass(config, config)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self._pass(config, config.hydra, "hydra")  # the runs have the values that the rest of it lacks

    def _pass(self, config: DictConfig, part: DictConfig, at: str = "") -> None:
        try:
            conformity.check(part, at)
            secret.check(config)
        except InputError as error:
            sys.exit(fail(str(error), 2))  # of exceptions Hydra would make a warning
        Gate.passed = True


def stumbled(overrides: list[str], error: Exception) -> InputError:
    """What to say where Hydra says nothing itself."""
    reason = " ".join(str(error).split())
    return InputError(f"{' '.join(overrides)} cannot be composed: {reason}; see python -m sdx --help")


def fail(message: str, code: int) -> int:
    """Tells of an error in one line; the exit code."""
    if is_main():
        print(f"sdx: {escaped(scrub(message))}".replace("\n", "\\n"), file=sys.stderr)
    return code
