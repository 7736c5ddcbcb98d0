"""The optimizer of every training."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sdx import InputError
from sdx.config import Optimizer, TrainConfig

if TYPE_CHECKING:
    import torch

EXTRA = "pip install 'sdx[8bit]'"
PROBE_WEIGHTS = 4096
"""The smallest tensor whose moments bitsandbytes keeps in 8 bits."""
MULTIPLIER = "multiplier"
"""Key of a parameter group with the factor of its learning rate. DeepSpeed keeps the key at every stage."""


def check(train: TrainConfig) -> None:
    """Raises `InputError` if the optimizer's package is missing. Imports nothing."""
    if train.optimizer is Optimizer.adamw_8bit and find_spec("bitsandbytes") is None:
        raise InputError(
            f"train.optimizer={train.optimizer.value} needs bitsandbytes; install it with {EXTRA} or take "
            f"train.optimizer={Optimizer.adamw.value}"
        )


def check_device(train: TrainConfig, device: "torch.device") -> None:
    """Takes a step on a few weights, because bitsandbytes fails only then if it has no code for the device.

    Raises:
        InputError: the package is missing, or the optimizer does not run on the device.
    """
    import torch

    check(train)
    if train.optimizer is Optimizer.adamw:
        return
    probe = torch.nn.Parameter(torch.zeros(PROBE_WEIGHTS, device=device))
    probe.grad = torch.ones_like(probe)
    try:
        optimizer([probe], train).step()
    except (RuntimeError, NotImplementedError) as error:
        raise InputError(
            f"train.optimizer={train.optimizer.value} does not run on {device}: {str(error).strip().splitlines()[0]}; "
            f"take train.optimizer={Optimizer.adamw.value}"
        ) from error


def parameter_groups(model: "torch.nn.Module", rate: Callable[[str], float]) -> list[dict[str, Any]]:
    """The trained parameters of `model`, in a group for each factor that `rate` gives for a parameter's name."""
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            groups.setdefault(rate(name), []).append(weight)
    return [{"params": weights, MULTIPLIER: multiplier} for multiplier, weights in groups.items()]


def optimizer(
    weights: Sequence["torch.nn.Parameter"] | Sequence[dict[str, Any]], train: TrainConfig
) -> "torch.optim.Optimizer":
    """AdamW over weights or groups of weights, which DeepSpeed replaces by flat fp32 partitions at stage 1 and above.

    The 8-bit optimizer keeps `state1` and `state2` in blocks of 256 weights of a partition, which depend on the number
    of ranks and the stage. torchao's has fp32 moments for a partition that 256 does not divide.
    """
    import torch

    if train.optimizer is Optimizer.adamw:
        # PyTorch's fused AdamW is as fast as DeepSpeed's own on GPU and CPU and needs no compiler.
        return torch.optim.AdamW(weights, lr=train.learning_rate, weight_decay=train.weight_decay, fused=True)
    from bitsandbytes.optim import AdamW8bit

    eight_bit: torch.optim.Optimizer = AdamW8bit(weights, lr=train.learning_rate, weight_decay=train.weight_decay)
    return eight_bit
