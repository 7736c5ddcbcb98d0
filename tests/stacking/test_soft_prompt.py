"""Loss after a soft prompt: equal for packs, padded rows and micro-batches, and counting the answers only."""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from sdx.stacking.generation import StackForCausalLM
from sdx.stacking.objectives import SoftPromptedLM, TextExample
from sdx.training.attention import PACKED
from tests.kit.tiny_stack import tiny_stack

PAD, CUE = 1, 2


@pytest.fixture(scope="module")
def model(encoder_dir: Path, llm_dir: Path) -> Any:
    return tiny_stack(encoder_dir, llm_dir, StackForCausalLM, start_token=5)


def rows(count: int = 7) -> list[TextExample]:
    random = Random(1)
    sizes = [(1 if n == 2 else random.randint(4, 24), CUE + random.randint(1, 6)) for n in range(count)]
    return [
        TextExample(
            f"t{n}",
            [random.randrange(6, 200) for _ in range(a)],
            spans=[],
            llm_ids=[random.randrange(6, 400) for _ in range(b)],
        )
        for n, (a, b) in enumerate(sizes)
    ]


def loss_of(model: Any, examples: Sequence[TextExample], packed: bool) -> torch.Tensor:
    objective = SoftPromptedLM(PAD, CUE)
    model.llm.set_attn_implementation(PACKED if packed else "sdpa")
    batch = objective.collate(examples, packed)
    assert ("cu_seq_lens_q" in batch["inputs"]) is packed
    with torch.no_grad():
        loss, count = objective.loss(model, batch)
    assert float(count) == sum(map(objective.targets, examples))
    return loss


def test_packs_padded_rows_and_parts_of_a_batch(model: Any):
    whole = loss_of(model, rows(), packed=False)
    for packed in (False, True):
        torch.testing.assert_close(loss_of(model, rows(), packed), whole, atol=1e-4, rtol=1e-5)
        cut = sum(loss_of(model, rows()[a:b], packed) for a, b in ((0, 1), (1, 3), (3, 7)))
        torch.testing.assert_close(cut, whole, atol=1e-4, rtol=1e-5)


def test_it_is_the_loss_of_the_answer(model: Any):
    model.llm.set_attn_implementation("sdpa")
    [one] = rows()[4:5]
    with torch.no_grad():
        known = model.soft_prompt(torch.tensor([one.input_ids]))
        own = model.llm.get_input_embeddings()(torch.tensor([one.llm_ids]))
        states = model.llm(inputs_embeds=torch.cat([known, own], 1), use_cache=False).last_hidden_state
        logits = model.lm_head(states)[0, -len(one.llm_ids) :]
    wanted = cross_entropy(logits[CUE - 1 : -1], torch.tensor(one.llm_ids[CUE:]), reduction="sum")
    torch.testing.assert_close(loss_of(model, [one], packed=False), wanted, atol=1e-4, rtol=1e-5)


def test_what_is_counted():
    one = TextExample("a", [5, 6, 7], [], llm_ids=[8, 9, 10, 11])
    assert (SoftPromptedLM(PAD, CUE).targets(one), SoftPromptedLM(PAD, CUE).tokens(one)) == (2, 7)
