"""What can be wrong with the place that a run is started in, found before anything is composed."""

import os
import sys
from collections.abc import Sequence

from sdx import InputError
from sdx.process import ranks

READ = ("HOME", "SDX_CACHE")
"""Variables that hold paths of ours."""


def check(arguments: Sequence[str]) -> None:
    """Raises InputError where a run could not work with these arguments here."""
    ranks.check()
    try:
        here = os.getcwd()
    except OSError as error:
        raise InputError(f"the working directory is gone ({error.strerror}); cd to one that is there") from None
    texts = [*arguments, here, *(f"{name}={value}" for name in READ if (value := os.environ.get(name)))]
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:  # Python keeps bytes that it cannot read as halves of letters
            raise InputError(
                f"{text!a} cannot be read in the encoding {sys.getfilesystemencoding()}; set PYTHONUTF8=1, or "
                "give names in UTF-8"
            ) from None
