"""transformers without its chatter."""

from collections.abc import Iterator
from contextlib import contextmanager


def quiet() -> None:
    """No bars of transformers between ours."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


@contextmanager
def unreported() -> Iterator[None]:
    """While inside, no bars, and no report of many lines on weights that a checkpoint has and the model has not."""
    from transformers.utils import logging

    quiet()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
