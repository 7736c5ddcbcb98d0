"""What the launchers of sdx share: `python -m sdx -m ... hydra/launcher=local` and `slurm`."""

from collections.abc import Sequence
from logging import INFO, WARNING, getLogger
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from sdx import InputError
from sdx.models.precision import Settled
from sdx.process.ranks import world_size
from sdx.store.store import Store
from sdx.sweeps import conclusion
from sdx.sweeps.cells import Ending, SweepCell, check, check_alone, compose_all, named, returns

if TYPE_CHECKING:
    from sdx.methods.base import Work

log = getLogger("sdx")


class CellLauncher(Launcher):
    """Checks all cells of a sweep before one starts, leaves out those that are done, and runs the others."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Returns when all cells have ended.

        Raises:
            InputError: a cell cannot work; none was started.
        """
        if world_size() > 1:
            raise InputError(
                "-m starts a process for each cell; start it without torchrun, and let hydra/launcher=slurm give a "
                "cell several GPUs"
            )
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        cells = compose_all(self.hydra_context, self.config, job_overrides, initial_job_idx)
        check_alone(self.hydra_context, cells[0])
        works = check(cells)
        if cells[0].config.plan:
            plan(cells, works)
            return []
        for _, work in works:
            work.cell.settle()
        waiting = {cell.run_dir: cell for cell in cells if cell.ending is None}
        log.info("%-12s %d cells, %d of them done before", "sweep", len(cells), len(cells) - len(waiting))
        conclusion.expect(cells)
        self.run(list(waiting.values()))
        for cell in cells:  # two of a sweep may be one and the same
            if cell.ending is None:
                cell.ending, cell.error = waiting[cell.run_dir].ending, waiting[cell.run_dir].error
        return returns(cells)

    def run(self, cells: Sequence[SweepCell]) -> None:
        """Runs them and says of each how it ended."""
        raise NotImplementedError


def plan(cells: Sequence[SweepCell], works: "Sequence[tuple[Settled, Work]]") -> None:
    """Prints it. A plan needs no machine of its own, and a cell's directory is not made for it."""
    from sdx.planning.sweep import show_sweep

    store = Store(Path(cells[0].config.cache_dir))
    names = named(cells)
    show_sweep([(name, *work) for name, work in zip(names, works, strict=True)], store)


def start(cell: SweepCell, where: str) -> None:
    """Says so."""
    log.info("%-12s %s  %s", "start", cell.name, where)


def end(cell: SweepCell) -> None:
    """Says how it ended."""
    assert cell.ending
    error = f": {cell.error}" if cell.error else ""
    log.log(INFO if cell.ending is Ending.done else WARNING, "%-12s %s%s", cell.ending.value, cell.name, error)
