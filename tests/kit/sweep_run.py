"""A run of a sweep that was not composed."""

from pathlib import Path

from omegaconf import OmegaConf

from sdx.config import Config, Stages
from sdx.store.files import write_json
from sdx.sweeps.runs import SweepRun
from sdx.tracking.state import STATE


def planned(path: Path, state: str | None = None, stages: Stages = Stages.all, **fields: object) -> SweepRun:
    """It left a state file, if a state is given."""
    if state:
        write_json(path / STATE, {"state": state, **fields})
    config = OmegaConf.structured(Config)
    config.stages = stages
    return SweepRun(0, [], [], config, path)
