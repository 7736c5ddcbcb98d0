"""How long a step's work takes on a device, by the formulas given here (ours).

N parameters, L layers, h hidden size, c mean number of tokens attended to. The forward pass of a token takes 2N + 4Lhc
FLOP; training on a token takes three times as much (6N), or twice with LoRA (4N), and once more with activation
checkpointing. A decode step moves all weights and the key-value cache, and launches its kernels; the longest of
arithmetic, traffic and launching counts. An optimizer step has at least one micro-batch. Left out: downloads, waiting
for other ranks, the optimizer's step, and its traffic if the optimizer is on the host.
"""

import math

from sdx.config import Adapter, TrainConfig
from sdx.models.batches import number_bytes, room_bytes
from sdx.models.work import ModelWork
from sdx.planning.hardware import Device, Machine
from sdx.store.estimate import Work
from sdx.training.memory import Layout, cache_bytes

CACHE_TRIPS = 3
"""Growing reads and writes the cache; attention reads it."""
BACKWARD_LAUNCHES = 2.0
"""Launching a backward pass, in forward passes."""


def seconds(work: Work, machine: Machine, train: TrainConfig, layout: Layout | None) -> float | None:
    """Estimated seconds; None for a model of unknown size, or a training without a layout that fits."""
    if not isinstance(work, ModelWork):
        return work.seconds
    own = _seconds(work, machine, train, layout)
    others = [_seconds(other, machine, train, layout) for one in work.also for other in (one, *one.also)]
    if own is None or None in others:
        return None
    return own + sum(filter(None, others)) / (machine.ranks if work.trained else 1)


def _seconds(work: ModelWork, machine: Machine, train: TrainConfig, layout: Layout | None) -> float | None:
    if not work.shape.parameters:
        return None
    device = machine.device
    share = device.share(work.arithmetic.on(device.is_cuda))
    launch = work.shape.layers * device.launch_s
    forward = 2.0 * work.shape.parameters + 4.0 * work.shape.layers * work.shape.hidden_size * work.context
    total = work.seconds + work.loads * 2.0 * work.shape.parameters / device.load_bytes_per_s
    if work.trained:
        if layout is None:
            return None
        passes = (3 if train.adapter is Adapter.full else 2) + layout.activation_checkpointing
        arithmetic = passes * forward * work.trained / (share * device.train_flops * machine.ranks)
        micro_batches = max(work.steps, work.trained / (machine.ranks * layout.micro_batch_tokens))
        return total + max(arithmetic, micro_batches * launch * (1 + BACKWARD_LAUNCHES))
    batches = math.ceil(work.rows / batch_rows(work, device))
    total += max(work.read * forward / (share * device.read_flops), batches * work.passes * launch)
    return total + _decoding(work, device, forward, launch)


def batch_rows(work: ModelWork, device: Device) -> float:
    """Rows of a batch on a device."""
    most: float = work.most.on(device.is_cuda)
    if device.is_cuda and work.row_bytes:
        weights = number_bytes(work.arithmetic.gpu) * work.shape.parameters
        most = min(most, room_bytes(device.memory_bytes, weights) // work.row_bytes)
    return max(1.0, min(most, work.rows))


def _decoding(work: ModelWork, device: Device, forward: float, launch: float) -> float:
    batch = batch_rows(work, device)
    taken = work.arithmetic.on(device.is_cuda)
    cache = CACHE_TRIPS * cache_bytes(work.shape) * batch * work.beams * work.context
    traffic = number_bytes(taken) * (work.shape.parameters + cache / 2) / device.bytes_per_s
    steps = math.ceil(work.rows / batch) * work.decode_steps
    return max(work.generated * forward / (device.share(taken) * device.decode_flops), steps * max(traffic, launch))
