"""The speed of devices, and the share of it that a run reaches.

Peaks are the vendors' figures for dense bf16 with fp32 accumulation, and for fp32. The shares of them that a run
reaches are our assumptions; figures for CPUs were measured with SmolLM2-135M on two AMD EPYC cores.
"""

import math
from dataclasses import dataclass, replace

from sdx.config import BackboneConfig, Precision
from sdx.models import precision
from sdx.models.hub import local
from sdx.models.shape import shape_in
from sdx.process.devices import visible_gpu
from sdx.process.threads import cores
from sdx.training.hardware import PEAK_FLOPS, Hardware, can_compile, host_bytes, of_gpu
from sdx.training.memory import GIB, SHOWN

GPU_SHARE = 0.35
"""Model FLOP utilisation assumed for training and for reading prompts in large batches."""
BANDWIDTH_SHARE = 0.6
"""Share of the memory bandwidth assumed for a decode step."""
GPU_LAUNCH_S = 8e-4
"""Seconds that Python takes to launch the kernels of one layer's forward pass. Assumed."""
GPU_LOAD_BYTES_PER_S = 1.5e9
"""Weights from disk to the device. Assumed."""
CORE_TRAIN_FLOPS = 1.4e11
"""FLOP/s of a CPU core that computes in bf16: 350 tokens/s of training on two cores."""
CORE_READ_FLOPS = 2.0e11
"""The same for reading text: about 1,500 tokens/s while questions are scored."""
CORE_DECODE_FLOPS = 4.7e10
"""The same for generation: 345 tokens/s in batches of 32."""
CORE_FP32 = 0.5
"""FLOP/s of a CPU core in fp32, as a share of those of a core that computes in bf16. Measured in training."""
CPU_BYTES_PER_S = 2e10
CPU_LOAD_BYTES_PER_S = 2e8
"""Includes the libraries' start: two seconds for SmolLM2."""
CPU_LIMIT_PARAMETERS = 2e9
"""Larger models get no estimate on a CPU."""
REFERENCE_RANKS = 8


@dataclass(frozen=True)
class Device:
    """What a run reaches on one device.

    Args:
        train_flops, read_flops, decode_flops: FLOP/s in training, over given text, and token by token, in bf16.
        bytes_per_s: memory traffic of a decode step.
        launch_s: least time for one layer's forward pass; 0 for a CPU.
        load_bytes_per_s: weights from disk to the device.
        memory_bytes: of a GPU, or of this machine.
        fp32, bf16: share of the FLOP/s that the device reaches in this precision.
    """

    name: str
    train_flops: float
    read_flops: float
    decode_flops: float
    bytes_per_s: float
    launch_s: float
    load_bytes_per_s: float
    memory_bytes: float
    fp32: float = 1.0
    bf16: float = 1.0

    @property
    def is_cuda(self) -> bool:
        return self.launch_s > 0

    def share(self, taken: Precision) -> float:
        return self.fp32 if taken is Precision.fp32 else self.bf16


@dataclass(frozen=True)
class Machine:
    """Ranks with a device each. Training uses the ranks, a row step all workers, any other step the first rank."""

    device: Device
    ranks: int
    helpers: int = 0
    """Processes that only join row steps, with a device each."""

    @property
    def workers(self) -> int:
        """Processes at a row step."""
        return self.ranks + self.helpers

    @property
    def name(self) -> str:
        return f"{self.ranks} x {self.device.name}" if self.device.is_cuda else self.device.name

    @property
    def hardware(self) -> Hardware:
        """The hardware of a training. GPU nodes are assumed to have enough memory and a compiler."""
        memory = self.device.memory_bytes
        if self.device.is_cuda:
            return Hardware(self.ranks, memory, math.inf, is_cuda=True, can_compile=True)
        return Hardware(self.ranks, memory / self.ranks, memory / self.ranks, False, can_compile(cuda=False))


def _gpu(name: str, peak_bytes_per_s: float, memory_gib: float, peak_fp32: float) -> Device:
    reached = PEAK_FLOPS[name] * GPU_SHARE
    bandwidth, memory = peak_bytes_per_s * BANDWIDTH_SHARE, memory_gib * SHOWN * GIB
    fp32 = peak_fp32 / PEAK_FLOPS[name]
    return Device(name, reached, reached, reached, bandwidth, GPU_LAUNCH_S, GPU_LOAD_BYTES_PER_S, memory, fp32)


GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("GH200", 4.0e12, 96, 67e12),
        _gpu("H200 NVL", 4.8e12, 141, 60e12),
        _gpu("H200", 4.8e12, 141, 67e12),
        _gpu("H100 NVL", 3.9e12, 94, 60e12),
        _gpu("H100 PCIe", 2.0e12, 80, 51e12),
        _gpu("H100", 3.35e12, 80, 67e12),
        _gpu("A100", 2.0e12, 80, 19.5e12),
        _gpu("A10G", 0.6e12, 24, 35e12),
        _gpu("RTX 4090", 1.0e12, 24, 82.6e12),
    )
}
"""By a part of the driver's name, as `PEAK_FLOPS`; a name without a form is an SXM board's."""
REFERENCE = GPUS["H100"]


def cpu() -> Device:
    """The cores that this process may use, each as fast as the measured ones."""
    count, suited = cores(), precision.cpu_precision()
    return Device(
        f"CPU, {count} cores",
        count * CORE_TRAIN_FLOPS,
        count * CORE_READ_FLOPS,
        count * CORE_DECODE_FLOPS,
        CPU_BYTES_PER_S,
        0.0,
        CPU_LOAD_BYTES_PER_S,
        host_bytes(),
        CORE_FP32,
        1.0 if suited.precision is Precision.bf16 else CORE_FP32 / (suited.slowdown or 1.0),
    )


def suited_to(backbone: BackboneConfig) -> precision.MachinePrecision:
    """The precision to plan with: that of GPUs if the backbone is too large for a CPU and there is no GPU here."""
    shape = (shape_in(local(backbone.path)) if backbone.path else None) or backbone.shape
    elsewhere = shape.parameters > CPU_LIMIT_PARAMETERS and not visible_gpu()
    return precision.ANY_GPU if elsewhere else precision.machine_precision()


def machines(gpu: tuple[str, str] | None, ranks: int, parameters: int, workers: int = 1) -> list[Machine]:
    """The machines whose times are shown: this one, if its device is known, and a reference.

    Args:
        gpu: the result of `visible_gpu`.
        ranks: of this launch.
        parameters: of the backbone.
        workers: processes of this machine at a row step, if more than ranks. On a CPU they share its cores.
    """
    known = of_gpu(gpu[0], GPUS) if gpu else None
    if known and gpu:
        if (mebibytes := gpu[1].partition(" ")[0]).isdecimal():
            known = replace(known, memory_bytes=int(mebibytes) * 2**20)
        here = [Machine(known, ranks, max(0, workers - ranks))]
        return here if ranks > 1 else [*here, Machine(known, REFERENCE_RANKS)]
    reference = Machine(REFERENCE, max(ranks, REFERENCE_RANKS))
    if gpu or parameters > CPU_LIMIT_PARAMETERS:
        return [Machine(REFERENCE, 1), reference]
    return [Machine(cpu(), ranks), reference]
