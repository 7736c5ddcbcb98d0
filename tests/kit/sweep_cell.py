"""A run of a sweep by what it left."""

from pathlib import Path

from omegaconf import OmegaConf

from sdx.config import Config, Stages
from sdx.store.files import write_json
from sdx.sweeps.cells import SweepCell
from sdx.tracking.state import STATE


def cell(path: Path, state: str | None = None, stages: Stages = Stages.all, **fields: object) -> SweepCell:
    if state:
        write_json(path / STATE, {"state": state, **fields})
    config = OmegaConf.structured(Config)
    config.stages = stages
    return SweepCell(0, [], [], config, path)
