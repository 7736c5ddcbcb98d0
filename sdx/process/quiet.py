"""transformers without its chatter."""

from collections.abc import Iterator
from contextlib import contextmanager


def quiet() -> None:
    """Switches off the progress bars of transformers."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


@contextmanager
def unreported() -> Iterator[None]:
    """Inside the block, transformers shows no bars and no long report on weights that only the checkpoint has."""
    from transformers.utils import logging

    quiet()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
