"""Greedy completions from a Hugging Face model in this process."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from sdx.config import Precision, TemplateKind
from sdx.generation.decode import Ended, greedy
from sdx.generation.prefix import Prefix, common, reusable
from sdx.models.backbone import load_tokenizer, loaded
from sdx.models.batches import ROWS, cut
from sdx.models.template import INSTRUCTION_TEMPLATE, NEW_TURN, prompt_ids, stop_ids
from sdx.process.ranks import device

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


@dataclass
class _Ready:
    """A model that completes, and what is kept beside it."""

    model: Any
    tokenizer: Any
    stops: set[int]
    """EOS and the end of turn."""
    prefix: Prefix | None = None

    @cached_property
    def line_ends(self) -> set[int]:
        return _line_ends(self.tokenizer)

    @cached_property
    def headings(self) -> set[int]:
        """The tokens that may begin a heading of the instruction template."""
        return {id_ for token, id_ in self.tokenizer.get_vocab().items() if "#" in token}


class HFGenerator:
    """Completes instructions, written with the tokenizer's template.

    Args:
        batch_size: prompts at once, at most; none: as many as suit the device.
        precision: of the forward pass. bf16 is twice as fast as fp32 on a CPU that has its instructions.
    """

    def __init__(self, batch_size: int | None, precision: Precision) -> None:
        self.batch_size = batch_size
        self.precision = precision
        self._source: tuple[Path, TemplateKind] | None = None

    def load(self, model_dir: Path, template: TemplateKind) -> None:
        """Says which model completes from now on. It is loaded when the first prompt needs it."""
        self._source = (model_dir, template)

    @property
    def most_rows(self) -> int:
        """Prompts of a batch, however short."""
        return ROWS.on(device().type == "cuda", self.batch_size)

    def batches(self, instructions: Sequence[str], max_new_tokens: int) -> list[slice]:
        """Neighbours to complete together. On a CPU their number is the same for all lengths and no model is loaded."""
        if device().type == "cpu":
            return list(cut([0.0] * len(instructions), math.inf, self.most_rows))
        tokenizer = self._ready().tokenizer
        lengths = [len(prompt_ids(tokenizer, instruction)) for instruction in instructions]
        return self.batches_of(lengths, [max_new_tokens] * len(lengths))

    def batches_of(self, lengths: Sequence[int], limits: Sequence[int]) -> list[slice]:
        """`batches` of prompts and answers with these numbers of tokens."""
        from sdx.models.fit import room

        model, context = self._ready().model, self.context
        read = [int(min(length, context)) for length in lengths]  # what is longer is passed over
        return list(cut(self._sizes(read, limits), room(model), self.most_rows))

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
            InputError: a single prompt does not fit in the GPU's memory.
        """
        tokenizer = self._ready().tokenizer
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
        ready = self._ready()
        tokenizer, ends = ready.tokenizer, ready.stops | ready.line_ends
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
        tokenizer = self._ready().tokenizer
        return [len(ids) for ids in tokenizer(texts, add_special_tokens=False).input_ids]

    @property
    def context(self) -> float:
        """The most tokens that a prompt and its answer may have; infinite where the model says nothing."""
        return getattr(self._ready().model.config, "max_position_embeddings", None) or math.inf

    def chats(self) -> bool:
        """Whether the model has a chat template of its own."""
        return INSTRUCTION_TEMPLATE not in self._ready().tokenizer.chat_template

    def _turn_end(self) -> Ended:
        """EOS and the end of turn; for the instruction template also the heading of another turn."""
        ready = self._ready()
        tokenizer, stops = ready.tokenizer, ready.stops
        if self.chats():
            return lambda answer: answer[-1] in stops
        headings = ready.headings

        def ended(answer: list[int]) -> bool:
            return answer[-1] in stops or (answer[-1] in headings and NEW_TURN in tokenizer.decode(answer[-TAIL:]))

        return ended

    def _answers(
        self, prompts: list[list[int]], ended: Ended, limits: Sequence[int], beginning: list[int]
    ) -> list[list[int]]:
        from sdx.models.fit import pieces

        ready = self._ready()
        places = [place for place, prompt in enumerate(prompts) if len(prompt) + limits[place] <= self.context]
        answers: list[list[int]] = [[] for _ in prompts]
        if not places:
            return answers
        fitting, room = [prompts[place] for place in places], [limits[place] for place in places]
        prefix, pad = _prefix_of(ready, beginning), ready.tokenizer.pad_token_id
        completed = pieces(
            ready.model,
            self._sizes([len(prompt) for prompt in fitting], room),
            [slice(0, len(fitting))],
            lambda some: greedy(ready.model, fitting[some], ended, pad, room[some], prefix),
            lambda place: f"a prompt of {len(fitting[place])} tokens with an answer of up to {room[place]}",
            "lower scale.max_new_tokens, or translator.shots of translator=self, or take a GPU with more memory",
        )
        for some, its in completed:
            for place, answer in zip(places[some], its, strict=True):
                answers[place] = answer
        return answers

    def _sizes(self, lengths: Sequence[int], limits: Sequence[int]) -> list[float]:
        """Bytes of prompts and answers with these numbers of tokens."""
        from sdx.models.fit import row_bytes

        of = row_bytes(self._ready().model)
        return [of.completed(length, limit) for length, limit in zip(lengths, limits, strict=True)]

    def _ready(self) -> _Ready:
        assert self._source, "load() comes first"
        model_dir, template = self._source
        tokenizer = _tokenizer(model_dir, template)  # may be refused, and a model takes long to load
        held = loaded(model_dir, self.precision)
        return held.cached(template, lambda: _made_ready(held.model, tokenizer))


@lru_cache(maxsize=1)
def _tokenizer(model_dir: Path, template: TemplateKind) -> Any:
    return load_tokenizer(model_dir, template)


def _made_ready(model: Any, tokenizer: Any) -> _Ready:
    named = model.generation_config.eos_token_id if model.generation_config else None
    also = named if isinstance(named, list) else [named]
    return _Ready(model, tokenizer, {*stop_ids(tokenizer), *(id_ for id_ in also if id_ is not None)})


def _prefix_of(ready: _Ready, beginning: list[int]) -> Prefix | None:
    """The states of the beginning, those of the last call where it was the same; none where they cannot be kept."""
    if ready.prefix is None or ready.prefix.ids != beginning:
        ready.prefix = None  # first frees what it takes
        if beginning and reusable(ready.model):
            ready.prefix = Prefix(ready.model, beginning)
    return ready.prefix


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
