"""Greedy completions by a Hugging Face model in this process."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from sdx.config import Precision, TemplateKind
from sdx.generation.decode import Ended, greedy
from sdx.generation.prefix import Prefix, common, reusable
from sdx.models.backbone import load_tokenizer, loaded
from sdx.models.batches import ROWS, cut
from sdx.models.template import INSTRUCTION_TEMPLATE, NEW_TURN, prompt_ids, stop_ids
from sdx.process.ranks import device

HEADING_TOKENS = 8
"""Last tokens of an answer in which the heading of a new turn is looked for."""
LINE_FEEDS = {"\n", "Ċ", "<0x0A>"}


@dataclass(frozen=True)
class Completion:
    text: str
    """Without special tokens and surrounding space."""
    tokens: int
    """Generated, including the end of turn."""
    finished: bool
    """Ended by the model, not by the limit."""


class _Ready:
    """A loaded model with its tokenizer and what is derived from them."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        eos = model.generation_config.eos_token_id if model.generation_config else None
        self.stops: set[int] = {*stop_ids(tokenizer), *(eos if isinstance(eos, list) else [eos])} - {None}
        """EOS and the end of turn."""
        self.prefix: Prefix | None = None

    def prefix_of(self, beginning: list[int]) -> Prefix | None:
        """The beginning's states, kept from the last call if it was the same; None if the model cannot reuse any."""
        if self.prefix is None or self.prefix.ids != beginning:
            self.prefix = None  # frees its memory first
            if beginning and reusable(self.model):
                self.prefix = Prefix(self.model, beginning)
        return self.prefix


