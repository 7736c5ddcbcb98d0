"""What every test leaves as it found it."""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdx.models import residency

os.environ.setdefault("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there: no test asks the real hub

STARTS = re.compile(
    r"^from tests\.kit(\.| import )(forks|gpu|kills|processes|second_trainable|slurm|training|workplace)\b"
    r"|^pytestmark = pytest\.mark\.whole$",
    re.MULTILINE,
)
"""In a test module that starts runs or trainings: what it takes from the kit tells, or it says so."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make test-fast` does not even import the modules that start runs or trainings."""
    fast = "not whole" in config.option.markexpr and collection_path.suffix == ".py"
    return True if fast and STARTS.search(collection_path.read_text()) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    whole = {path for path in {item.path for item in items} if STARTS.search(path.read_text())}
    for item in items:
        if item.path in whole:
            item.add_marker("whole")


@pytest.fixture(autouse=True)
def nothing_in_memory() -> Iterator[None]:
    """A model that a test changed is not the next one's."""
    yield
    residency._held.clear()  # `release` collects garbage, which takes a second with all that tests import


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Hydra sets up logging to the streams of the test that runs it, which the next one has no more."""
    loggers = [logging.getLogger(), logging.getLogger("sdx")]
    before = [(logger, logger.handlers[:], logger.level, logger.disabled, logger.propagate) for logger in loggers]
    yield
    for logger, handlers, level, disabled, propagate in before:
        logger.handlers[:] = handlers
        logger.disabled, logger.propagate = disabled, propagate
        logger.setLevel(level)
