"""The space of a search: Hydra's sweep overrides as Optuna's distributions.

choice(1,2), 1,2, glob(*)             one of the values
range(1,10,2)                         1, 3, .., 9
interval(0.0,0.1)                     a number from 0 to 0.1, both included
int(interval(8,64))                   a whole number
tag(log, interval(1e-5,1e-3))         on a logarithmic scale; also int(interval()), and range() in steps of 1
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna import distributions
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sdx import InputError
from sdx.config import NEUTRAL_KEYS

Space = Mapping[str, BaseDistribution]
"""Key -> distribution. Keys, and the values of a choice, are texts as on the command line."""
LOG = "log"
DIGITS, EXACT_DIGITS = 6, 12
"""Significant digits of numbers that were drawn, for readable commands, and of numbers in steps, such that 0.3 is not
0.30000000000000004."""


def split(overrides: Sequence[Override]) -> tuple[list[str], dict[str, BaseDistribution]]:
    """The overrides that all runs share, and the space. Raises InputError if it is empty or cannot be searched."""
    fixed = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
    space = {each.get_key_element(): _distribution(each) for each in overrides if each.is_sweep_override()}
    if not space:
        raise InputError(
            "hydra/sweeper=optuna has nothing to search; give a key several values, as in "
            "'train.learning_rate=tag(log,interval(1e-5,1e-3))' or train.batch_size=8,16"
        )
    return fixed, space


def deciding(overrides: Sequence[Override]) -> list[str]:
    """The fixed overrides that results depend on, sorted."""
    fixed = (override for override in overrides if not override.is_sweep_override())
    return sorted(str(each.input_line) for each in fixed if each.key_or_group.partition(".")[0] not in NEUTRAL_KEYS)


def as_json(space: Space) -> dict[str, Any]:
    return {key: json.loads(distributions.distribution_to_json(distribution)) for key, distribution in space.items()}


def to_overrides(space: Space, values: Mapping[str, Any]) -> tuple[str, ...]:
    """A point of the space as overrides."""
    return tuple(f"{key}={_text(space[key], values[key])}" for key in space)


def first_point(space: Mapping[str, Any]) -> tuple[str, ...]:
    """The first or smallest value of each key, as overrides."""
    values = {
        key: each.choices[0] if isinstance(each, CategoricalDistribution) else each.low for key, each in space.items()
    }
    return to_overrides(space, values)


def _distribution(override: Override) -> BaseDistribution:
    sweep = override.value()
    tags: set[str] = getattr(sweep, "tags", set())
    try:
        if tags - {LOG}:
            raise ValueError(f"tag {min(tags - {LOG})} is unknown; {LOG} is the one there is")
        if isinstance(sweep, IntervalSweep):
            return _numbers([sweep.start, sweep.end], None, LOG in tags)
        if isinstance(sweep, RangeSweep):
            return _numbers(list(sweep.range()), abs(sweep.step), LOG in tags)
        if tags:
            raise ValueError(f"tag {LOG} is for interval() and range()")
        if not (choices := list(dict.fromkeys(override.sweep_string_iterator()))):
            raise ValueError("there is no such option")
        return CategoricalDistribution(choices)
    except ValueError as error:
        raise InputError(f"{override.input_line} cannot be searched: {error}") from None


def _numbers(values: Sequence[Any], step: float | None, log: bool) -> BaseDistribution:
    """The numbers from the smallest to the largest of the values, in steps; step None for a continuous range."""
    if not values:
        raise ValueError("it holds no value")
    if step is None and values[0] >= values[1]:
        raise ValueError("the first end must be below the second")
    low, high = min(values), max(values)
    if all(isinstance(value, int) for value in values):
        return IntDistribution(low, high, log=log, step=int(step or 1))
    if step is None:
        return FloatDistribution(low, high, log=log)
    if log:
        raise ValueError(f"tag {LOG} of a range is for whole numbers by ones; take interval()")
    return FloatDistribution(_rounded(low), _rounded(high), step=_rounded(step))


def _text(distribution: BaseDistribution, value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return str(_rounded(value, EXACT_DIGITS if getattr(distribution, "step", None) else DIGITS))


def _rounded(value: float, digits: int = EXACT_DIGITS) -> float:
    return float(f"{value:.{digits}g}")
