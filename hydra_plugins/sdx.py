"""Where Hydra finds sdx's launchers and its sweeper: it takes them from this namespace package alone."""

from sdx.sweeps import grid, local, slurm, sweeper


class LocalLauncher(local.LocalLauncher):
    __doc__ = local.LocalLauncher.__doc__


class SlurmLauncher(slurm.SlurmLauncher):
    __doc__ = slurm.SlurmLauncher.__doc__


class GridSweeper(grid.GridSweeper):
    __doc__ = grid.GridSweeper.__doc__


class OptunaSweeper(sweeper.OptunaSweeper):
    __doc__ = sweeper.OptunaSweeper.__doc__
