"""Bytes by hand for LLaMA-2-7B, and against what PyTorch keeps and what the engine's constants are."""

from dataclasses import replace

import pytest

from sdx.config import Adapter, EngineConfig, Precision, ShapeConfig, TrainConfig
from sdx.planning.memory import GIB, activations, fits, generation_memory, trained_parameters, training_memory

N = 6_738_415_616
LLAMA2 = ShapeConfig(N, 32, 4096, 11008, 4096, 32000)
FULL = TrainConfig(batch_size=128, learning_rate=2e-5)
LORA = TrainConfig(batch_size=128, learning_rate=2e-4, adapter=Adapter.lora)


def state(train=FULL, ranks=8, **engine):
    found = training_memory(LLAMA2, train, EngineConfig(name="e", **engine), 1024, ranks)
    return found.weights, found.gradients, found.optimizer, found.host


@pytest.mark.parametrize("stage", [0, 1])
def test_bf16_without_and_with_stage_1_keeps_weights_and_fp32_gradients_and_shares_the_optimizer(stage):
    assert state(zero_stage=stage) == (2 * N, 4 * N, 12 * N / 8, 0)
    assert state(zero_stage=stage, ranks=1) == (2 * N, 4 * N, 12 * N, 0)


def test_stage_2_shares_gradients_and_stage_3_weights_beside_those_gathered():
    assert state(zero_stage=2) == (2 * N, 4 * N / 8, 12 * N / 8, 0)
    weights, gradients, optimizer, _ = state(zero_stage=3)
    gathered = 2e9
    assert weights == 2 * N / 8 + gathered
    # 18 bytes a parameter: 2 for the weight, 4 for its gradient, 12 for its fp32 copy and two moments.
    assert weights - gathered + gradients + optimizer == pytest.approx(18 * N / 8)


def test_offload_moves_the_optimizer_to_the_host_and_at_stage_3_the_gradients():
    assert state(zero_stage=1, offload_optimizer=True) == (2 * N, 4 * N, 0, 16 * N / 8)
    assert state(zero_stage=2, offload_optimizer=True) == (2 * N, 4 * N / 8, 0, 16 * N / 8)
    assert state(zero_stage=3, offload_optimizer=True)[1:] == (0, 0, 16 * N / 8)


def test_fp32_is_its_own_copy_and_stage_0_shares_nothing():
    assert state(precision=Precision.fp32) == (4 * N, 4 * N, 8 * N, 0)


def test_lora_trains_39_976_960_of_llama2s_weights():
    # Per layer: q, k, v, o are 4096 x 4096, gate, up and down 4096 x 11008; rank 16.
    adapters = 32 * 16 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    assert trained_parameters(LLAMA2, LORA) == adapters == 39_976_960
    assert state(LORA) == (2 * N, 4 * adapters, 12 * adapters / 8, 0)


def test_logits_and_activations_grow_with_the_micro_batch_and_checkpointing_shrinks_the_latter():
    engine = EngineConfig(name="e", micro_batch_size=8)
    once, twice = (training_memory(LLAMA2, FULL, replace(engine, micro_batch_size=size), 1024, 1) for size in (8, 16))
    assert (twice.logits, twice.activations) == (2 * once.logits, 2 * once.activations)
    assert once.logits == 12 * 32000 * 8 * 1024
    assert once.activations == 8192 * 32 * (24 * 4096 + 8 * 11008)
    again = training_memory(LLAMA2, FULL, replace(engine, activation_checkpointing=True), 1024, 1)
    assert again.activations == 8192 * (32 * 2 * 4096 + 24 * 4096 + 8 * 11008)


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("adapter", list(Adapter))
def test_activations_are_what_pytorch_saves_for_a_llama(precision, adapter):
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    from sdx.training.engine import DTYPES, with_adapters

    def saved(layers, hidden=256, intermediate=512, batch=4, seq=64):
        heads = hidden // 64
        config = LlamaConfig(
            vocab_size=64,
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
        )
        model = LlamaForCausalLM(config).to(DTYPES[precision]).train()
        if adapter is Adapter.lora:
            model = with_adapters(model, LORA).base_model.model
        weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        kept = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = model.model(torch.ones(batch, seq, dtype=torch.long), use_cache=False)
        assert output.last_hidden_state.requires_grad
        return sum(storage.nbytes() for storage in kept.values())

    a_layer = (saved(3) - saved(1)) / 2
    shape = ShapeConfig(layers=1, hidden_size=256, intermediate_size=512, kv_width=256)
    assert activations(shape, 4 * 64, False, precision, adapter) == pytest.approx(a_layer, rel=0.03)


def test_the_smallest_gpu_that_fits():
    assert fits(20 * GIB) == 24
    assert fits(23 * GIB) == 40  # something is left for CUDA
    assert fits(100 * GIB) == 141
    assert fits(140 * GIB) is None


def test_generation_needs_half_a_mebibyte_of_cache_for_each_token_of_llama2():
    assert generation_memory(LLAMA2, 32, 1000) == 2 * N + 32 * 1000 * 512 * 1024


def test_buckets_are_those_of_the_engine():
    from sdx.planning.memory import BUCKET_BYTES
    from sdx.training.engine import BUCKET_ELEMENTS

    assert BUCKET_BYTES == 4 * BUCKET_ELEMENTS
