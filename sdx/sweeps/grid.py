"""The sweeper of `python -m sdx -m` without another: every combination of the values given."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice, product
from math import prod

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from sdx import InputError
from sdx.options import fields

MOST_CELLS = 100_000


@dataclass
class GridConfig:
    """Options of `hydra.sweeper`, the same as those of Hydra's own sweeper."""

    _target_: str = "hydra_plugins.sdx.GridSweeper"
    max_batch_size: int | None = fields.number(None, at_least=1, at_most=MOST_CELLS)
    """Cells that are checked and launched at once; none is all of them."""
    params: dict[str, str] | None = None
    """What is varied or fixed beside the command line, which goes before it; an experiment's grid."""


class GridSweeper(Sweeper):
    """Launches all combinations. The arguments are those of `GridConfig`.

    Hydra's own composes each cell once more than the launcher does, which checks all of them before one starts.
    """

    def __init__(self, max_batch_size: int | None, params: Mapping[str, str] | None) -> None:
        self.max_batch_size = max_batch_size
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        """Launches them.

        Raises:
            InputError: there are none, or more than anybody waits for.
        """
        assert self.hydra_context
        assert self.launcher
        given = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        overrides = OverridesParser.create(self.hydra_context.config_loader).parse_overrides(given)
        values = {override.get_key_element(): _values(override) for override in overrides}  # the last one holds
        if prod(map(len, values.values())) > MOST_CELLS:
            raise InputError(f"the sweep has more than {MOST_CELLS} cells; vary less at once")
        cells = [list(cell) for cell in product(*values.values())]
        size = self.max_batch_size or len(cells)
        for first in range(0, len(cells), size):
            self.launcher.launch(cells[first : first + size], initial_job_idx=first)


def _values(override: Override) -> list[str]:
    """An override for each value that it gives its key; no more than a sweep may have."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if not override.is_discrete_sweep():
        raise InputError(
            f"{override.input_line} names no values to try one after the other; give some, or search it with "
            "hydra/sweeper=optuna"
        )
    values = list(islice(override.sweep_string_iterator(), MOST_CELLS + 1))
    if not values:
        raise InputError(f"{override.input_line} gives no value, and the sweep has no cell; give one or more")
    return [f"{override.get_key_element()}={value}" for value in values]
