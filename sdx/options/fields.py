"""What a value of the configuration may be: metadata of its field, which `sdx.options.schema` checks.

Imports nothing of sdx.
"""

import difflib
import math
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

from omegaconf import MISSING

SPEC = "sdx"
"""Key of the metadata."""
SEED = 2**32 - 1
"""The largest seed of NumPy."""


@dataclass(frozen=True)
class Range:
    """The numbers between two bounds; nan is outside."""

    low: float
    high: float
    with_low: bool = True
    with_high: bool = True

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        above = value >= self.low if self.with_low else value > self.low
        return above and (value <= self.high if self.with_high else value < self.high)

    def wrong(self, value: Any) -> str:
        """What is wrong with a value outside."""
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            return "is not a number"
        if value >= self.high:
            return "is too large"
        return "is negative" if value < 0 == self.low else "is too small"

    def __str__(self) -> str:
        low = _written(self.low) if self.with_low else f"more than {_written(self.low)}"
        return f"{low} to {_written(self.high)}" if self.with_high else f"{low}, less than {_written(self.high)}"


@dataclass(frozen=True)
class Choices:
    """The texts that a value, or each value of a list, may be."""

    names: tuple[str, ...]

    def wrong(self, value: str) -> str | None:
        """What is wrong with a value; None if it is one of the choices."""
        if value in self.names:
            return None
        near = difflib.get_close_matches(value, self.names, n=1, cutoff=0.5)
        return f"is unknown; {f'did you mean {near[0]}? ' if near else ''}Choose from: {', '.join(self.names)}"


class Text(Enum):
    """Kinds of text that may not be just any text."""

    name = "name"
    """Part of the name of a file or directory, or a word in a table."""
    path = "path"
    """Where a file or directory lies."""
    line = "line"
    """One line that others show, such as wandb."""
    language = "language"
    """A language of languages.csv."""
    languages = "languages"
    """A language, a set of languages, or a list of both."""


NAMES = {SPEC: Text.name}
"""Metadata of a dict whose keys are each a `Text.name`."""
LANGUAGES = {SPEC: Text.languages}


def number(
    default: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> Any:
    """A field with numbers between two bounds: a number, null if its type allows it, or a list or dict of numbers."""
    low, high = above if at_least is None else at_least, below if at_most is None else at_most
    assert low is not None
    assert high is not None
    return field(default=default, metadata={SPEC: Range(low, high, above is None, below is None)})


def text(kind: Text, default: Any = None) -> Any:
    """A field with a kind of text."""
    return field(default=default, metadata={SPEC: kind})


path = partial(text, Text.path)
line = partial(text, Text.line)
language = partial(text, Text.language)


def name(default: Any = MISSING) -> Any:
    return text(Text.name, default)


def among(names: tuple[str, ...]) -> dict[str, Any]:
    """Metadata of a field with one of these names, or a list of some of them."""
    return {SPEC: Choices(names)}


def _written(bound: float) -> str:
    """1000000 rather than 1e+06."""
    return str(int(bound)) if float(bound).is_integer() else f"{bound:g}"
