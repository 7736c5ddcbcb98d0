"""The causal LM's loss against transformers' own."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

from sdx.training.objectives import CausalLM, Example
from tests.training.harness import PAD_ID, examples

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


def test_sum_and_count_are_those_of_the_response(model_dir: Path):
    rows = [*examples(5), Example("whole", [9, 8, 7, 6], 0), Example("last", [9, 8, 7, 6], 3)]
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    loss, count = OBJECTIVE.loss(model, OBJECTIVE.collate(rows))
    total, targets = expected(model, rows)
    assert loss.item() == pytest.approx(total, rel=1e-6)
    assert count.item() == targets == sum(OBJECTIVE.targets(row) for row in rows)


def test_prompt_tokens_are_never_labels():
    row = Example("x", [5, 6, 7, 8, 9], 3)
    batch = OBJECTIVE.collate([row, Example("long", list(range(10, 20)), 8)])
    assert batch["labels"].tolist() == [8, 9, 18, 19]
    assert batch["positions"].tolist() == [2, 3, 17, 18]
    assert batch["input_ids"][0].tolist() == [5, 6, 7, 8, 9] + [PAD_ID] * 5
    assert batch["attention_mask"].sum(dim=1).tolist() == [5, 10]
    assert OBJECTIVE.tokens(row) == 5


def test_logits_are_computed_at_targets_only(model_dir: Path):
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    shapes = []
    model.lm_head.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape)))
    OBJECTIVE.loss(model, OBJECTIVE.collate([Example("x", [5, 6, 7, 8, 9], 3)]))
    assert shapes == [(2, model.config.vocab_size)]
    assert not model.lm_head._forward_pre_hooks


def test_what_a_model_does_to_its_logits_is_kept():
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=400, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, final_logit_softcapping=0.5, initializer_range=0.5,
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).eval()
    loss, _ = OBJECTIVE.loss(model, OBJECTIVE.collate(examples(3)))
    assert loss.item() == pytest.approx(expected(model, examples(3))[0], rel=1e-5)
