"""GPU memory that training and generation take. All of it is our estimate, in bytes, by the formulas given here.

N: parameters; T: trained parameters (N, or those of the adapters); R: ranks; w: bytes of a weight, 2 in bf16 and 4 in
fp32; L layers, h hidden size, f intermediate size, k width of keys, V vocabulary. What the engine keeps (see
`sdx.training.engine`):

    bf16, stage 0 and 1   weights 2N      gradients 4T      optimizer 12T/R   (fp32 copy and Adam's two moments)
    stage 2               weights 2N      gradients 4T/R    optimizer 12T/R
    stage 3               weights 2N/R    gradients 4T/R    optimizer 12T/R   + gathered weights, 2 min(N, 1e9)
    fp32, stage 0         weights 4N      gradients 4T      optimizer 8T      (the weights are the fp32 copy)

Stage 0 in bf16 runs as stage 1. With `offload_optimizer` the host has 16T/R, the optimizer's state and its gradients,
which at stage 3 the GPU then has no more. Not counted: the allocator's fragments, CUDA's context, and the optimizer
step's short-lived copies.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sdx.config import Adapter, EngineConfig, Precision, ShapeConfig, TrainConfig

GIB = 2**30
GRADIENT_BYTES = 4
ADAM_BYTES = 8
MASTER_BYTES = 4
BUCKET_BYTES = 200_000_000
"""One reduction's gradients: `BUCKET_ELEMENTS` of `sdx.training.engine` in fp32."""
LIVE_PARAMETERS = 1_000_000_000
"""DeepSpeed keeps as many gathered weights at stage 3."""
LOSS_BYTES = 12
"""Of a logit at the peak, in the backward pass: log-probability and two gradients in fp32."""
SAVED_BYTES = {
    (Precision.bf16, Adapter.full): (24, 8),
    (Precision.bf16, Adapter.lora): (40, 10),
    (Precision.fp32, Adapter.full): (40, 16),
    (Precision.fp32, Adapter.lora): (72, 20),
}
"""Bytes saved for the backward pass in a layer, for each token and unit of (h, f)."""
USABLE = 0.92
"""Share of a GPU's memory that is left for tensors. Ours."""
GPU_GIB = (24, 40, 80, 141)
"""The sizes that GPUs come in."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one rank's device, and on its host."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    buckets: float = 0.0
    host: float = 0.0

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.buckets


def trained_parameters(shape: ShapeConfig, train: TrainConfig) -> float:
    """T: all weights, or LoRA on all linear layers but the head: rank * (inputs + outputs) of each.

    Query and output are taken to be h wide.
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

    24h: two norms with fp32 inside, queries, keys, values and attention's output; 8f: the gated MLP. Attention keeps no
    scores. LoRA's dropout keeps a copy of every linear layer's input. With checkpointing the layers' inputs, 2Lh, and
    one layer recomputed. Counted with PyTorch's hooks on saved tensors for the Llama architecture.
    """
    a_h, an_f = SAVED_BYTES[precision, adapter]
    layer = a_h * shape.hidden_size + an_f * shape.intermediate_size
    weight = 2 if precision is Precision.bf16 else 4
    a_token = shape.layers * weight * shape.hidden_size + layer if checkpointing else shape.layers * layer
    return tokens * a_token


def training_memory(
    shape: ShapeConfig,
    train: TrainConfig,
    engine: EngineConfig,
    max_length_tokens: int,
    ranks: int,
) -> Memory:
    """One rank's memory at the peak of a training step.

    Activations and logits are upper bounds: a micro-batch full of examples of `max_length_tokens`, of which every
    token is a target.
    """
    bf16 = engine.precision is Precision.bf16
    weight = 2 if bf16 else 4
    stage = max(engine.zero_stage, 1) if bf16 else engine.zero_stage
    trained = trained_parameters(shape, train)
    weights: float = weight * shape.parameters
    gradients = GRADIENT_BYTES * trained
    state = (ADAM_BYTES + MASTER_BYTES) * trained / ranks if stage else ADAM_BYTES * trained
    if stage >= 2:
        gradients /= ranks
    if stage == 3:
        weights = weights / ranks + weight * min(shape.parameters, LIVE_PARAMETERS)
    host = 0.0
    if engine.offload_optimizer:
        host, state = state + GRADIENT_BYTES * trained / ranks, 0.0
        gradients = 0.0 if stage == 3 else gradients
    tokens = engine.micro_batch_size * max_length_tokens
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=state,
        activations=activations(shape, tokens, engine.activation_checkpointing, engine.precision, train.adapter),
        logits=LOSS_BYTES * shape.vocab_size * tokens,
        buckets=min(BUCKET_BYTES, GRADIENT_BYTES * trained),
        host=host,
    )


def generation_memory(shape: ShapeConfig, batch: int, tokens: float) -> float:
    """Bytes of the weights in bf16 and of a key-value cache of `batch` rows of `tokens`."""
    return 2 * shape.parameters + cache_bytes(shape) * batch * tokens


def cache_bytes(shape: ShapeConfig) -> float:
    """Bytes of one token's keys and values in bf16: 4Lk."""
    return 4 * shape.layers * shape.kv_width


def fits(total_bytes: float, sizes_gib: Sequence[int] = GPU_GIB) -> int | None:
    """The smallest of the sizes that is enough; none when none is."""
    return next((size for size in sizes_gib if total_bytes <= USABLE * size * GIB), None)
