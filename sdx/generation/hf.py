"""Greedy completions from a Hugging Face model in this process.

The loop is our own because `generate` keeps finished rows in the batch until the longest answer ends. Here
they leave it. SmolLM2 in batches of 32 on two CPU cores writes 345 tokens a second instead of 265, and 150 instead
of 101 where most answers are short and a few run to the limit; the tokens are the same.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdx.config import InputError, Precision, TemplateKind
from sdx.models.template import INSTRUCTION_TEMPLATE, NEW_TURN

KEEP = 0.75
"""Finished rows leave the batch when at most this share of it is unfinished: leaving copies the cache."""

Ended = Callable[[list[int]], bool]
"""Whether an answer of one token or more is at its end."""
TAIL = 8
"""Tokens in which the heading of another turn is looked for."""
LINE_FEEDS = {"\n", "Ċ", "<0x0A>"}


@dataclass(frozen=True)
class Completion:
    text: str
    """Without special tokens and surrounding space."""
    tokens: int
    """Generated, the end of turn counted."""
    finished: bool
    """The model ended it, not the limit."""


class HFGenerator:
    """Completes instructions, written with the tokenizer's template.

    Args:
        batch_size: prompts at once.
        precision: of the forward pass. bf16 is twice as fast as fp32 on a CPU that has its instructions.
    """

    def __init__(self, batch_size: int, precision: Precision) -> None:
        if batch_size < 1:
            raise InputError(f"generator.batch_size={batch_size} is too small; give 1 or more")
        self.batch_size = batch_size
        self.precision = precision
        self._source: tuple[Path, TemplateKind] | None = None
        self._loaded: tuple[Any, Any, set[int]] | None = None
        self._line_ends: set[int] = set()
        self._headings: set[int] = set()

    def load(self, model_dir: Path, template: TemplateKind) -> None:
        """Says which model completes from now on. It is loaded when the first prompt needs it."""
        if self._source != (model_dir, template):
            self.unload()
            self._source = (model_dir, template)

    def unload(self) -> None:
        """Frees the model's memory."""
        if self._loaded is None:
            return
        import torch

        self._loaded = None
        self._line_ends, self._headings = set(), set()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def complete(self, instructions: list[str], max_new_tokens: int | Sequence[int]) -> list[Completion]:
        """One batch of completions, in the order of the instructions.

        An instruction that leaves no room for its answer in the model's context gets an empty one of 0 tokens.

        Args:
            max_new_tokens: of each answer.

        Raises:
            InputError: the batch does not fit in memory.
        """
        from sdx.models.template import prompt_ids

        _, tokenizer, _ = self._ready()
        prompts = [prompt_ids(tokenizer, instruction) for instruction in instructions]
        limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
        ended = self._turn_end()
        answers = [_completion(tokenizer, answer, ended) for answer in self._answers(prompts, ended, limits)]
        return answers if self.chats() else [_cut(answer, NEW_TURN) for answer in answers]

    def complete_lines(self, texts: list[str], max_new_tokens: Sequence[int]) -> list[Completion]:
        """The rest of the last line of each text, written without a template; ends where the line does.

        Args:
            max_new_tokens: of each text.
        """
        _, tokenizer, stops = self._ready()
        if not self._line_ends:
            self._line_ends = _line_ends(tokenizer)
        ends = stops | self._line_ends
        prompts = [tokenizer(text).input_ids for text in texts]

        def ended(answer: list[int]) -> bool:
            return answer[-1] in ends

        answers = self._answers(prompts, ended, max_new_tokens)
        return [_cut(_completion(tokenizer, answer, ended), "\n") for answer in answers]

    def count_tokens(self, texts: list[str]) -> list[int]:
        """Length of each text, in tokens of the model."""
        _, tokenizer, _ = self._ready()
        return [len(ids) for ids in tokenizer(texts, add_special_tokens=False).input_ids]

    @property
    def context(self) -> float:
        """The most tokens that a prompt and its answer may have; infinite where the model says nothing."""
        return getattr(self._ready()[0].config, "max_position_embeddings", None) or math.inf

    def chats(self) -> bool:
        """Whether the model has a chat template of its own."""
        return INSTRUCTION_TEMPLATE not in self._ready()[1].chat_template

    def _turn_end(self) -> Ended:
        """EOS and the end of turn; for the instruction template also the heading of another turn."""
        _, tokenizer, stops = self._ready()
        if self.chats():
            return lambda answer: answer[-1] in stops
        if not self._headings:
            self._headings = {id_ for token, id_ in tokenizer.get_vocab().items() if "#" in token}
        headings = self._headings

        def ended(answer: list[int]) -> bool:
            return answer[-1] in stops or (answer[-1] in headings and NEW_TURN in tokenizer.decode(answer[-TAIL:]))

        return ended

    def _answers(self, prompts: list[list[int]], ended: Ended, limits: Sequence[int]) -> list[list[int]]:
        import torch

        model, tokenizer, _ = self._ready()
        places = [place for place, prompt in enumerate(prompts) if len(prompt) + limits[place] <= self.context]
        answers: list[list[int]] = [[] for _ in prompts]
        if not places:
            return answers
        fitting, room = [prompts[place] for place in places], [limits[place] for place in places]
        try:
            completed = _greedy(model, fitting, ended, tokenizer.pad_token_id, room)
        except torch.OutOfMemoryError:
            raise InputError(
                f"generator.batch_size={self.batch_size} does not fit in the GPU's memory; give a smaller one"
            ) from None
        for place, answer in zip(places, completed, strict=True):
            answers[place] = answer
        return answers

    def _ready(self) -> tuple[Any, Any, set[int]]:
        if self._loaded is None:
            from sdx.models.backbone import load_model, load_tokenizer
            from sdx.models.template import stop_ids

            assert self._source, "load() comes first"
            model_dir, template = self._source
            tokenizer = load_tokenizer(model_dir, template)
            model = load_model(model_dir, self.precision)
            named = model.generation_config.eos_token_id if model.generation_config else None
            also = named if isinstance(named, list) else [named]
            stops = {*stop_ids(tokenizer), *(id_ for id_ in also if id_ is not None)}
            self._loaded = (model, tokenizer, stops)
        return self._loaded


