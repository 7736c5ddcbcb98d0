"""The DeepSpeed engine: a model and its optimizer, laid out on the hardware."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
from sdx.training import kernels, pack_check
from sdx.training.launch import all_ranks, leaving
from sdx.training.memory import Layout
from sdx.training.optimizers import MULTIPLIER, optimizer, parameter_groups
from sdx.training.quiet import deepspeed, silence
from sdx.training.trainable import TrainableModel

log = getLogger("sdx")

BUCKET_ELEMENTS = 50_000_000
"""200 MB of fp32 gradients in one reduction; DeepSpeed's 2 GB would be taken even by a tiny model."""


class Trained(nn.Module):
    """The model as DeepSpeed's module: ZeRO-3 gathers weights only inside the engine's forward.

    A forward pass gives `compute(model, batch)`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.packed = False
        """Whether the model takes packs; otherwise padded rows."""

    def forward(self, compute: Callable[[Any, dict[str, Any]], Any], batch: dict[str, Any]) -> Any:
        return compute(self.model, batch)


@contextmanager
def build(
    trainable: TrainableModel, train: TrainConfig, layout: Layout, seed: int
) -> Iterator[deepspeed.DeepSpeedEngine]:
    """The loaded model in its layout. Needs the process group; the seed, for the adapters, is the same on all ranks."""
    config = deepspeed_config(train, layout)
    linear = functional.linear
    torch.manual_seed(seed)
    compiles = layout.compile and _can_compile()
    with kernels.compiling(compiles):
        with silence(), ExitStack() as loading:
            if layout.zero_stage == 3:  # `from_pretrained` shards the weights as it loads them, while this object lives
                _alive = HfDeepSpeedConfig(config)
                loading.callback(unset_hf_deepspeed_config)
            model = trainable.load(dtype_of(layout.precision), train)
            llm = trainable.llm(model)
            if layout.activation_checkpointing and llm is not None:
                llm.gradient_checkpointing_enable({"use_reentrant": False})
            if compiles and llm is not None:
                for layer in [module for module in llm.modules() if isinstance(module, GradientCheckpointingLayer)]:
                    layer.compile(dynamic=True)
            weights = optimizer(parameter_groups(model, trainable.rate), train)
            built, *_ = deepspeed.initialize(model=Trained(model), optimizer=weights, config=config)
        built.module.packed = llm is not None and pack_check.takes_packs(built, llm)
        built.train()

        def leave() -> None:
            functional.linear = linear  # stage 3 leaves its own in place
            with silence():
                built.destroy()
            _forget()

        with leaving(leave):
            yield built


def _forget() -> None:
    """Frees modules trained at stage 3: DeepSpeed keeps them in a list and, behind a wrapper, in a method's cache."""
    zero = deepspeed.runtime.zero
    zero.parameter_offload.FWD_MODULE_STACK.clear()
    coordinator = zero.partitioned_param_coordinator.PartitionedParameterCoordinator
    wrapper = vars(coordinator)["_PartitionedParameterCoordinator__params_to_release"]
    getclosurevars(wrapper).nonlocals["func"].cache_clear()


def _can_compile() -> bool:
    """Whether every rank can build a kernel; an installed compiler may still fail. Logs the reason if not."""
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    reason = ""
    kernels.fix_width()
    try:
        torch.compile(lambda x: x.sin() + 1, dynamic=True)(torch.zeros(8, device=device))
    except Exception as error:  # of the compiler, of Inductor, of Triton
        reason = str(error).strip().splitlines()[0]
    built = all_ranks(not reason, device)
    if not built and is_main():
        log.warning("%-12s not compiled, because no kernel can be built: %s", "engine", reason or "on another rank")
    return built


def update(engine: deepspeed.DeepSpeedEngine, rate: float, train: TrainConfig) -> Tensor | float:
    """Clips the gradient and takes a step of the optimizer at the learning rate `rate`, times each group's multiplier.

    Returns:
        The gradient's global norm before clipping.
    """
    for group in engine.optimizer.param_groups:
        group["lr"] = rate * group[MULTIPLIER]
    plain = engine.zero_optimization_stage() == 0  # where DeepSpeed would clip too, but not keep the norm
    clipped = clip_grad_norm_(engine.module.parameters(), train.max_grad_norm) if plain else None
    engine.step()
    norm: Tensor | float = engine.get_global_grad_norm() if clipped is None else clipped
    return norm


def deepspeed_config(train: TrainConfig, layout: Layout) -> dict[str, Any]:
    """DeepSpeed's JSON. Gradients are accumulated and reduced in fp32 at every stage."""
    bf16 = layout.precision is Precision.bf16
    zero: dict[str, Any] = {
        # At stage 0 DeepSpeed accumulates bf16 gradients in bf16, at stage 1 in fp32. On one rank the stages are the
        # same otherwise; on several, stage 1 needs less memory and gathers the weights after each step.
        "stage": max(layout.zero_stage, 1) if bf16 else layout.zero_stage,
        "reduce_bucket_size": BUCKET_ELEMENTS,
        "allgather_bucket_size": BUCKET_ELEMENTS,
        # With the backward pass. Not at stages 1 and 2: on ranks that own nothing of a weight larger than a bucket, the
        # gradient would be freed while it is being reduced.
        "overlap_comm": layout.zero_stage == 3,
    }
    if layout.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,  # the loop decides where a step ends
        "bf16": {"enabled": bf16, "immediate_grad_update": True},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "gradient_clipping": train.max_grad_norm if zero["stage"] else 0.0,
        "timers": {"throughput": {"enabled": False}},  # it waits for the device at every micro-step
    }
