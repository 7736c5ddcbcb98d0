"""How a training is laid out on the hardware: what the config leaves open is chosen here.

No layout changes the result. Imports no torch.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from sdx import InputError
from sdx.config import Adapter, EngineConfig, Optimizer, ShapeConfig, TrainConfig
from sdx.training.hardware import Hardware
from sdx.training.memory import GIB, GROWN, HOST_USABLE, RESERVE_BYTES, Layout, Memory, room, training_memory

GPU_TOKENS = 4096
"""A GPU is busy with as many tokens of a model worth training on one."""
MOST_GPU_TOKENS = 16_384
"""More do not make it faster."""
CPU_TOKENS = 4096
"""About a tenth faster than 2048: gradients are added up half as often."""
TOKENS_STEP = 512
"""Micro-batches grow by as many tokens."""
LARGER = 1.25
"""Times a mean batch: most batches of 16 are smaller and so need no second micro-batch."""
COMPILE_REPAID = {True: 2e16, False: 3e12}
"""Tokens times parameters of a rank, with and without CUDA, from which compiling saves the time it takes. Ours."""
DECIDES_MEMORY = ("zero_stage", "offload_optimizer", "activation_checkpointing", "micro_batch_tokens")


def check(engine: EngineConfig) -> None:
    """Raises `InputError` for what cannot go together on any hardware."""
    if engine.compile and engine.zero_stage == 3:
        raise InputError(
            "engine.compile=true does not work with engine.zero_stage=3, whose hooks break the graphs; "
            "set engine.compile=false or a lower stage"
        )


def choose(
    engine: EngineConfig,
    train: TrainConfig,
    shape: ShapeConfig,
    max_length_tokens: int,
    batch_tokens: float,
    training_tokens: float,
    hardware: Hardware,
) -> Layout:
    """What the config says, and where it says nothing the first of these that fits the memory. The order is ours:

    1. stage 0 with one rank; with several 1, 2, 3: the less is sharded, the less is sent
    2. the same with activation checkpointing, which costs a third of the time
    3. on GPUs, with checkpointing, the optimizer on the host at stage 2, then at 3

    A micro-batch must hold the longest example and `GPU_TOKENS`, or the rank's share of a batch where that is less;
    what memory is left lets it grow to `MOST_GPU_TOKENS`. On the CPU it has `CPU_TOKENS`. Layers are compiled where
    they can be and the training is long enough to repay it, but not at stage 3, whose hooks break the graphs. A config
    that fixes all of `DECIDES_MEMORY` is taken at its word. Where nothing fits, the layout that comes nearest is taken:
    sizes are estimates, and `shortage` says what may happen.

    Args:
        max_length_tokens: of the longest example.
        batch_tokens: useful tokens of a mean global batch.
        training_tokens: useful tokens of the whole training.

    Raises:
        InputError: the config contradicts itself or the hardware.
    """
    check(engine)
    if engine.compile and not hardware.can_compile:
        needed = "Triton, gcc" if hardware.is_cuda else "g++ (or another compiler named in CXX)"
        raise InputError(f"engine.compile=true needs {needed} and Python's headers; install them or set it to false")
    if engine.micro_batch_tokens:
        least = most = engine.micro_batch_tokens
    else:
        least, most = _tokens(max_length_tokens, batch_tokens / hardware.ranks, hardware.is_cuda)
    layouts = [replace(layout, micro_batch_tokens=least) for layout in _candidates(engine, hardware)]
    work = training_tokens * shape.parameters / hardware.ranks
    worthwhile = hardware.can_compile and work >= COMPILE_REPAID[hardware.is_cuda]

    def memory(layout: Layout) -> Memory:
        return training_memory(shape, train, layout, max_length_tokens, hardware.ranks, hardware.is_cuda)

    given = all(getattr(engine, name) is not None for name in DECIDES_MEMORY)
    fitting = (layout for layout in layouts if given or _filled(memory(layout), hardware) <= 1)
    chosen = next(fitting, None) or min(layouts, key=lambda layout: _filled(memory(layout), hardware))
    sizes = [*range(least, most, TOKENS_STEP), most]
    grown = (replace(chosen, micro_batch_tokens=size) for size in reversed(sizes))
    chosen = next((layout for layout in grown if _may_grow(memory(layout), hardware)), chosen)
    compiles = chosen.zero_stage < 3 and worthwhile if engine.compile is None else engine.compile
    return replace(chosen, compile=compiles)


def describe(
    layout: Layout,
    engine: EngineConfig,
    train: TrainConfig,
    shape: ShapeConfig,
    max_length_tokens: int,
    hardware: Hardware,
) -> str:
    """The layout and the estimate of its memory in one line; what the user fixed is marked as given."""

    def note(name: str, text: str, otherwise: str = "") -> str:
        given = getattr(engine, name) is not None
        shown = text if getattr(layout, name) or not otherwise else otherwise if given else ""
        return f"{shown} (given)" if given else shown

    parts = [
        note("zero_stage", f"ZeRO-{layout.zero_stage}"),
        note("offload_optimizer", "optimizer on the host", "optimizer on the device"),
        note("micro_batch_tokens", f"{layout.micro_batch_tokens}-token packs"),
        note("activation_checkpointing", "checkpointing", "no checkpointing"),
        note("compile", "compiled", "not compiled"),
    ]
    memory = training_memory(shape, train, layout, max_length_tokens, hardware.ranks, hardware.is_cuda)
    named = ("weights", "gradients", "optimizer", "activations", "loss")
    sizes = ", ".join(f"{name} {_gib(getattr(memory, name))}" for name in named)
    return f"{', '.join(filter(None, parts))}: {_about(memory, hardware)} ({sizes})"


def _candidates(engine: EngineConfig, hardware: Hardware) -> Iterator[Layout]:
    """In the order of preference, with what the config fixes; some come twice."""
    several = hardware.ranks > 1
    stages = (1, 2, 3) if several else (1 if engine.offload_optimizer else 0,)
    order = [(stage, False, checkpointing) for checkpointing, stage in product((False, True), stages)]
    if hardware.is_cuda:
        order += [(stage, True, True) for stage in (2, 3)]
    for stage, offload, checkpointing in order:
        layout = Layout(
            zero_stage=stage if engine.zero_stage is None else engine.zero_stage,
            offload_optimizer=offload if engine.offload_optimizer is None else engine.offload_optimizer,
            precision=engine.precision,
            activation_checkpointing=(
                checkpointing if engine.activation_checkpointing is None else engine.activation_checkpointing
            ),
        )
        possible = layout.zero_stage > 0 or not layout.offload_optimizer
        if possible and not (engine.compile and layout.zero_stage == 3):
            yield layout


def _tokens(max_length_tokens: int, share: float, is_cuda: bool) -> tuple[int, int]:
    """A micro-batch's least and most tokens; `share`: a rank's of a mean batch."""
    enough = math.ceil(share * LARGER / TOKENS_STEP) * TOKENS_STEP
    least, most = (GPU_TOKENS, MOST_GPU_TOKENS) if is_cuda else (CPU_TOKENS, CPU_TOKENS)
    return max(max_length_tokens, min(least, enough)), max(max_length_tokens, min(most, enough))


def shortage(
    layout: Layout,
    engine: EngineConfig,
    train: TrainConfig,
    shape: ShapeConfig,
    max_length_tokens: int,
    hardware: Hardware,
) -> str:
    """What to do where the layout does not fit by its estimate; empty where it does."""
    memory = training_memory(shape, train, layout, max_length_tokens, hardware.ranks, hardware.is_cuda)
    if _filled(memory, hardware) <= 1:
        return ""
    fixes = [] if engine.name == "auto" else ["engine=auto"]
    if train.adapter is Adapter.full:
        fixes.append("train.adapter=lora")
    if train.optimizer is Optimizer.adamw and hardware.is_cuda:
        fixes.append("train.optimizer=adamw_8bit")
    if engine.micro_batch_tokens:
        fixes.append(f"an engine.micro_batch_tokens below {engine.micro_batch_tokens}")
    fixes.append(f"a shorter scale.max_length_tokens than {max_length_tokens}")
    fixes.append("more GPUs" if hardware.is_cuda else "a GPU")
    return (
        f"engine={engine.name} may not fit: by its estimate, training {shape.parameters / 1e9:.3g}B parameters "
        f"(train.adapter={train.adapter.value}) on {hardware.ranks} {'GPU' if hardware.is_cuda else 'CPU'} ranks takes "
        f"{_about(memory, hardware)}; if it runs out of memory, try {', '.join(fixes)}"
    )


def _filled(memory: Memory, hardware: Hardware) -> float:
    """Share of the usable memory that is needed, the host's or the device's, whichever is scarcer."""
    if not hardware.is_cuda:
        return (memory.total + memory.host) / (HOST_USABLE * hardware.device_bytes)
    device = memory.total / max(room(hardware.device_bytes, hardware.ranks), 1.0)
    return max(device, memory.host / (HOST_USABLE * hardware.host_bytes))


def _may_grow(memory: Memory, hardware: Hardware) -> bool:
    """Whether a micro-batch may be as large although less would do."""
    small = not hardware.is_cuda or memory.total <= GROWN * hardware.device_bytes
    return small and _filled(memory, hardware) <= 1


def _about(memory: Memory, hardware: Hardware) -> str:
    each = "per GPU" if hardware.is_cuda else "per process"
    limit = f" of {_gib(hardware.host_bytes)}" if math.isfinite(hardware.host_bytes) else ""
    host = f" and {_gib(memory.host)}{limit} GiB of the host" if memory.host else ""
    reserve = f" + {RESERVE_BYTES[hardware.ranks > 1] / GIB:.1f}" if hardware.is_cuda else ""
    return f"about {_gib(memory.total)}{reserve} of {_gib(hardware.device_bytes)} GiB{host} {each}"


def _gib(size: float) -> str:
    return f"{size / GIB:.0f}" if size >= 10 * GIB else f"{size / GIB:.1f}"
