"""The DeepSpeed engine: a model, its optimizer and how they are laid out on the hardware."""

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import getclosurevars
from logging import getLogger
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from transformers.integrations import HfDeepSpeedConfig
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.modeling_layers import GradientCheckpointingLayer

from sdx.config import Precision, TrainConfig
from sdx.models.loading import dtype_of
from sdx.process.ranks import is_main
from sdx.training import kernels, probe
from sdx.training.launch import agree, leaving
from sdx.training.memory import Layout
from sdx.training.objectives import Objective
from sdx.training.optimizers import MULTIPLIER, optimizer, parameter_groups
from sdx.training.quiet import deepspeed, silence
from sdx.training.trainee import Trainee

log = getLogger("sdx")

BUCKET_ELEMENTS = 50_000_000
"""200 MB of fp32 gradients in one reduction; DeepSpeed's 2 GB would be taken even by a tiny model."""


class Trained(nn.Module):
    """Model and objective as one module: ZeRO-3 gathers weights only inside the engine's forward."""

    def __init__(self, model: nn.Module, objective: Objective[Any]) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.packed = False
        """Whether the model takes packs; else padded rows."""

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return self.objective.loss(self.model, batch)


@contextmanager
def build(
    trainee: Trainee, objective: Objective[Any], train: TrainConfig, layout: Layout, seed: int
) -> Iterator[deepspeed.DeepSpeedEngine]:
    """What is trained, loaded and laid out for it. Needs the process group.

    Called with a batch it gives the objective's sum and count. All ranks need one seed, for the adapters.
    """
    config = deepspeed_config(train, layout)
    linear = functional.linear
    torch.manual_seed(seed)
    compiles = layout.compile and _can_compile()
    with kernels.compiling(compiles):
        with silence(), _sharded_loading(config):
            model = trainee.load(dtype_of(layout.precision), train)
            llm = trainee.llm(model)
            if layout.activation_checkpointing and llm is not None:
                llm.gradient_checkpointing_enable({"use_reentrant": False})
            if compiles and llm is not None:
                for layer in [module for module in llm.modules() if isinstance(module, GradientCheckpointingLayer)]:
                    layer.compile(dynamic=True)
            weights = optimizer(parameter_groups(model, trainee.rate), train)
            trained = Trained(model, objective)
            built, *_ = deepspeed.initialize(model=trained, optimizer=weights, config=config)
        built.module.packed = llm is not None and probe.takes_packs(built, llm)
        built.train()

        def leave() -> None:
            functional.linear = linear  # stage 3 leaves its own in place
            with silence():
                built.destroy()
            _forget()

        with leaving(leave):
            yield built


def _forget() -> None:
    """DeepSpeed remembers modules that it trained at stage 3, for ever: in a list of the forward pass and in the cache
    of a method, which is found in the wrapper around it."""
    zero = deepspeed.runtime.zero
    zero.parameter_offload.FWD_MODULE_STACK.clear()
    coordinator = zero.partitioned_param_coordinator.PartitionedParameterCoordinator
    wrapper = vars(coordinator)["_PartitionedParameterCoordinator__params_to_release"]
    getclosurevars(wrapper).nonlocals["func"].cache_clear()


def _can_compile() -> bool:
    """Whether a kernel can really be built, on every rank; says so if not. A compiler that is there may yet fail."""
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    reason = ""
    kernels.fix_width()
    try:
        torch.compile(lambda x: x.sin() + 1, dynamic=True)(torch.zeros(8, device=device))
    except Exception as error:  # of the compiler, of Inductor, of Triton
        reason = str(error).strip().splitlines()[0]
    built = agree(not reason, device)
    if not built and is_main():
        log.warning("%-12s not compiled, because no kernel can be built: %s", "engine", reason or "on another rank")
    return built


def update(engine: deepspeed.DeepSpeedEngine, rate: float, train: TrainConfig) -> Tensor | float:
    """Clips and takes the optimizer's step at the learning rate `rate`, times each group's multiplier.

    Returns:
        The gradient's global norm before clipping.
    """
    norm: Tensor | float
    for group in engine.optimizer.param_groups:
        group["lr"] = rate * group[MULTIPLIER]
    if engine.zero_optimization_stage() == 0:  # DeepSpeed would clip here too, but keep no norm
        norm = clip_grad_norm_(engine.module.parameters(), train.max_grad_norm)
        engine.step()
    else:
        engine.step()
        norm = engine.get_global_grad_norm()
    return norm


def deepspeed_config(train: TrainConfig, layout: Layout) -> dict[str, Any]:
    """DeepSpeed's JSON. Gradients are accumulated and reduced in fp32 at every stage."""
    bf16 = layout.precision is Precision.bf16
    zero: dict[str, Any] = {
        # At stage 0 DeepSpeed accumulates bf16 gradients in bf16. Its stage 1 does it in fp32 and is the same
        # otherwise on one rank; on several it needs less memory and gathers the weights after each step.
        "stage": max(layout.zero_stage, 1) if bf16 else layout.zero_stage,
        "reduce_bucket_size": BUCKET_ELEMENTS,
        "allgather_bucket_size": BUCKET_ELEMENTS,
        # With the rest of the backward pass. Not at stages 1 and 2: on ranks that own nothing of a weight larger than a
        # bucket, its gradient would be freed while it is still being reduced.
        "overlap_comm": layout.zero_stage == 3,
    }
    if layout.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,  # the loop itself says where a step ends
        "bf16": {"enabled": bf16, "immediate_grad_update": True},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "gradient_clipping": train.max_grad_norm if zero["stage"] else 0.0,
        "timers": {"throughput": {"enabled": False}},  # it waits for the device at every micro-step
    }


@contextmanager
def _sharded_loading(config: dict[str, Any]) -> Iterator[None]:
    """Lets `from_pretrained` shard the weights as it loads them, at stage 3."""
    alive = HfDeepSpeedConfig(config) if config["zero_optimization"]["stage"] == 3 else None
    try:
        yield
    finally:
        if alive is not None:
            unset_hf_deepspeed_config()
