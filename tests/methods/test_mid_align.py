"""Alignment of a middle layer: its loss against plain torch on single sentences, and runs by the real entry point."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity
from transformers import AutoModelForCausalLM, AutoTokenizer

from sdx import InputError
from sdx.config import Adapter
from sdx.methods.mid_align import Alignment, Group, grouped
from sdx.store.files import read_json
from sdx.training.attention import PACKED
from sdx.training.objectives import Auxiliary
from tests.kit.configs import step_keys as steps
from tests.kit.tiny import tiny_model
from tests.kit.training import PAD_ID, assert_close, examples, fit, interrupted, rows_of
from tests.kit.workplace import UNSEEN, Workplace, training_log

LAYER, TEMPERATURE = 1, 0.1
MID = ("method=mid_align", "task=mmlu_human", "method.pairs=4", "method.groups=2", UNSEEN)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def groups() -> list[Group]:
    ids = [row.input_ids for row in examples(16)]
    return [Group("a", ids[:3], ids[3:6]), Group("b", ids[6:8], ids[8:10]), Group("c", ids[10:13], ids[13:16])]


def expected(model: Any, some: Sequence[Group]) -> torch.Tensor:
    """A sentence at a time, a similarity at a time."""

    def vector(ids: list[int]) -> torch.Tensor:
        return model(torch.tensor([ids]), output_hidden_states=True).hidden_states[LAYER][0].mean(0)

    total = torch.zeros(())
    for group in some:
        sources, targets = (list(map(vector, side)) for side in (group.sources, group.targets))
        for place, source in enumerate(sources):
            scores = torch.stack([cosine_similarity(source, target, dim=0) / TEMPERATURE for target in targets])
            total = total - torch.log(scores[place].exp() / scores.exp().sum())
    return total


@pytest.mark.parametrize("packed", [True, False])
def test_the_loss_is_that_of_plain_torch_on_sentences_alone(model_dir: Path, packed: bool):
    objective = Alignment(LAYER, TEMPERATURE, PAD_ID)
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    wanted = expected(model, groups())
    wanted.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    if packed:
        model.set_attn_implementation(PACKED)
    loss, count = objective.loss(model, objective.collate(groups(), packed))
    loss.backward()
    torch.testing.assert_close(loss, wanted)
    assert count.item() == sum(map(objective.targets, groups())) == 8
    for name, weight in model.named_parameters():
        wanted_gradient = torch.zeros_like(weight) if gradients[name] is None else gradients[name]
        torch.testing.assert_close(weight.grad, wanted_gradient, rtol=1e-4, atol=1e-5)
    assert sum(gradient is None for gradient in gradients.values()) > 5  # the layer above, norm and head


def test_a_group_is_of_pairs_that_share_no_text(model_dir: Path):
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    texts = [(f"word {n}", f"palavra {n}") for n in range(11)]
    rows = [{"source": one, "target": other} for one, other in (*texts, ("word 3", "outra"), ("long " * 60, "longo"))]
    some = grouped("p_pt", rows, tokenizer, 4, 60, seed=1)
    assert [len(group.sources) for group in some] == [4, 4, 3]
    pairs = {
        (tokenizer.decode(source), tokenizer.decode(target))
        for group in some
        for source, target in zip(group.sources, group.targets, strict=True)
    }
    assert pairs == set(texts)
    assert some == grouped("p_pt", rows, tokenizer, 4, 60, seed=1) != grouped("p_pt", rows, tokenizer, 4, 60, seed=2)
    assert grouped("p_pt", rows[:1], tokenizer, 4, 60, seed=1) == []


COMPILED = {"zero_stage": 2, "compile": True, "activation_checkpointing": True}


@pytest.mark.parametrize(
    "options", [pytest.param(COMPILED, marks=pytest.mark.slow), {"zero_stage": 3, "adapter": Adapter.lora}]
)
def test_micro_batches_do_not_decide_and_an_interrupted_training_ends_in_the_same_model(
    model_dir: Path, tmp_path: Path, options: dict[str, Any]
):
    aligned = Auxiliary("alignment", Alignment(LAYER, TEMPERATURE, PAD_ID), groups(), batch_size=2, share=0.5)
    plain, _ = fit(model_dir, tmp_path / "plain", auxiliary=aligned, adapter=options.get("adapter", Adapter.full))
    options = {**options, "save_every_steps": 1, "micro_batch_tokens": 1}
    calm, _ = fit(model_dir, tmp_path / "calm", auxiliary=aligned, **options)
    assert_close(calm, plain, 2e-5)
    interrupted(model_dir, tmp_path / "rough", 3, auxiliary=aligned, **options)
    rough, _ = fit(model_dir, tmp_path / "rough", auxiliary=aligned, **options)
    assert_close(rough, calm, 0.0)
    told = [[row.get("alignment_loss") for row in rows_of(tmp_path / run)] for run in ("calm", "rough")]
    assert told[0] == told[1]
    assert [loss is None for loss in told[0]] == [True, False] * 4


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("place"))


def test_a_run_alternates_and_leaves_both_losses(place: Workplace):
    run, printed = place.sdx(*MID)
    results = read_json(run / "results.json")
    counts = results["training"]
    assert (counts["examples"], counts["alignment_examples"], counts["steps"]) == (6, 4, 2)
    rows = training_log(run)
    assert [("loss" in row, "alignment_loss" in row) for row in rows] == [(True, False), (False, True)]
    assert (run / "model/config.json").is_file()
    assert {score["language"] for score in results["scores"]} == {"en", "pt"}
    assert "next     python -m sdx method=sft" in printed


def test_what_decides_the_alignment_is_in_the_key_of_the_training(tmp_path: Path):
    base = ("method=mid_align", "lang=th", "translator=self")
    train = steps(tmp_path, *base)["train"]
    for option in ("layer=3", "temperature=0.2", "share=0.25", "pairs=8", "groups=1", "parallel_rows=50"):
        other = steps(tmp_path, *base, f"method.{option}")
        assert other["train"] != train
        assert other["mix"] == steps(tmp_path, *base)["mix"]


@pytest.mark.parametrize(("overrides", "words"), [
    (["method.layer=31"], "method.layer=31: the backbone has 30 layers"),
    (["parallel=none"], "method=mid_align needs a parallel corpus"),
])  # fmt: skip
def test_what_cannot_work_is_refused_at_once(tmp_path: Path, overrides: list[str], words: str):
    with pytest.raises(InputError, match=words):
        steps(tmp_path, "method=mid_align", *overrides)
