"""Packs give the outputs and gradients of examples alone, in every way of attention that this machine has."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from sdx.training import attention, kernels
from sdx.training.attention import PACKED
from sdx.training.packing import join

pytestmark = pytest.mark.whole

SHAPE: dict[str, Any] = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SHAPE |= {"num_attention_heads": 4, "initializer_range": 0.3}
EXAMPLES = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [15] * 11, [16, 17]]


def llama() -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=2))


def windowed() -> nn.Module:
    """Every second layer sees four tokens."""
    layers = ["sliding_attention", "full_attention"]
    options = {"num_key_value_heads": 1, "head_dim": 8, "sliding_window": 4, "layer_types": layers}
    return Gemma3ForCausalLM(Gemma3TextConfig(**SHAPE, **options))


def encoder() -> nn.Module:
    return BertModel(BertConfig(**SHAPE), add_pooling_layer=False)


def roberta() -> nn.Module:
    return XLMRobertaModel(XLMRobertaConfig(**SHAPE, pad_token_id=1), add_pooling_layer=False)


MODELS = pytest.mark.parametrize("make", [llama, windowed, encoder, roberta])


WAYS = ["by example", "kernels", "kernels, two groups", pytest.param("varlen", marks=pytest.mark.gpu)]


@pytest.fixture(params=WAYS)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Turns a way of attention on; the device it runs on."""
    if request.param == "varlen":
        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
        attention.prepare(torch.device("cuda"))
        yield "cuda"
        return
    if "groups" in request.param:  # the two longest examples, whose probabilities are not stored, and the two others
        monkeypatch.setattr(kernels, "ROUND", 80)
        monkeypatch.setattr(kernels, "LONGEST", 5)
    kernels._padded.cache_clear()
    with kernels.compiling("kernels" in request.param):
        yield "cpu"
    kernels._padded.cache_clear()


def outputs(model: nn.Module, examples: list[list[int]], dtype: torch.dtype, device: str) -> Tensor:
    """Of a pack, `[tokens, width]`."""
    batch = join(examples)
    if isinstance(model, XLMRobertaModel):
        batch["position_ids"] += model.config.pad_token_id + 1  # where its positions begin
    batch = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
    result: Tensor = model.to(device, dtype)(**batch)[0][0]
    return result


def built(make: Callable[[], nn.Module], implementation: str) -> nn.Module:
    torch.manual_seed(0)
    model = make().eval()
    model.set_attn_implementation(implementation)
    return model


def of_cuda(device: str) -> tuple[torch.dtype, float]:
    """Precision and tolerance."""
    return (torch.bfloat16, 0.05) if device == "cuda" else (torch.float32, 1e-5)


@MODELS
def test_outputs_and_gradients_are_those_of_the_examples_alone(make: Callable[[], nn.Module], device: str):
    dtype, tolerance = of_cuda(device)
    alone, packed = built(make, "sdpa").to(device, dtype), built(make, PACKED)
    expected = [alone(input_ids=torch.tensor([example], device=device))[0][0] for example in EXAMPLES]
    ours = outputs(packed, EXAMPLES, dtype, device)
    torch.testing.assert_close(ours, torch.cat(expected), rtol=tolerance, atol=tolerance)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1)).to(ours)
    (ours * weights).sum().backward()
    (torch.cat(expected) * weights).sum().backward()
    gradients = {name: weight.grad for name, weight in alone.named_parameters()}
    assert any(gradient is not None for gradient in gradients.values())
    scale = max(float(gradient.norm()) for gradient in gradients.values() if gradient is not None)
    for name, weight in packed.named_parameters():
        if weight.grad is not None:
            assert float((weight.grad - gradients[name]).norm()) <= tolerance * scale, name


