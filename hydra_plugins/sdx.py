"""Where Hydra finds sdx's launchers and its sweepers: it takes them from this namespace package alone."""

from sdx.sweeps import launcher, slurm, sweeper


class LocalLauncher(launcher.LocalLauncher):
    __doc__ = launcher.LocalLauncher.__doc__


class SlurmLauncher(slurm.SlurmLauncher):
    __doc__ = slurm.SlurmLauncher.__doc__


class GridSweeper(sweeper.GridSweeper):
    __doc__ = sweeper.GridSweeper.__doc__


class OptunaSweeper(sweeper.OptunaSweeper):
    __doc__ = sweeper.OptunaSweeper.__doc__
