"""What a search varies: Hydra's sweep overrides as Optuna's distributions.

choice(1,2), 1,2, glob(*)             one of them
range(1,10,2)                         1, 3, .., 9
interval(0.0,0.1)                     a number from 0 to 0.1, both included
int(interval(8,64))                   a whole number
tag(log, interval(1e-5,1e-3))         the same on a logarithmic scale, as of int(interval()) and range() by ones
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from sdx import InputError
from sdx.config import NEUTRAL_KEYS

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Space = Mapping[str, "BaseDistribution"]
"""By key as on the command line. The values of a choice are texts, as on the command line, too."""
LOG = "log"
DIGITS, EXACT_DIGITS = 6, 12
"""Significant ones: of a number that was drawn, for readable commands and tables; of one in steps, where 0.3 may not be
0.30000000000000004."""


def split(overrides: Sequence[Override]) -> tuple[list[str], dict[str, "BaseDistribution"]]:
    """What all runs share, as it was given, and what is searched.

    Raises:
        InputError: nothing is searched, or a value that cannot be.
    """
    fixed = [str(one.input_line) for one in overrides if not one.is_sweep_override()]
    space = {one.get_key_element(): _distribution(one) for one in overrides if one.is_sweep_override()}
    if not space:
        raise InputError(
            "hydra/sweeper=optuna has nothing to search; give a key several values, as in "
            "'train.learning_rate=tag(log,interval(1e-5,1e-3))' or train.batch_size=8,16"
        )
    return fixed, space


def deciding(overrides: Sequence[Override]) -> list[str]:
    """What of the fixed overrides decides a result, in an order of its own."""
    fixed = (override for override in overrides if not override.is_sweep_override())
    return sorted(str(one.input_line) for one in fixed if one.key_or_group.partition(".")[0] not in NEUTRAL_KEYS)


def written(space: Space) -> dict[str, Any]:
    """The space as JSON."""
    from optuna.distributions import distribution_to_json

    return {key: json.loads(distribution_to_json(distribution)) for key, distribution in space.items()}


def assigned(space: Space, values: Mapping[str, Any]) -> list[str]:
    """A point of the space as overrides."""
    return [f"{key}={_text(space[key], values[key])}" for key in space]


def corner(space: Space) -> dict[str, Any]:
    """The smallest or first value of each key."""
    from optuna.distributions import CategoricalDistribution

    return {
        key: one.choices[0] if isinstance(one, CategoricalDistribution) else one.low  # type: ignore[attr-defined]
        for key, one in space.items()
    }


def _distribution(override: Override) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution

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


def _numbers(values: Sequence[Any], step: float | None, log: bool) -> "BaseDistribution":
    """From the smallest to the largest of the values.

    Args:
        step: between two; none for all there are.
    """
    from optuna.distributions import FloatDistribution, IntDistribution

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


def _text(distribution: "BaseDistribution", value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return str(_rounded(value, EXACT_DIGITS if getattr(distribution, "step", None) else DIGITS))


def _rounded(value: float, digits: int = EXACT_DIGITS) -> float:
    return float(f"{value:.{digits}g}")