def _completion(tokenizer: Any, answer: list[int], ended: Ended) -> Completion:
    finished = bool(answer) and ended(answer)
    text = tokenizer.decode(answer, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if not finished:
        text = text.rstrip("\ufffd")  # a character of which the limit cut off the last bytes
    return Completion(text.strip(), len(answer), finished)


def _cut(completion: Completion, end: str) -> Completion:
    return Completion(completion.text.partition(end)[0].strip(), completion.tokens, completion.finished)


def _line_ends(tokenizer: Any) -> set[int]:
    """The tokens with a line feed in them. Byte-level vocabularies write it Ċ, which is a letter in others."""
    perhaps = ((token, id_) for token, id_ in tokenizer.get_vocab().items() if LINE_FEEDS & {*token, token})
    return {id_ for token, id_ in perhaps if "\n" in tokenizer.convert_tokens_to_string([token])}


def _greedy(model: Any, prompts: list[list[int]], ended: Ended, pad: int, limits: Sequence[int]) -> list[list[int]]:
    """At most its limit of tokens for each prompt, what ends it included, by argmax over a key-value cache."""
    import torch

    length = max(map(len, prompts))
    padded = [[pad] * (length - len(prompt)) + prompt for prompt in prompts]
    ids = torch.tensor(padded, device=model.device)  # [batch, seq]
    sizes = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
    mask = (torch.arange(length, device=model.device) >= length - sizes[:, None]).long()  # [batch, seq]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    answers: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))  # place in the batch -> prompt
    going = set(rows)
    cache = None
    with torch.inference_mode():
        for _ in range(max(limits)):
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            chosen = output.logits[:, -1].argmax(-1)  # [batch]
            for row, token in zip(rows, chosen.tolist(), strict=True):
                if row in going:
                    answers[row].append(token)
                    if len(answers[row]) == limits[row] or ended(answers[row]):
                        going.remove(row)
            open_ = [place for place, row in enumerate(rows) if row in going]
            if not open_:
                break
            ids, positions = chosen[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            if len(open_) <= KEEP * len(rows):
                kept = torch.tensor(open_, device=model.device)
                cache.reorder_cache(kept)
                ids, mask, positions = ids[kept], mask[kept], positions[kept]
                rows = [rows[place] for place in open_]
    return answers
