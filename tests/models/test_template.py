"""Prompts and examples under several chat templates: the same tokens in training as in generation."""

from pathlib import Path
from typing import Any

import pytest

from sdx import InputError
from sdx.config import TemplateKind
from sdx.models.template import (
    encode_example,
    encode_plain,
    end_of_turn,
    install_pad,
    install_template,
    prompt_ids,
    prompt_text,
    stop_ids,
)
from tests.kit.tiny import tiny_model, tiny_tokenizer

LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
LLAMA2 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + message['content'] | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# An empty thought in the last answer, and in the prompt only when thinking is switched off; and a date.
THINKING = (
    "{{ date_string }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
PLAIN = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant: "


def with_template(template: str, *special: str, chat: bool = False) -> Any:
    tokenizer = tiny_tokenizer(chat)
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.chat_template = template
    return tokenizer


def chatml() -> Any:
    return tiny_tokenizer()


def llama3() -> Any:
    return with_template(LLAMA3, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def llama2() -> Any:
    return with_template(LLAMA2)


def thinking() -> Any:
    return with_template(THINKING, chat=True)


def instruction() -> Any:
    tokenizer = tiny_tokenizer(chat=False)
    install_template(tokenizer, TemplateKind.auto)
    return tokenizer


CASES = {
    chatml: ("<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\n", "Four.<|im_end|>", ["<|im_end|>"]),
    llama3: (
        "<|begin|><|start_header_id|>user<|end_header_id|>\n\nHow?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "Four.<|eot_id|>",
        ["<|endoftext|>", "<|eot_id|>"],
    ),
    llama2: ("<|begin|>[INST] How? [/INST]", " Four. <|endoftext|>", ["<|endoftext|>"]),
    thinking: (
        "26 Jul 2024<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "Four.<|im_end|>",
        ["<|im_end|>"],
    ),
    instruction: (
        "<|begin|>### Instruction:\nHow?\n\n### Response:\n",
        "Four.<|endoftext|>",
        ["<|endoftext|>"],
    ),
}


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_prompt_response_and_end(make):
    tokenizer = make()
    prompt, rest, stops = CASES[make]
    assert prompt_text(tokenizer, "How?") == prompt
    ids, size = encode_example(tokenizer, "How?", "Four.")
    assert ids[:size] == prompt_ids(tokenizer, "How?")
    assert tokenizer.decode(ids[:size]) == prompt
    assert tokenizer.decode(ids[size:]) == rest
    assert rest == rest.split("Four.")[0] + "Four." + end_of_turn(tokenizer)
    assert tokenizer.convert_ids_to_tokens(stop_ids(tokenizer)) == stops
    assert ids[-1] in stop_ids(tokenizer)
    assert ids.count(tokenizer.bos_token_id) == (1 if prompt.startswith("<|begin|>") else 0)


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("response", ["\n\nFour", "  four ", "ภาษาไทย", "", "\u27e6response\u27e7"])
def test_the_prompt_is_the_same_in_training_and_generation_and_the_response_is_whole(make, response):
    tokenizer = make()
    ids, size = encode_example(tokenizer, "Quantas patas?\n", response)
    assert ids[:size] == prompt_ids(tokenizer, "Quantas patas?\n")
    rest = tokenizer.decode(ids[size:])
    assert rest.endswith(response + end_of_turn(tokenizer))
    assert ids[-1] in stop_ids(tokenizer)


def test_a_token_across_the_boundary_is_cut_there():
    """A token that spans prompt and response is one that the model never sees when it generates."""
    tokenizer = with_template(
        "{{ messages[0]['content'] }}{% if messages[1:] %}{{ messages[1]['content'] }}{% endif %}"
    )
    joined = tokenizer("Answer", add_special_tokens=False).input_ids
    prompt = tokenizer("Ans", add_special_tokens=False).input_ids
    assert joined[: len(prompt)] != prompt
    ids, size = encode_example(tokenizer, "Ans", "wer")
    assert ids[:size] == prompt
    assert tokenizer.decode(ids) == "Answer<|endoftext|>"


def test_end_of_turn_falls_back_to_eos():
    tokenizer = with_template(PLAIN.replace("assistant: ", "{% if add_generation_prompt %}assistant: {% endif %}"))
    assert end_of_turn(tokenizer) == "<|endoftext|>"
    assert stop_ids(tokenizer) == [tokenizer.eos_token_id]


def test_a_template_whose_prompt_begins_no_conversation_is_refused():
    tokenizer = with_template("{{ messages | length }}{{ messages[-1]['content'] }}")
    with pytest.raises(InputError, match=r"backbone\.template=instruction"):
        encode_example(tokenizer, "How?", "Four.")


def test_install_template():
    chat, base = tiny_tokenizer(), tiny_tokenizer(chat=False)
    own = chat.chat_template
    install_template(chat, TemplateKind.auto)
    assert chat.chat_template == own
    install_template(chat, TemplateKind.chat)
    assert chat.chat_template == own
    install_template(chat, TemplateKind.instruction)
    assert prompt_text(chat, "How?") == "### Instruction:\nHow?\n\n### Response:\n"  # puts no BOS, gets none
    assert end_of_turn(chat) == "<|im_end|>"
    with pytest.raises(InputError, match=r"backbone\.template=chat"):
        install_template(base, TemplateKind.chat)


def test_the_instruction_template_holds_a_conversation():
    tokenizer = instruction()
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How?"},
        {"role": "assistant", "content": "Four."},
        {"role": "user", "content": "Why?"},
    ]
    assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == (
        "<|begin|>Be brief.\n\n### Instruction:\nHow?\n\n### Response:\nFour.<|endoftext|>\n\n"
        "### Instruction:\nWhy?\n\n### Response:\n"
    )


def test_install_pad_prefers_a_token_that_ends_nothing():
    tokenizer = tiny_tokenizer()
    install_pad(tokenizer)
    assert tokenizer.pad_token == "<|pad|>"
    tokenizer.pad_token = tokenizer.eos_token
    install_pad(tokenizer)
    assert tokenizer.pad_token == "<|pad|>"
    tokenizer.pad_token = None
    install_pad(tokenizer)
    assert tokenizer.pad_token == "<|pad|>"


def test_install_pad_falls_back_to_eos(monkeypatch: pytest.MonkeyPatch):
    tokenizer = tiny_tokenizer()
    monkeypatch.setattr("sdx.models.template.PADS", ("<no such token>",))
    tokenizer.pad_token = None
    install_pad(tokenizer)
    assert tokenizer.pad_token == tokenizer.eos_token


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("response", ["four", "dióxido de carbono", "ประเทศไทย", "42"])
def test_a_plain_example_is_what_the_harness_scores(chat: bool, response: str, tmp_path: Path):
    """With BOS where the tokenizer puts one, and EOS, which is not scored, behind it."""
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tiny_model(tmp_path, chat)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = HFLM(AutoModelForCausalLM.from_pretrained(tmp_path), tokenizer=tokenizer)
    prompt = "Q: How many legs does a dog have?\nA:"
    context, scored = model._encode_pair(prompt, f" {response}")
    ids, prompt_tokens = encode_plain(tokenizer, prompt, response)
    assert ids == [*context, *scored, tokenizer.eos_token_id]
    assert prompt_tokens == len(context)
