"""The causal LM's loss, compared with transformers'."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

from sdx.training import loss
from sdx.training.attention import PACKED
from sdx.training.objectives import CausalLM, Example
from tests.kit.training import PAD_ID, examples

OBJECTIVE = CausalLM(PAD_ID)


def expected(model: torch.nn.Module, rows: list[Example]) -> tuple[float, int]:
    """Row by row, without padding, over full logits."""
    total, count = 0.0, 0
    for row in rows:
        logits = model(input_ids=torch.tensor([row.input_ids])).logits[0].float()
        start = max(1, row.prompt_tokens)
        target = torch.tensor(row.input_ids[start:])
        total += cross_entropy(logits[start - 1 : -1], target, reduction="sum").item()
        count += len(target)
    return total, count


@pytest.mark.parametrize("packed", [True, False])
def test_sum_and_count_are_those_of_the_response(model_dir: Path, packed: bool):
    rows = [*examples(5), Example("whole", [9, 8, 7, 6], 0), Example("last", [9, 8, 7, 6], 3)]
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    if packed:
        model.set_attn_implementation(PACKED)
    computed, count = OBJECTIVE.loss(model, OBJECTIVE.collate(rows, packed))
    model.set_attn_implementation("sdpa")
    total, targets = expected(model, rows)
    assert computed.item() == pytest.approx(total, rel=1e-6)
    assert count.item() == targets == sum(OBJECTIVE.targets(row) for row in rows)


def test_prompt_tokens_are_never_labels():
    row, other = Example("x", [5, 6, 7, 8, 9], 3), Example("long", list(range(10, 20)), 8)
    padded, packed = (OBJECTIVE.collate([row, other], packed) for packed in (False, True))
    assert padded["labels"].tolist() == packed["labels"].tolist() == [8, 9, 18, 19]
    assert padded["positions"].tolist() == [2, 3, 17, 18]
    assert packed["positions"].tolist() == [2, 3, 12, 13]
    assert padded["inputs"]["input_ids"][0].tolist() == [5, 6, 7, 8, 9] + [PAD_ID] * 5
    assert padded["inputs"]["attention_mask"].sum(dim=1).tolist() == [5, 10]
    assert OBJECTIVE.tokens(row) == 5


def test_the_head_never_sees_more_than_a_chunk_of_targets(model_dir: Path, monkeypatch: pytest.MonkeyPatch):
    rows = examples(5)
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    sizes: list[int] = []
    nll = loss._nll
    monkeypatch.setattr(loss, "_nll", lambda logits, labels: sizes.append(logits.shape[0]) or nll(logits, labels))
    monkeypatch.setattr(loss, "CHUNK_BYTES", 7 * 4 * model.config.vocab_size)
    computed, count = OBJECTIVE.loss(model, OBJECTIVE.collate(rows, packed=False))
    assert computed.item() == pytest.approx(expected(model, rows)[0], rel=1e-6)
    assert sizes == [7] * (int(count) // 7) + [int(count) % 7] * bool(count % 7)
    assert "forward" not in vars(model.lm_head)  # the model is as it was


def test_what_a_model_does_to_its_logits_is_kept():
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=400, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, final_logit_softcapping=0.5, initializer_range=0.5,
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).eval()
    objective = CausalLM(PAD_ID)
    for _ in range(2):
        computed, _ = objective.loss(model, objective.collate(examples(3), packed=False))
        assert computed.item() == pytest.approx(expected(model, examples(3))[0], rel=1e-5)


def test_a_head_with_a_bias_keeps_it(model_dir: Path):
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    model.lm_head.bias = torch.nn.Parameter(torch.randn(model.config.vocab_size))
    computed, _ = CausalLM(PAD_ID).loss(model, OBJECTIVE.collate(examples(3), packed=False))
    assert computed.item() == pytest.approx(expected(model, examples(3))[0], rel=1e-5)
