"""Which training configs can work. Imports no torch: a run checks before it loads anything."""

from sdx import InputError
from sdx.config import EngineConfig, TrainConfig
from sdx.training import layout, optimizers


def check(train: TrainConfig, engine: EngineConfig) -> None:
    """Raises `InputError` for values that cannot train."""
    if engine.offload_optimizer and engine.zero_stage == 0:
        raise InputError("engine.offload_optimizer=true needs engine.zero_stage 1, 2 or 3; set one")
    layout.check(engine)
    optimizers.check(train)