@MODELS
def test_no_example_sees_another(make: Callable[[], nn.Module], device: str):
    dtype, _ = of_cuda(device)
    model = built(make, PACKED)
    changed = [[50 + token for token in EXAMPLES[0]], EXAMPLES[1], [80] * 11, EXAMPLES[3]]
    with torch.no_grad():
        one, other = (outputs(model, examples, dtype, device) for examples in (EXAMPLES, changed))
    for start, end, same in ((0, 7, False), (7, 10, True), (10, 21, False), (21, 23, True)):
        assert torch.equal(one[start:end], other[start:end]) is same


@MODELS
def test_the_test_above_can_fail(make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch):
    """With one boundary around the whole pack, the second example changes with the first."""
    model = built(make, PACKED)
    plain = attention._by_example

    def blind(q: Tensor, k: Tensor, v: Tensor, boundaries: Tensor, *rest: Any) -> Tensor:
        return plain(q, k, v, boundaries[[0, -1]], *rest)

    monkeypatch.setattr(attention, "_by_example", blind)
    changed = [[50 + token for token in EXAMPLES[0]], *EXAMPLES[1:]]
    with torch.no_grad():
        one, other = (outputs(model, examples, torch.float32, "cpu") for examples in (EXAMPLES, changed))
    assert not torch.equal(one[7:10], other[7:10])


def test_a_window_ends_where_it_should():
    assert kernels.visible(4, True, 2, torch.device("cpu")).int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 1, 1, 0],
        [0, 0, 1, 1],
    ]
    assert kernels.visible(3, False, 2, torch.device("cpu")).int().tolist() == [[1, 1, 0], [1, 1, 1], [0, 1, 1]]


def test_examples_are_padded_to_one_length_if_that_costs_less_than_another_group(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels, "ROUND", 80)
    monkeypatch.setattr(kernels, "LONGEST", 10)
    assert kernels.padding_groups([7, 3, 11, 2]) == [[2, 0], [1, 3]]
    assert kernels.stored_pairs([7, 3, 11, 2]) == 2 * 3**2  # the group of 11 is recomputed
    assert kernels.padding_groups([]) == []


@pytest.mark.parametrize(("capability", "bits"), [("avx2", 256), ("default", 0)])
def test_compiled_code_is_kept_apart_by_the_width_it_was_written_for(
    capability: str, bits: int, monkeypatch: pytest.MonkeyPatch
):
    """Every value of the configuration is in the cache's keys."""
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", capability)
    with kernels.inductor.patch({"cpp.simdlen": None}):
        before = kernels.inductor.save_config_portable()
        with kernels.compiling(True):
            assert kernels.inductor.cpp.simdlen == bits
        assert kernels.inductor.save_config_portable() != before


def test_bf16_kernels_are_as_exact_as_bf16_allows():
    torch.manual_seed(0)
    lengths = [60, 33, 90]
    tensors = [torch.randn(1, heads, sum(lengths), 16, dtype=torch.float64) for heads in (6, 2, 2)]
    exact = [tensor.clone().requires_grad_() for tensor in tensors]
    boundaries = torch.tensor([0, 60, 93, 183], dtype=torch.int32)
    expected = attention._by_example(*exact, boundaries, 0.25, True, 0, 0.0)
    gradient = torch.randn_like(expected)
    expected.backward(gradient)
    errors = []
    for compiled in (True, False):
        ours = [tensor.bfloat16().requires_grad_() for tensor in tensors]
        with kernels.compiling(compiled):
            pairs = kernels.stored_pairs(lengths)
            out = (
                kernels.attention(*ours, boundaries, pairs, 0.25, True, 0)[0]
                if compiled
                else attention._by_example(*ours, boundaries, 0.25, True, 0, 0.0)
            )
        out.backward(gradient.bfloat16())
        found = [out, *(tensor.grad for tensor in ours)]
        wanted = [expected, *(tensor.grad for tensor in exact)]
        errors.append([float((a.double() - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True)])
    for kernel, pytorch in zip(*errors, strict=True):
        assert kernel < 1.5 * pytorch < 0.02
