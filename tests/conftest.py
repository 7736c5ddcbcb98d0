"""What every test leaves as it found it."""

import logging
import os
from collections.abc import Iterator

import pytest

from sdx.models import residency

os.environ.setdefault("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there: no test asks the real hub


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
