"""A stack that writes: its answer to a text depends on that text alone, and only what was trained is stored."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from sdx.stacking.generation import StackForCausalLM, cue_ids, label_ids
from sdx.stacking.model import StackModel
from tests.kit.tiny import tiny_encoder, tiny_gemma, tiny_model
from tests.kit.tiny_stack import tiny_stack

TEXTS = ["a", "How many legs does a dog have?", ("Four, I think;", "it is a dog."), "x" * 40]
NEW = 6
SIZES = {"llama": 64, "gemma": 32}
"""Widths of the LLMs' states. Gemma's head is its table of embeddings, the Llama's is its own."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parts")
    llms = {"llama": tiny_model(folder / "llama"), "gemma": tiny_gemma(folder / "gemma")}
    return llms | {"stack": tiny_encoder(folder / "encoder", "xlm-roberta")}


def stack(models: dict[str, Path], who: str = "stack", llm: str = "llama") -> Any:
    """Args: who: `stack`, or `llm` for the LLM alone."""
    start = 5 if who == "stack" else None
    return tiny_stack(models.get(who), models[llm], StackForCausalLM, llm_size=SIZES[llm], start_token=start)


@pytest.mark.parametrize("llm", ["llama", "gemma"])
@pytest.mark.parametrize("who", ["stack", "llm"])
def test_a_text_alone_and_among_others(models: dict[str, Path], who: str, llm: str):
    model = stack(models, who, llm)
    alone, together = (model.generate(TEXTS, "en", NEW, batch_size=size) for size in (1, 4))
    assert alone == together
    assert len(set(alone)) > 1
    assert model.generate(TEXTS[::-1], "en", NEW, batch_size=3) == alone[::-1]


@pytest.mark.parametrize("who", ["stack", "llm"])
def test_what_is_written_is_the_likeliest_token_by_token(models: dict[str, Path], who: str):
    model = stack(models, who)
    [read] = [one.ids for one in model.sequence_tokenizer("en").encode([[TEXTS[1]]], 64)]
    behind = cue_ids(model.tokenizer)
    for _ in range(NEW):
        with torch.no_grad():
            if who == "llm":
                logits = model(torch.tensor([[*read, *behind]])).logits
            else:
                gather_index = torch.arange(len(read) + len(behind))[None]
                logits = model(torch.tensor([read]), llm_ids=torch.tensor(behind), gather_index=gather_index).logits
        behind.append(int(logits[0, -1].argmax()))
        if behind[-1] == model.tokenizer.eos_token_id:
            break
    own = behind[len(cue_ids(model.tokenizer)) :]
    text = model.tokenizer.decode(own, skip_special_tokens=True)
    assert len(own) > 1
    assert model.generate([TEXTS[1]], "en", NEW) == [text.strip()]


def test_the_encoder_is_read(models: dict[str, Path]):
    model = stack(models)
    before = model.generate(TEXTS, "en", NEW)
    with torch.no_grad():
        model.bridge.up_proj.weight.neg_()
    assert model.generate(TEXTS, "en", NEW) != before


@pytest.mark.parametrize("llm", ["llama", "gemma"])
def test_a_round_trip(models: dict[str, Path], tmp_path: Path, llm: str):
    model = stack(models, llm=llm)
    model.save_pretrained(tmp_path / "saved")
    names = load_file(tmp_path / "saved/model.safetensors").keys()
    bridge = {"bridge.mean", "bridge.std", "bridge.gain", "bridge.up_proj.weight"}
    assert {name for name in names if ".lora_" not in name} == bridge
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert type(loaded) is StackForCausalLM
    assert loaded.generate(TEXTS, "en", NEW) == model.generate(TEXTS, "en", NEW)


def test_an_aligned_stack_becomes_one_that_writes(models: dict[str, Path], tmp_path: Path):
    aligned = tiny_stack(models["stack"], models["llama"])
    aligned.save_pretrained(tmp_path / "saved")
    writer = StackForCausalLM.from_pretrained(tmp_path / "saved")
    assert isinstance(aligned, StackModel)
    ids = torch.tensor([[4, 9, 30, 11]])
    with torch.no_grad():
        assert torch.equal(writer.hidden_states(ids), aligned.hidden_states(ids))


def test_what_gets_gradients(models: dict[str, Path]):
    model = stack(models).train()
    logits = model(torch.tensor([[4, 9, 30]]), llm_ids=torch.tensor([7, 8]), gather_index=torch.arange(5)[None]).logits
    logits.float().square().sum().backward()
    moved = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert moved == {name for name, _ in model.named_parameters() if ".lora_" in name} | {"bridge.up_proj.weight"}


def test_answers_end_and_have_words(models: dict[str, Path]):
    tokenizer = stack(models, "llm").tokenizer
    ids = label_ids(tokenizer, "the_answer")
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[:-1]).strip() == "the answer"
