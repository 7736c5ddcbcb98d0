"""Instructions and responses are written for a model with the tokenizer's chat template.

A tokenizer without one gets the instruction template, which an exported model then carries. It is ours, a shortened
Alpaca prompt, with BOS in front if the tokenizer puts BOS in front of plain text:

    ### Instruction:
    {instruction}

    ### Response:
    {response}{eos}
"""

from collections.abc import Sequence
from functools import lru_cache
from operator import add
from typing import Any

from sdx import InputError
from sdx.config import TemplateKind

INSTRUCTION_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '### Response:\\n' + message['content'] + eos_token + ('' if loop.last else '\\n\\n') }}"
    "{% else %}{{ message['content'] + '\\n\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"
)
NEW_TURN = "\n###"
"""A base model ends its answer to the instruction template with the next heading and rarely with EOS."""
SENTINEL = "\u27e6response\u27e7"
PADS = ("<pad>", "<|pad|>", "[PAD]", "<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>")
"""Tokens to pad with, in order of preference, if the tokenizer names none but its end of turn."""
OPTIONS = {"enable_thinking": False, "date_string": "26 Jul 2024"}
"""A thinking model answers directly, and a template that prints a date always prints the same one."""


def install_template(tokenizer: Any, kind: TemplateKind) -> None:
    """Sets `tokenizer.chat_template`, in place.

    Raises:
        InputError: `kind` is `chat` and there is no chat template.
    """
    if isinstance(tokenizer.chat_template, dict):  # by purpose
        tokenizer.chat_template = tokenizer.chat_template.get("default")
    if kind is TemplateKind.chat and not tokenizer.chat_template:
        raise InputError(
            "backbone.template=chat, but the tokenizer has no chat template; set it to instruction or auto"
        )
    if kind is TemplateKind.instruction or not tokenizer.chat_template:
        first = tokenizer("a").input_ids[0]
        bos = "{{ bos_token }}" if first == tokenizer.bos_token_id else ""
        tokenizer.chat_template = bos + INSTRUCTION_TEMPLATE


def install_pad(tokenizer: Any) -> None:
    """Sets a pad token that ends no turn if the vocabulary has one, in place; masks never rely on it."""
    if tokenizer.pad_token is not None and tokenizer.pad_token_id not in stop_ids(tokenizer):
        return
    vocabulary = tokenizer.get_vocab()
    free = [token for token in PADS if token in vocabulary and vocabulary[token] not in stop_ids(tokenizer)]
    tokenizer.pad_token = free[0] if free else tokenizer.eos_token


def prompt_text(tokenizer: Any, instruction: str) -> str:
    """The user's turn and the beginning of the model's."""
    return _render(tokenizer, [{"role": "user", "content": instruction}], True)


def prompt_ids(tokenizer: Any, instruction: str) -> list[int]:
    """`prompt_text` in tokens, with BOS only if the template writes it."""
    return _ids(tokenizer, prompt_text(tokenizer, instruction))


def end_of_turn(tokenizer: Any) -> str:
    """The text after a response up to the special token that ends it, such as `<|im_end|>` or ` </s>`; else EOS."""
    return _joints(tokenizer, tokenizer.chat_template)[1]


def stop_ids(tokenizer: Any) -> list[int]:
    """Tokens that end a response: EOS and the end of turn."""
    return sorted({tokenizer.eos_token_id, _ids(tokenizer, end_of_turn(tokenizer))[-1]})


def encode_example(tokenizer: Any, instruction: str, response: str) -> tuple[list[int], int]:
    """Tokens of prompt, response and end of turn, and the number of prompt tokens, which have no loss.

    The first tokens are exactly `prompt_ids`, as in generation.
    """
    return encode_examples(tokenizer, [(instruction, response)])[0]


def encode_examples(tokenizer: Any, sides: Sequence[tuple[str, str]]) -> list[tuple[list[int], int]]:
    """`encode_example` of many instructions and responses, which takes half the time."""
    if not sides:
        return []
    before, after = _joints(tokenizer, tokenizer.chat_template)
    prompts = [prompt_text(tokenizer, instruction) for instruction, _ in sides]
    rests = [before + response + after for _, response in sides]
    starts: list[list[int]] = tokenizer(prompts, add_special_tokens=False).input_ids
    wholes = tokenizer([*map(add, prompts, rests)], add_special_tokens=False).input_ids
    found = []
    for start, whole, rest in zip(starts, wholes, rests, strict=True):
        if whole[: len(start)] != start:  # the response's first characters merged with the prompt's last
            whole = start + _ids(tokenizer, rest)
        found.append((whole, len(start)))
    return found


def encode_plain(tokenizer: Any, prompt: str, response: str) -> tuple[list[int], int]:
    """As `encode_example`, without a template: prompt, a space, the response and EOS.

    Up to EOS these are the tokens whose log-probabilities lm-evaluation-harness sums.
    """
    start = tokenizer(prompt).input_ids
    whole = tokenizer(f"{prompt} {response}").input_ids
    return [*whole, tokenizer.eos_token_id], len(start)


@lru_cache(maxsize=8)
def _joints(tokenizer: Any, template: str) -> tuple[str, str]:
    """The text between prompt and response (a space in LLaMA-2's template), and the end of turn.

    `template`, the tokenizer's current one, is part of the cache key.
    """
    user = {"role": "user", "content": "a"}
    prompt = _render(tokenizer, [user], True)
    turns = _render(tokenizer, [user, {"role": "assistant", "content": SENTINEL}], False)
    before, _, after = turns.rpartition(SENTINEL)
    if not before.startswith(prompt):
        raise InputError(
            "the tokenizer's chat template opens a response with a text that no conversation has; "
            "set backbone.template=instruction"
        )
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    found = [token for token in tokenizer.tokenize(after, add_special_tokens=False) if token in special]
    end = after[: after.index(found[0]) + len(found[0])] if found else tokenizer.eos_token
    return before[len(prompt) :], end


def _render(tokenizer: Any, messages: list[dict[str, str]], generate: bool) -> str:
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate, **OPTIONS)
    return text


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids
