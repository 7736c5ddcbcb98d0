"""What can be wrong with the environment and the directory of a run, found before anything is composed."""

import os
import sys
from collections.abc import Sequence

from sdx import InputError
from sdx.process import ranks


def check(arguments: Sequence[str]) -> None:
    """Raises InputError if no run with these arguments could work here."""
    ranks.check()
    try:
        here = os.getcwd()
    except OSError as error:
        raise InputError(f"the working directory is gone ({error.strerror}); cd to one that is there") from None
    variables = [f"{name}={os.environ[name]}" for name in ("HOME", "SDX_CACHE") if name in os.environ]
    for text in (*arguments, here, *variables):
        try:
            text.encode()
        except UnicodeEncodeError:  # Python keeps bytes that it cannot decode as halves of characters
            raise InputError(
                f"{text!a} cannot be read in the encoding {sys.getfilesystemencoding()}; set PYTHONUTF8=1, or "
                "give names in UTF-8"
            ) from None
