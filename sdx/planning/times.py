"""How long a step's work takes on a device, by the formulas given here (ours).

N parameters, L layers, h hidden size, c mean number of tokens attended to. The forward pass of a token takes 2N + 4Lhc
FLOP; training on a token takes three times as much (6N), or twice with LoRA (4N), and once more with activation
checkpointing. A decode step moves all weights and the key-value cache, and launches its kernels; the longest of
arithmetic, traffic and launching counts. An optimizer step has at least one micro-batch. The batches of a row step are
dealt to all workers, each of which loads the model. Left out: downloads, waiting for other ranks, the optimizer's step,
and its traffic if the optimizer is on the host. `rates` says how published rates of other engines apply.
"""

import math

from sdx.config import Adapter, TrainConfig
from sdx.models.batches import number_bytes, room_bytes
from sdx.models.work import ModelWork
from sdx.planning import rates
from sdx.planning.hardware import GPUS, Device, Machine
from sdx.store.estimate import Work
from sdx.training.memory import Layout, cache_bytes

CACHE_TRIPS = 3
"""Growing reads and writes the cache; attention reads it."""
BACKWARD_LAUNCHES = 2.0
"""Launching a backward pass, in forward passes."""


def seconds(
    work: Work, machine: Machine, train: TrainConfig, layout: Layout | None, shared: bool = False
) -> float | None:
    """Estimated seconds; None for a model of unknown size, or a training without a layout that fits.

    Args:
        shared: all workers of the machine do the step.
    """
    if not isinstance(work, ModelWork):
        return work.seconds
    parts = [work, *(other for one in work.also for other in (one, *one.also))]
    if not all(one.shape.parameters for one in parts) or (work.trained and layout is None):
        return None
    share = machine.ranks if work.trained else speedup(work, machine) if shared else 1.0
    total = 0.0
    for one in parts:
        total += one.seconds + one.loads * 2.0 * one.shape.parameters / machine.device.load_bytes_per_s
        if one.trained and layout:
            total += _training(one, machine, train, layout)
        else:
            total += _passes(one, machine.device) / share
    return total


def speedup(work: Work, machine: Machine) -> float:
    """By dealing the batches of a row step to all workers, of which some may have nothing to do in the last round."""
    if not isinstance(work, ModelWork):
        return float(machine.workers)
    batches = max(math.ceil(work.rows / batch_rows(work, machine.device)), math.ceil(work.passes))
    return batches / math.ceil(batches / machine.workers) if batches else 1.0


def is_published(work: Work, device: Device) -> bool:
    """Whether the time depends on published rates."""
    return isinstance(work, ModelWork) and (
        work.engine == rates.CTRANSLATE2 or (work.engine == rates.VLLM and device.is_cuda)
    )


def _forward(work: ModelWork) -> float:
    """FLOP of the forward pass of a token."""
    return 2.0 * work.shape.parameters + 4.0 * work.shape.layers * work.shape.hidden_size * work.context


def _training(work: ModelWork, machine: Machine, train: TrainConfig, layout: Layout) -> float:
    device = machine.device
    passes = (3 if train.adapter is Adapter.full else 2) + layout.activation_checkpointing
    flops = device.share(work.arithmetic.on(device.is_cuda)) * device.train_flops * machine.ranks
    micro_batches = max(work.steps, work.trained / (machine.ranks * layout.micro_batch_tokens))
    launches = micro_batches * work.shape.layers * device.launch_s * (1 + BACKWARD_LAUNCHES)
    return max(passes * _forward(work) * work.trained / flops, launches)


def _passes(work: ModelWork, device: Device) -> float:
    """Reading and generating on one device."""
    batches = math.ceil(work.rows / batch_rows(work, device))
    arithmetic = work.read * _forward(work) / (device.share(work.arithmetic.on(device.is_cuda)) * device.read_flops)
    return max(arithmetic, batches * work.passes * work.shape.layers * device.launch_s) + _decoding(work, device)


def batch_rows(work: ModelWork, device: Device) -> float:
    """Rows of a batch on a device. vLLM takes any number, and completes as many at once as its memory holds."""
    most: float = work.most.on(device.is_cuda)
    if device.is_cuda and work.row_bytes and work.engine != rates.VLLM:
        weights = number_bytes(work.arithmetic.gpu) * work.shape.parameters
        most = min(most, room_bytes(device.memory_bytes, weights) // work.row_bytes)
    return max(1.0, min(most, work.rows))


def _decoding(work: ModelWork, device: Device) -> float:
    if work.engine == rates.VLLM and device.is_cuda:
        return _vllm(work, device)
    batch = batch_rows(work, device)
    taken = work.arithmetic.on(device.is_cuda)
    cache = CACHE_TRIPS * cache_bytes(work.shape) * batch * work.beams * work.context
    traffic = number_bytes(taken) * (work.shape.parameters + cache / 2) / device.bytes_per_s
    steps = math.ceil(work.rows / batch) * work.decode_steps
    arithmetic = work.generated * _forward(work) / (device.share(taken) * device.decode_flops)
    took = max(arithmetic, steps * max(traffic, work.shape.layers * device.launch_s))
    if work.engine != rates.CTRANSLATE2:
        return took
    faster = took / rates.CTRANSLATE2_FACTOR["gpu" if device.is_cuda else "cpu"]
    return (max(faster, _serving(work, device)) if device.is_cuda else faster) / rates.CTRANSLATE2_PATIENCE


def _vllm(work: ModelWork, device: Device) -> float:
    published = rates.nearest(work.shape)
    case = ModelWork(shape=published.shape, rows=rates.VLLM_ROWS, generated=rates.VLLM_ROWS, context=rates.VLLM_CONTEXT)
    factor = case.rows / published.tokens_per_s / _serving(case, GPUS[rates.VLLM_GPU])
    # Until the longest answer of a batch ends, few rows are left, so that moving the weights is all of a step.
    last = max(0.0, work.decode_steps - work.generated / max(work.rows, 1.0))
    weights = number_bytes(work.arithmetic.gpu) * work.shape.parameters
    batches = math.ceil(work.rows / batch_rows(work, device))
    return factor * _serving(work, device) + batches * last * weights / device.bytes_per_s


def _serving(work: ModelWork, device: Device) -> float:
    """Seconds of generating by an engine on a GPU that launches nothing from Python, reads the cache in its place, and
    gives the place of a row to the next when the row ends."""
    taken = work.arithmetic.on(device.is_cuda)
    weights, cache = (
        number_bytes(taken) * size
        for size in (work.shape.parameters, cache_bytes(work.shape) / 2 * work.context * work.beams)
    )
    room = room_bytes(device.memory_bytes, weights) / max(cache, 1.0)
    rows = max(1.0, min(work.rows, rates.VLLM_ROWS, room))
    traffic = (weights + rows * cache) / device.bytes_per_s
    arithmetic = work.generated * _forward(work) / (device.share(taken) * device.decode_flops)
    return max(arithmetic, work.generated / work.beams / rows * traffic)
