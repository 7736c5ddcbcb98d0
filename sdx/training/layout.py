"""The layout of a training on the hardware: what the config leaves open is chosen here.

No layout changes the result. Imports no torch.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from sdx import InputError
from sdx.config import Adapter, EngineConfig, Optimizer, ShapeConfig, TrainConfig
from sdx.training import optimizers
from sdx.training.hardware import Hardware
from sdx.training.memory import GIB, GROWN, HOST_USABLE, RESERVE_BYTES, Layout, Memory, training_memory, usable_bytes

GPU_TOKENS = 4096
"""Tokens that keep a GPU busy, with a model worth training on a GPU."""
MOST_GPU_TOKENS = 16_384
"""More tokens are not faster."""
CPU_TOKENS = 4096
"""About a tenth faster than 2048: gradients are added up half as often."""
TOKENS_STEP = 512
"""Micro-batches grow in these steps."""
LARGER = 1.25
"""Times a mean batch: most batches of 16 are smaller and need no second micro-batch."""
COMPILE_REPAID = {True: 2e16, False: 3e12}
"""Tokens times parameters of a rank, with and without CUDA, from which compiling saves the time it takes. Ours."""
PLACEMENT = ("zero_stage", "offload_optimizer", "activation_checkpointing")
"""The options that decide memory beside the micro-batch."""


def check(train: TrainConfig, engine: EngineConfig) -> None:
    """Raises `InputError` for a config that cannot train on any hardware."""
    if engine.offload_optimizer and engine.zero_stage == 0:
        raise InputError("engine.offload_optimizer=true needs engine.zero_stage 1, 2 or 3; set one")
    if engine.compile and engine.zero_stage == 3:
        raise InputError(
            "engine.compile=true does not work with engine.zero_stage=3, whose hooks break the graphs; "
            "set engine.compile=false or a lower stage"
        )
    optimizers.check(train)


@dataclass(frozen=True)
class Setup:
    """What a layout is chosen for."""

    engine: EngineConfig
    train: TrainConfig
    shape: ShapeConfig
    max_length_tokens: int
    """Of the longest example."""
    hardware: Hardware

    def memory(self, layout: Layout) -> Memory:
        """The estimate for one rank."""
        ranks, is_cuda = self.hardware.ranks, self.hardware.is_cuda
        return training_memory(self.shape, self.train, layout, self.max_length_tokens, ranks, is_cuda)

    def filled(self, layout: Layout) -> float:
        """Share of the usable memory that is needed, of the host or the device, whichever is scarcer."""
        memory, hardware = self.memory(layout), self.hardware
        if not hardware.is_cuda:
            return (memory.total + memory.host) / (HOST_USABLE * hardware.device_bytes)
        device = memory.total / max(usable_bytes(hardware.device_bytes, hardware.ranks), 1.0)
        return max(device, memory.host / (HOST_USABLE * hardware.host_bytes))


def choose(setup: Setup, batch_tokens: float, training_tokens: float) -> Layout:
    """What the config says; for what it leaves open, the first of these that fits the memory. The order is ours:

    1. stage 0 with one rank; with several 1, 2, 3: less sharding needs less communication
    2. the same with activation checkpointing, which costs a third of the time
    3. on GPUs, with checkpointing, the optimizer on the host at stage 2, then at 3

    A micro-batch must hold the longest example and `GPU_TOKENS`, or the rank's share of a batch if that is less; it
    grows to `MOST_GPU_TOKENS` if memory is left. On the CPU it has `CPU_TOKENS`. Layers are compiled if they can be and
    the training is long enough to repay it, but not at stage 3, whose hooks break the graphs. A config that sets
    `PLACEMENT` and the micro-batch is used as it is. If nothing fits, the layout that comes nearest is taken: sizes are
    estimates, and `shortage` says what may happen.

    Args:
        batch_tokens: useful tokens of a mean global batch.
        training_tokens: useful tokens of the whole training.

    Raises:
        InputError: the config contradicts the hardware; `check` finds what contradicts itself.
    """
    engine, hardware, longest = setup.engine, setup.hardware, setup.max_length_tokens
    if engine.compile and not hardware.can_compile:
        needed = "Triton, gcc" if hardware.is_cuda else "g++ (or another compiler named in CXX)"
        raise InputError(f"engine.compile=true needs {needed} and Python's headers; install them or set it to false")
    least, most = (GPU_TOKENS, MOST_GPU_TOKENS) if hardware.is_cuda else (CPU_TOKENS, CPU_TOKENS)
    enough = math.ceil(batch_tokens / hardware.ranks * LARGER / TOKENS_STEP) * TOKENS_STEP
    least, most = (engine.micro_batch_tokens or max(longest, min(tokens, enough)) for tokens in (least, most))
    layouts = [replace(layout, micro_batch_tokens=least) for layout in _candidates(engine, hardware)]
    fixed = all(getattr(engine, name) is not None for name in (*PLACEMENT, "micro_batch_tokens"))
    fitting = (layout for layout in layouts if fixed or setup.filled(layout) <= 1)
    chosen = next(fitting, None) or min(layouts, key=setup.filled)
    for size in reversed([*range(least, most, TOKENS_STEP), most]):
        grown = replace(chosen, micro_batch_tokens=size)
        small = not hardware.is_cuda or setup.memory(grown).total <= GROWN * hardware.device_bytes
        if small and setup.filled(grown) <= 1:
            chosen = grown
            break
    work = training_tokens * setup.shape.parameters / hardware.ranks
    worthwhile = hardware.can_compile and chosen.zero_stage < 3 and work >= COMPILE_REPAID[hardware.is_cuda]
    return replace(chosen, compile=worthwhile if engine.compile is None else engine.compile)


def describe(setup: Setup, layout: Layout) -> str:
    """The layout and the estimate of its memory in one line; what the user fixed is marked as given."""

    def note(name: str, text: str, otherwise: str = "") -> str:
        given = getattr(setup.engine, name) is not None
        shown = text if getattr(layout, name) or not otherwise else otherwise if given else ""
        return f"{shown} (given)" if given else shown

    parts = [
        note("zero_stage", f"ZeRO-{layout.zero_stage}"),
        note("offload_optimizer", "optimizer on the host", "optimizer on the device"),
        note("micro_batch_tokens", f"{layout.micro_batch_tokens}-token packs"),
        note("activation_checkpointing", "checkpointing", "no checkpointing"),
        note("compile", "compiled", "not compiled"),
    ]
    memory = setup.memory(layout)
    named = ("weights", "gradients", "optimizer", "activations", "loss")
    sizes = ", ".join(f"{name} {_gib(getattr(memory, name))}" for name in named)
    return f"{', '.join(filter(None, parts))}: {_about(memory, setup.hardware)} ({sizes})"


def shortage(setup: Setup, layout: Layout) -> str:
    """What to do if the layout does not fit by its estimate; empty if it fits."""
    if setup.filled(layout) <= 1:
        return ""
    engine, train, hardware = setup.engine, setup.train, setup.hardware
    fixes = [] if engine.name == "auto" else ["engine=auto"]
    if train.adapter is Adapter.full:
        fixes.append("train.adapter=lora")
    if train.optimizer is Optimizer.adamw and hardware.is_cuda:
        fixes.append("train.optimizer=adamw_8bit")
    if engine.micro_batch_tokens:
        fixes.append(f"an engine.micro_batch_tokens below {engine.micro_batch_tokens}")
    fixes.append(f"a shorter scale.max_length_tokens than {setup.max_length_tokens}")
    fixes.append("more GPUs" if hardware.is_cuda else "a GPU")
    return (
        f"engine={engine.name} may not fit: by its estimate, training {setup.shape.parameters / 1e9:.3g}B parameters "
        f"(train.adapter={train.adapter.value}) on {hardware.ranks} {'GPU' if hardware.is_cuda else 'CPU'} ranks takes "
        f"{_about(setup.memory(layout), hardware)}; if it runs out of memory, try {', '.join(fixes)}"
    )


def _candidates(engine: EngineConfig, hardware: Hardware) -> Iterator[Layout]:
    """In the order of preference, with what the config fixes; some come twice."""
    stages = (1, 2, 3) if hardware.ranks > 1 else (1 if engine.offload_optimizer else 0,)
    order = [(stage, False, checkpointing) for checkpointing, stage in product((False, True), stages)]
    if hardware.is_cuda:
        order += [(stage, True, True) for stage in (2, 3)]
    fixed = {name: getattr(engine, name) for name in PLACEMENT if getattr(engine, name) is not None}
    for values in order:
        layout = Layout(precision=engine.precision, **dict(zip(PLACEMENT, values, strict=True)) | fixed)
        possible = layout.zero_stage > 0 or not layout.offload_optimizer
        if possible and not (engine.compile and layout.zero_stage == 3):
            yield layout


def _about(memory: Memory, hardware: Hardware) -> str:
    each = "per GPU" if hardware.is_cuda else "per process"
    limit = f" of {_gib(hardware.host_bytes)}" if math.isfinite(hardware.host_bytes) else ""
    host = f" and {_gib(memory.host)}{limit} GiB of the host" if memory.host else ""
    reserve = f" + {RESERVE_BYTES[hardware.ranks > 1] / GIB:.1f}" if hardware.is_cuda else ""
    return f"about {_gib(memory.total)}{reserve} of {_gib(hardware.device_bytes)} GiB{host} {each}"


def _gib(size: float) -> str:
    return f"{size / GIB:.0f}" if size >= 10 * GIB else f"{size / GIB:.1f}"