class HFGenerator:
    """Completes instructions, written with the tokenizer's template.

    Args:
        batch_size: most prompts in a batch; None: as many as suit the device.
        precision: of the forward pass. bf16 is twice as fast as fp32 on a CPU with bf16 instructions.
    """

    def __init__(self, batch_size: int | None, precision: Precision) -> None:
        self.batch_size, self.precision = batch_size, precision
        self._source: tuple[Path, TemplateKind] | None = None

    def load(self, model_dir: Path, template: TemplateKind) -> None:
        """Chooses the model. It is loaded when the first prompt needs it."""
        self._source = (model_dir, template)

    @property
    def most_rows(self) -> int:
        """Prompts of a batch, however short."""
        return ROWS.on(device().type == "cuda", self.batch_size)

    def batches(self, instructions: Sequence[str], max_new_tokens: int) -> list[slice]:
        """Neighbours to complete together. On a CPU only their number counts, and no model is loaded."""
        if device().type == "cpu":
            return list(cut([0.0] * len(instructions), math.inf, self.most_rows))
        tokenizer = self._ready().tokenizer
        lengths = [len(prompt_ids(tokenizer, instruction)) for instruction in instructions]
        return self.batches_of(lengths, [max_new_tokens] * len(lengths))

    def batches_of(self, lengths: Sequence[int], limits: Sequence[int]) -> list[slice]:
        """`batches` of prompts and answers with these numbers of tokens."""
        from sdx.models.fit import room

        read = [int(min(length, self.context)) for length in lengths]  # longer prompts are not completed
        return list(cut(self._sizes(read, limits), room(self._ready().model), self.most_rows))

    def complete(
        self, instructions: list[str], max_new_tokens: int | Sequence[int], shared: str = ""
    ) -> list[Completion]:
        """Completions of one batch. One without room for its answer in the model's context is empty, of 0 tokens.

        Args:
            max_new_tokens: of each answer.
            shared: beginning that these instructions and those of later calls share at least in part. Its states are
                computed once and kept, see `Prefix`, until a call has another; the answers are the same.

        Raises:
            InputError: a single prompt does not fit in the GPU's memory.
        """
        ready, chats = self._ready(), self.chats()
        tokenizer, stops, headings = ready.tokenizer, ready.stops, set() if chats else _headings(ready.tokenizer)
        prompts = [prompt_ids(tokenizer, instruction) for instruction in instructions]
        beginning = common(prompt_ids(tokenizer, f"{shared}a"), prompt_ids(tokenizer, f"{shared}1")) if shared else []
        limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens

        def ended(answer: list[int]) -> bool:
            last = answer[-1]
            return last in stops or (last in headings and NEW_TURN in tokenizer.decode(answer[-HEADING_TOKENS:]))

        answers = [_completion(tokenizer, answer, ended) for answer in self._answers(prompts, ended, limits, beginning)]
        if chats:
            return answers
        return [replace(answer, text=answer.text.partition(NEW_TURN)[0].strip()) for answer in answers]

    def complete_lines(
        self, texts: list[str], max_new_tokens: Sequence[int], shared: str = "", end: str = "\n"
    ) -> list[Completion]:
        """The rest of the last line of each text, written without a template.

        Args:
            max_new_tokens: of each text.
            shared: beginning that the texts of several calls share, as in `complete`.
            end: also ends an answer.
        """
        ready = self._ready()
        tokenizer, ends = ready.tokenizer, ready.stops | _line_ends(ready.tokenizer)
        prompts = [tokenizer(text).input_ids for text in texts]
        # Up to where the words that follow cannot change the tokens.
        beginning = common(tokenizer(f"{shared}a").input_ids, tokenizer(f"{shared}1").input_ids) if shared else []
        tail = len(end.encode()) + HEADING_TOKENS

        def ended(answer: list[int]) -> bool:
            return answer[-1] in ends or ("\n" not in end and end in tokenizer.decode(answer[-tail:]))

        answers = self._answers(prompts, ended, max_new_tokens, beginning)
        return [_completion(tokenizer, answer, ended, ("\n", end)) for answer in answers]

    def count_tokens(self, texts: list[str]) -> list[int]:
        """Length of each text, in tokens of the model."""
        return [len(ids) for ids in self._ready().tokenizer(texts, add_special_tokens=False).input_ids]

    @property
    def context(self) -> float:
        """Most tokens of a prompt and its answer; infinite if the model's config does not say."""
        return getattr(self._ready().model.config, "max_position_embeddings", None) or math.inf

    def chats(self) -> bool:
        """Whether the model has a chat template of its own."""
        return INSTRUCTION_TEMPLATE not in self._ready().tokenizer.chat_template

    def _answers(
        self, prompts: list[list[int]], ended: Ended, limits: Sequence[int], beginning: list[int]
    ) -> list[list[int]]:
        from sdx.models.fit import pieces

        ready = self._ready()
        fitting = [index for index, prompt in enumerate(prompts) if len(prompt) + limits[index] <= self.context]
        answers: list[list[int]] = [[] for _ in prompts]
        rows, room = [prompts[index] for index in fitting], [limits[index] for index in fitting]
        prefix, pad = ready.prefix_of(beginning), ready.tokenizer.pad_token_id
        for some, completed in pieces(
            ready.model,
            self._sizes([len(prompt) for prompt in rows], room),
            [slice(0, len(rows))],
            lambda some: greedy(ready.model, rows[some], ended, pad, room[some], prefix),
            lambda row: f"a prompt of {len(rows[row])} tokens with an answer of up to {room[row]}",
            "lower scale.max_new_tokens, or translator.shots of translator=self, or take a GPU with more memory",
        ):
            for index, answer in zip(fitting[some], completed, strict=True):
                answers[index] = answer
        return answers

    def _sizes(self, lengths: Sequence[int], limits: Sequence[int]) -> list[float]:
        """Bytes of prompts and answers with these numbers of tokens."""
        from sdx.models.fit import row_bytes

        return list(map(row_bytes(self._ready().model).completed, lengths, limits))

    def _ready(self) -> _Ready:
        assert self._source, "load() comes first"
        model_dir, template = self._source
        tokenizer = _tokenizer(model_dir, template)  # before the model, which takes long to load: it may be refused
        resident = loaded(model_dir, self.precision)
        return resident.cached(template, lambda: _Ready(resident.model, tokenizer))


_tokenizer = lru_cache(maxsize=1)(load_tokenizer)


def _completion(tokenizer: Any, answer: list[int], ended: Ended, ends: Sequence[str] = ()) -> Completion:
    """Args: ends: strings that end the text, before spaces are stripped because an end may contain spaces."""
    finished = bool(answer) and ended(answer)
    text = tokenizer.decode(answer, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if not finished:
        text = text.rstrip("\ufffd")  # a character whose last bytes the limit cut off
    for end in ends:
        text = text.partition(end)[0]
    return Completion(text.strip(), len(answer), finished)


@lru_cache(maxsize=1)
def _headings(tokenizer: Any) -> set[int]:
    """The tokens that may begin a heading of the instruction template."""
    return {id_ for token, id_ in tokenizer.get_vocab().items() if "#" in token}


@lru_cache(maxsize=1)
def _line_ends(tokenizer: Any) -> set[int]:
    """The tokens with a line feed. Byte-level vocabularies write it Ċ, which is a letter in others."""
    vocabulary, decode = tokenizer.get_vocab(), tokenizer.convert_tokens_to_string
    return {id_ for token, id_ in vocabulary.items() if LINE_FEEDS & {*token, token} and "\n" in decode([token])}
