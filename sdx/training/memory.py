"""Memory that training and generation need. All figures are our estimates, in bytes, by the formulas given here.

N: parameters; T: trained parameters (N, or those of the adapters); R: ranks; L layers, h hidden size, f intermediate
size, k width of keys, V vocabulary. What the engine keeps (see `sdx.training.engine`), measured with PyTorch's
profiler on a small Llama:

    bf16, stage 0 and 1   weights 2N      gradients 4T      optimizer 12T/R   (fp32 copy and Adam's two moments)
    stage 2               weights 2N      gradients 4T/R    optimizer 12T/R
    stage 3               weights 2N/R    gradients 4T/R    optimizer 12T/R   + gathered weights, 2 min(N, 1e9)
    fp32, stage 0         weights 4N      gradients 4T      optimizer 8T      (the weights are the fp32 copy)

In fp32 weights take twice that; stage 0 in bf16 runs as stage 1. 8-bit moments take 2 bytes instead of 8. With
`offload_optimizer` the host has the optimizer's state, its gradients and a copy of the weights to send back, 18T/R, or
20T/R at stage 3, where the GPU then has no gradients. After the activations are freed, the gradients are copied, 4T/R
except for stage 1 in bf16, in pieces at stage 0 (5e8) and 3 (1e9); the larger of the two counts. bitsandbytes unpacks
the moments during a step on the CPU: 20T/R. Not counted: loading, and all logits of a model that caps them.

A GPU's memory is not for tensors alone: CUDA's context and its libraries take about 1 GiB, with several ranks NCCL's
buffers take 1.5 GiB more, and 5 % are gaps between tensors, see `usable_bytes`.
"""

import math
from dataclasses import dataclass

from sdx.config import Adapter, Optimizer, Precision, ShapeConfig, TrainConfig

GIB = 2**30
GRADIENT_BYTES = MASTER_BYTES = 4
MOMENT_BYTES = {Optimizer.adamw: 8, Optimizer.adamw_8bit: 2}
UNPACKED_BYTES = 20
"""Of a parameter during an 8-bit step on the CPU; measured."""
BUCKET_BYTES = 200_000_000
"""Gradients of one reduction: `BUCKET_ELEMENTS` of `sdx.training.engine` in fp32."""
COPIED_PARAMETERS = {0: 500_000_000, 3: 1_000_000_000}
"""Parameters whose gradients DeepSpeed copies at a time, by stage."""
LIVE_PARAMETERS = 1_000_000_000
"""Gathered weights that DeepSpeed keeps at stage 3."""
LOSS_CHUNK_BYTES = 2**28
"""Logits that exist at a time: 2,730 targets of a vocabulary of 49k in bf16, 512 of one of 262k. Ours."""
WEIGHT_BYTES = {Precision.bf16: 2, Precision.fp32: 4}
LOGIT_BYTES = {Precision.bf16: 10, Precision.fp32: 8}
"""Of a logit: itself and its log-probability in fp32, and in bf16 also itself in fp32."""
SAVED_BYTES = {
    (Precision.bf16, Adapter.full): (24, 8),
    (Precision.bf16, Adapter.lora): (40, 10),
    (Precision.fp32, Adapter.full): (40, 16),
    (Precision.fp32, Adapter.lora): (72, 20),
}
"""Bytes saved for the backward pass in a layer, for each token and unit of (h, f)."""
RESERVE_BYTES = {False: 1.0 * 2**30, True: 2.5 * 2**30}
"""Of a GPU, with one rank and with several: CUDA's context, its libraries, NCCL's buffers. Ours."""
USABLE = 0.95
"""Share of a GPU's memory without gaps. Ours."""
GROWN = 0.8
"""Share of a GPU's memory up to which a micro-batch grows beyond what is needed. Ours."""
HOST_USABLE = 0.8
"""Usable share of a machine's memory; libraries, data and the system have the rest. Ours."""
GPU_GIB = (24, 40, 80, 141)
"""Sizes of GPUs, by their names."""
SHOWN = 0.985
"""Share of the size in its name that a GPU has: 39.4 GiB of an A100 40 GB, 79.1 of an H100 80 GB."""


@dataclass(frozen=True)
class Layout:
    """`EngineConfig` with everything decided; the fields mean the same."""

    zero_stage: int = 0
    offload_optimizer: bool = False
    precision: Precision = Precision.bf16
    micro_batch_tokens: int = 2048
    activation_checkpointing: bool = False
    compile: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank's device and, beside a GPU, on the host."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    loss: float
    """Chunks of logits, the gradients of their inputs and, if the head is trained, of the head."""
    buckets: float
    copies: float
    """Of gradients, after activations and loss are freed."""
    host: float

    @property
    def total(self) -> float:
        """The device's peak."""
        passing = max(self.activations + self.loss, self.copies)
        return self.weights + self.gradients + self.optimizer + self.buckets + passing


def trained_parameters(shape: ShapeConfig, train: TrainConfig) -> float:
    """T: all weights, or LoRA on all linear layers but the head: rank * (inputs + outputs) of each.

    Queries and outputs are assumed to be h wide.
    """
    if train.adapter is Adapter.full:
        return shape.parameters
    h, f, k = shape.hidden_size, shape.intermediate_size, shape.kv_width
    widths = 2 * (h + h) + 2 * (h + k) + 3 * (h + f)
    return train.lora_rank * widths * shape.layers


