"""The DeepSpeed engine: a model and its optimizer, laid out on the hardware, and whether the model takes packs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from inspect import getclosurevars
from logging import getLogger
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from transformers.integrations import HfDeepSpeedConfig
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.modeling_layers import GradientCheckpointingLayer

from sdx.config import Precision, TrainConfig
from sdx.models.loading import dtype_of, padded
from sdx.process.ranks import is_main
from sdx.training import attention, kernels, packing
from sdx.training.launch import all_ranks, leaving
from sdx.training.memory import Layout
from sdx.training.objectives import evaluating
from sdx.training.optimizers import MULTIPLIER, optimizer, parameter_groups
from sdx.training.quiet import deepspeed, silence
from sdx.training.trainable import TrainableModel

log = getLogger("sdx")

BUCKET_ELEMENTS = 50_000_000
"""200 MB of fp32 gradients in one reduction; DeepSpeed's 2 GB would be taken even by a tiny model."""
SAME, NEAR = 1e-3, 0.05
"""Tolerated norm of a difference, relative to the norm. Two packs of the same shape differ only if examples see each
other; another shape rounds differently, in a deep model in bf16 by up to a few percent."""
FIRST, OTHER, SECOND = [7, 9, 11, 13, 15], [8, 20, 12, 24, 16], [17, 6, 19, 10, 21, 14, 23]
"""Token ids of three examples; the first two are of one length."""


class Trained(nn.Module):
    """The model as DeepSpeed's module. Computes in `forward`, because ZeRO-3 gathers weights only there."""

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
        built.module.packed = llm is not None and takes_packs(built, llm)
        built.train()

        def leave() -> None:
            functional.linear = linear  # stage 3 leaves its own in place
            with silence():
                built.destroy()
            # DeepSpeed keeps modules trained at stage 3 in a list and, behind a wrapper, in a method's cache.
            zero = deepspeed.runtime.zero
            zero.parameter_offload.FWD_MODULE_STACK.clear()
            coordinator = zero.partitioned_param_coordinator.PartitionedParameterCoordinator
            wrapper = vars(coordinator)["_PartitionedParameterCoordinator__params_to_release"]
            getclosurevars(wrapper).nonlocals["func"].cache_clear()

        with leaving(leave):
            yield built


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


def takes_packs(engine: deepspeed.DeepSpeedEngine, llm: Any) -> bool:
    """Whether an example has the same outputs in any pack as alone; if so, sets the model up for packs.

    Architectures differ in more than their configs say (state-space layers, position biases, soft-capped scores), and
    an example that sees another gives no error, only a worse model. If variable-length attention fails, attention goes
    example by example. Called on every rank, with the same result. `llm` is the part of the model that takes ids.
    """

    def outputs(_model: Any, batch: dict[str, Any]) -> Tensor:
        """Logits or hidden states."""
        first: Tensor = llm(**batch, use_cache=False)[0]
        return first

    def obstacle() -> str:
        """Why the model or another rank cannot take packs, as the end of a sentence; empty if all can."""
        reason = _obstacle(engine, outputs, alone)
        return "" if all_ranks(not reason, engine.device) else reason or "another rank cannot take packs"

    ordinary = llm.config._attn_implementation
    with evaluating(engine), silence():
        [alone] = engine(outputs, send_to_device(padded([SECOND], pad_id=0), engine.device))
        llm.set_attn_implementation(attention.PACKED)
        varlen = attention.prepare(engine.device)
        reason = obstacle()
        if reason and varlen:
            if is_main():
                log.warning("%-12s no variable-length attention: %s", "packing", reason)
            attention.prepare(engine.device, varlen=False)
            reason = obstacle()
        if reason:
            llm.set_attn_implementation(ordinary)
    if is_main():
        way = f"padded rows: {reason}" if reason else attention.describe(engine.device, llm.dtype)
        log.info("%-12s %s", "packing", way)
    return not reason


def _obstacle(engine: deepspeed.DeepSpeedEngine, outputs: Any, alone: Tensor) -> str:
    """Why the model cannot take packs; empty if it can."""
    try:
        packs = (send_to_device(packing.join([first, SECOND]), engine.device) for first in (FIRST, OTHER))
        one, two = (engine(outputs, pack)[0, len(FIRST) :] for pack in packs)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        return f"the model does not support packs: {' '.join(str(error).split())[:100]}"
    if not _close(one, two, SAME):
        return "the model's examples see each other in a pack"
    if not _close(one, alone, NEAR if one.dtype is torch.bfloat16 else SAME):
        return "the model gives other outputs in a pack than for an example alone"
    return ""


def _close(ours: Tensor, theirs: Tensor, tolerance: float) -> bool:
    ours, theirs = ours.float(), theirs.float()
    return bool((ours - theirs).norm() <= tolerance * theirs.norm())


def update(engine: deepspeed.DeepSpeedEngine, rate: float, train: TrainConfig) -> Tensor | float:
    """Clips the gradient and takes a step of the optimizer at the learning rate `rate`, times each group's multiplier.

    Returns the gradient's global norm before clipping.
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
