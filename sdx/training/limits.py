"""Which training configs can work. Imports no torch: a run checks before it loads anything."""

from sdx.config import EngineConfig, InputError, TrainConfig
from sdx.training import layout, optimizers

AT_LEAST_ONE = ("lora_rank", "lora_alpha", "batch_size", "log_every_steps", "validations")
AT_LEAST_ZERO = ("weight_decay", "save_every_minutes", "save_every_steps")
ABOVE_ZERO = ("learning_rate", "max_grad_norm")
SHARES = ("lora_dropout", "warmup_ratio", "final_ratio")


def check(train: TrainConfig, engine: EngineConfig) -> None:
    """Raises `InputError` for values that cannot train."""
    for key in AT_LEAST_ONE:
        if (value := getattr(train, key)) < 1:
            raise InputError(f"train.{key}={value} is too small; set it to 1 or more")
    for key in ABOVE_ZERO:
        if (value := getattr(train, key)) <= 0:
            raise InputError(f"train.{key}={value} is too small; set it above 0")
    for key in SHARES:
        if not 0 <= (value := getattr(train, key)) <= 1:
            raise InputError(f"train.{key}={value} is no share; set it between 0 and 1")
    for key in AT_LEAST_ZERO:
        if (value := getattr(train, key)) < 0:
            raise InputError(f"train.{key}={value} is negative; set it to 0 or more")
    if engine.micro_batch_tokens is not None and engine.micro_batch_tokens < 1:
        raise InputError(f"engine.micro_batch_tokens={engine.micro_batch_tokens} is too small; set it to 1 or more")
    if engine.zero_stage not in (None, 0, 1, 2, 3):
        raise InputError(f"engine.zero_stage={engine.zero_stage} does not exist; set it to 0, 1, 2 or 3")
    if engine.offload_optimizer and engine.zero_stage == 0:
        raise InputError("engine.offload_optimizer=true needs engine.zero_stage 1, 2 or 3; set one")
    layout.check(engine)
    optimizers.check(train)
