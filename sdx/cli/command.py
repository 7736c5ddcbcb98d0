"""What `python -m sdx.cache`, `dashboard`, `report` and `status` share.

Nothing heavy is imported here or in these modules: help and errors answer at once.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from sdx import InputError
from sdx.process import terminal
from sdx.process.printable import escaped

LOG_WIDTH = 160
"""Columns of a table if the output is no terminal."""


class Parser(argparse.ArgumentParser):
    """Reports a bad command in one line."""

    def error(self, message: str) -> NoReturn:
        fail(f"{message}; {self.prog} --help explains")


@contextmanager
def command() -> Iterator[None]:
    """Reports an error of the user, or of a file, in one line with exit code 2."""
    terminal.outlive()
    try:
        yield
    except InputError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(130)


def fail(message: str) -> NoReturn:
    print(f"sdx: {message}", file=sys.stderr)
    sys.exit(2)


def one_line(text: str) -> str:
    """A foreign text, on one line and unable to control the terminal."""
    return escaped(re.sub(r"[\n\r\t]", " ", text))