def activations(
    shape: ShapeConfig, tokens: float, checkpointing: bool, precision: Precision, adapter: Adapter
) -> float:
    """Bytes that the backward pass needs of a micro-batch of `tokens`: L(24h + 8f) a token in bf16.

    24h: two norms with fp32 inside, queries, keys, values and attention's output; 8f: the gated MLP. Attention stores
    no scores. LoRA's dropout stores a copy of every linear layer's input. With checkpointing: the layers' inputs, 2Lh,
    and one recomputed layer. Counted with PyTorch's hooks on saved tensors for the Llama architecture.
    """
    a_h, an_f = SAVED_BYTES[precision, adapter]
    layer = a_h * shape.hidden_size + an_f * shape.intermediate_size
    inputs = WEIGHT_BYTES[precision] * shape.hidden_size
    return tokens * (shape.layers * inputs + layer if checkpointing else shape.layers * layer)


def loss(shape: ShapeConfig, tokens: float, precision: Precision, adapter: Adapter) -> float:
    """Bytes of a chunked cross-entropy: a chunk of logits, the head's inputs and their gradient, both h wide, and for a
    trained head the gradient of its weights, Vh, in fp32 with one chunk's part.
    """
    weight, head = WEIGHT_BYTES[precision], shape.vocab_size * shape.hidden_size
    logits = min(shape.vocab_size * tokens, LOSS_CHUNK_BYTES / weight) * LOGIT_BYTES[precision]
    of_head = (GRADIENT_BYTES + weight) * head if adapter is Adapter.full else 0
    return logits + 2 * weight * shape.hidden_size * tokens + of_head


def training_memory(
    shape: ShapeConfig, train: TrainConfig, layout: Layout, max_length_tokens: int, ranks: int, is_cuda: bool = True
) -> Memory:
    """One rank's memory at the peak of a training step.

    Activations and loss are upper bounds: a full micro-batch, or the longest example if that is longer, with every
    token a target.

    By hand, LLaMA-2-7B (N = 6.74e9, L = 32, h = 4096, f = 11008, V = 32000), all weights, bf16, stage 3, in GB:

        on                8 x 80 GB          4 x 80 GB          8 x 40 GB, checkpointing
        tokens t          7680               5120               16,384
        weights           2N/8 + 2 = 3.7     2N/4 + 2 = 5.4     3.7
        gradients         4N/8     = 3.4     4N/4     = 6.7     3.4
        optimizer         12N/8    = 10.1    12N/4    = 20.2    10.1
        bucket            0.2                0.2                0.2
        activations       tL(24h + 8f) = 45.8           30.5    t(2Lh + 24h + 8f) = 7.3
        loss              1.3 + 4ht + 6Vh = 2.3          2.2    2.4
        together          65.4 = 60.9 GiB    65.3 = 60.8 GiB    27.1 = 25.2 GiB
        with the reserve  63.4 of 78.8 GiB   63.3 of 78.8 GiB   27.7 of 39.4 GiB
    """
    weight, bf16 = WEIGHT_BYTES[layout.precision], layout.precision is Precision.bf16
    stage = max(layout.zero_stage, 1) if bf16 else layout.zero_stage
    trained = trained_parameters(shape, train)
    share = trained / ranks if stage else trained
    weights: float = weight * shape.parameters
    gradients = GRADIENT_BYTES * trained
    optimizer = (MOMENT_BYTES[train.optimizer] + (MASTER_BYTES if stage else 0)) * share
    buckets = min(BUCKET_BYTES, gradients) if stage else 0.0
    copies = GRADIENT_BYTES * min(share, COPIED_PARAMETERS.get(stage, math.inf))
    if stage == 1 and bf16 and not layout.offload_optimizer:
        copies = 0.0
    unpacked = UNPACKED_BYTES * share if train.optimizer is Optimizer.adamw_8bit and stage else 0.0
    if stage >= 2:
        gradients /= ranks
    if stage == 3:
        weights = weights / ranks + weight * min(shape.parameters, LIVE_PARAMETERS)
    host = 0.0
    if layout.offload_optimizer:
        host = optimizer + unpacked + (GRADIENT_BYTES + (GRADIENT_BYTES if stage == 3 else weight)) * share
        optimizer = 0.0
        gradients, copies = (0.0, 0.0) if stage == 3 else (gradients, copies)
    elif not is_cuda:
        copies += unpacked
    tokens = max(layout.micro_batch_tokens, max_length_tokens)
    saved = activations(shape, tokens, layout.activation_checkpointing, layout.precision, train.adapter)
    of_loss = loss(shape, tokens, layout.precision, train.adapter)
    return Memory(weights, gradients, optimizer, saved, of_loss, buckets, copies, host)


def cache_bytes(shape: ShapeConfig) -> float:
    """Bytes of one token's keys and values in bf16: 4Lk."""
    return 4 * shape.layers * shape.kv_width


def usable_bytes(device_bytes: float, ranks: int) -> float:
    """Bytes of a GPU that tensors may take."""
    return USABLE * device_bytes - RESERVE_BYTES[ranks > 1]


def fits(total_bytes: float, ranks: int) -> int | None:
    """The smallest size of GPU that fits one rank; None if there is none."""
    return next((size for size in GPU_GIB if total_bytes <= usable_bytes(SHOWN * size * GIB, ranks)), None)
