"""Greedy completions from a Hugging Face model in this process."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdx.config import InputError, Precision, TemplateKind
from sdx.generation.decode import Ended, greedy
from sdx.generation.prefix import Prefix, common, reusable
from sdx.models.template import INSTRUCTION_TEMPLATE, NEW_TURN

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
        self._prefix: Prefix | None = None

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

        self._loaded = self._prefix = None
        self._line_ends, self._headings = set(), set()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def complete(
        self, instructions: list[str], max_new_tokens: int | Sequence[int], shared: str = ""
    ) -> list[Completion]:
        """One batch of completions, in the order of the instructions.

        An instruction that leaves no room for its answer in the model's context gets an empty one of 0 tokens.

        Args:
            max_new_tokens: of each answer.
            shared: what these instructions and those of following calls begin with, if only in part. What it says to
                the model is computed once and kept, see `Prefix`, until a call names another; the answers are the same.

        Raises:
            InputError: the batch does not fit in memory.
        """
        from sdx.models.template import prompt_ids

        _, tokenizer, _ = self._ready()
        prompts = [prompt_ids(tokenizer, instruction) for instruction in instructions]
        beginning = common(prompt_ids(tokenizer, f"{shared}a"), prompt_ids(tokenizer, f"{shared}1")) if shared else []
        limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
        ended = self._turn_end()
        answers = [_completion(tokenizer, answer, ended) for answer in self._answers(prompts, ended, limits, beginning)]
        return answers if self.chats() else [_cut(answer, NEW_TURN) for answer in answers]

    def complete_lines(
        self, texts: list[str], max_new_tokens: Sequence[int], shared: str = "", end: str = "\n"
    ) -> list[Completion]:
        """The rest of the last line of each text, written without a template; ends where the line does.

        Args:
            max_new_tokens: of each text.
            shared: what these texts and those of following calls begin with, if only in part, as in `complete`.
            end: ends an answer too.
        """
        _, tokenizer, stops = self._ready()
        if not self._line_ends:
            self._line_ends = _line_ends(tokenizer)
        ends = stops | self._line_ends
        prompts = [tokenizer(text).input_ids for text in texts]
        # Where the words that follow cannot change the tokens.
        beginning = common(tokenizer(f"{shared}a").input_ids, tokenizer(f"{shared}1").input_ids) if shared else []
        tail = len(end.encode()) + TAIL

        def ended(answer: list[int]) -> bool:
            return answer[-1] in ends or ("\n" not in end and end in tokenizer.decode(answer[-tail:]))

        answers = self._answers(prompts, ended, max_new_tokens, beginning)
        return [_completion(tokenizer, answer, ended, ("\n", end)) for answer in answers]

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

    def _answers(
        self, prompts: list[list[int]], ended: Ended, limits: Sequence[int], beginning: list[int]
    ) -> list[list[int]]:
        import torch

        model, tokenizer, _ = self._ready()
        places = [place for place, prompt in enumerate(prompts) if len(prompt) + limits[place] <= self.context]
        answers: list[list[int]] = [[] for _ in prompts]
        if not places:
            return answers
        fitting, room = [prompts[place] for place in places], [limits[place] for place in places]
        try:
            prefix = self._prefix_of(beginning)
            completed = greedy(model, fitting, ended, tokenizer.pad_token_id, room, prefix)
        except torch.OutOfMemoryError:
            raise InputError(
                f"generator.batch_size={self.batch_size} does not fit in the GPU's memory; give a smaller one"
            ) from None
        for place, answer in zip(places, completed, strict=True):
            answers[place] = answer
        return answers

    def _prefix_of(self, beginning: list[int]) -> Prefix | None:
        """The states of the beginning, those of the last call where it was the same; none where they cannot be kept."""
        if self._prefix is None or self._prefix.ids != beginning:
            self._prefix = None  # first frees what it takes
            model, _, _ = self._ready()
            if beginning and reusable(model):
                self._prefix = Prefix(model, beginning)
        return self._prefix

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


def _completion(tokenizer: Any, answer: list[int], ended: Ended, ends: Sequence[str] = ()) -> Completion:
    """Args: ends: each of which ends the text, before spaces are stripped: they may be a part of it."""
    finished = bool(answer) and ended(answer)
    text = tokenizer.decode(answer, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if not finished:
        text = text.rstrip("\ufffd")  # a character of which the limit cut off the last bytes
    for end in ends:
        text = text.partition(end)[0]
    return Completion(text.strip(), len(answer), finished)


def _cut(completion: Completion, end: str) -> Completion:
    return Completion(completion.text.partition(end)[0].strip(), completion.tokens, completion.finished)


def _line_ends(tokenizer: Any) -> set[int]:
    """The tokens with a line feed in them. Byte-level vocabularies write it Ċ, which is a letter in others."""
    perhaps = ((token, id_) for token, id_ in tokenizer.get_vocab().items() if LINE_FEEDS & {*token, token})
    return {id_ for token, id_ in perhaps if "\n" in tokenizer.convert_tokens_to_string([token])}
