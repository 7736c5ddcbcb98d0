"""The interface of all engines that complete prompts, and what they have in common: prompts, stops, texts."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

from sdx import InputError
from sdx.config import Precision, TemplateKind
from sdx.generation.prefix import common
from sdx.generation.sampling import GREEDY, Sampling, seed_of
from sdx.models.backbone import load_tokenizer
from sdx.models.batches import ROWS, Most, cut
from sdx.models.loading import pretrained
from sdx.models.template import INSTRUCTION_TEMPLATE, NEW_TURN, prompt_text, stop_ids
from sdx.process.ranks import device

TAIL_TOKENS = 8
"""Last tokens of an answer in which a string that ends it is looked for, beside one for each of its bytes."""
LINE_FEEDS = {"\n", "Ċ", "<0x0A>"}


@dataclass(frozen=True)
class Completion:
    text: str
    """Without special tokens and surrounding space."""
    tokens: int
    """Generated, including the end of turn."""
    finished: bool
    """Ended by the model, not by the limit."""


@dataclass(frozen=True)
class Stop:
    """What ends an answer."""

    decode: Callable[[list[int]], str]
    ids: frozenset[int]
    """Tokens."""
    string: str = ""
    """Ends an answer whose text has it, too, if not empty."""
    last: frozenset[int] | None = None
    """The tokens that may complete the string; None: any."""
    cuts: tuple[str, ...] = ()
    """The text ends before the first of each."""

    def ended(self, answer: list[int]) -> bool:
        """Whether a non-empty answer is complete, if it was not before its last token."""
        if answer[-1] in self.ids:
            return True
        if not self.string or (self.last is not None and answer[-1] not in self.last):
            return False
        return self.string in self.decode(answer[-len(self.string.encode()) - TAIL_TOKENS :])

    def completion(self, text: str, tokens: int, finished: bool) -> Completion:
        """Cuts the text before spaces are stripped, because the strings may contain spaces."""
        if not finished:
            text = text.rstrip("\ufffd")  # a character whose last bytes the limit cut off
        for end in self.cuts:
            text = text.partition(end)[0]
        return Completion(text.strip(), tokens, finished)


@dataclass(frozen=True)
class ModelFiles:
    """What a model's directory says without its weights."""

    tokenizer: Any
    stops: frozenset[int]
    """EOS and the end of turn."""
    context: float
    """Most tokens of a prompt and its answer; infinite if the config does not say."""


class Generator:
    """Completes instructions, written with the tokenizer's template.

    An engine that takes token ids implements `_answers`; one that takes texts overrides `_complete`.

    Args:
        batch_size: most prompts in a batch; None: as many as suit the device.
        precision: of the forward pass. bf16 is twice as fast as fp32 on a CPU with bf16 instructions.
        sampling: fields of `Sampling`, for the callers that want other answers than greedy ones.
    """

    rows: ClassVar[Most] = ROWS
    """Prompts of a batch, by default."""
    kind: ClassVar[str] = ""
    """What runs the model, if not transformers, by its name in `sdx.planning.rates`."""
    is_remote: ClassVar[bool] = False
    """Whether another machine completes: no model is in memory here."""

    def __init__(self, batch_size: int | None, precision: Precision, **sampling: Any) -> None:
        self.batch_size, self.precision, self.sampling = batch_size, precision, Sampling(**sampling)
        self._source: tuple[Path, TemplateKind] | None = None

    @property
    def engine(self) -> str | None:
        """Name and version of an engine that writes other answers than the Hugging Face model in this process."""
        return None

    @property
    def local(self) -> "Generator":
        """The engine for models that this machine loads, such as a trained one: this one, unless it cannot load any."""
        return self

    def serving(self, model: str) -> "Generator":
        """The engine for another model that the same endpoint serves. Raises InputError if there is no endpoint."""
        raise InputError(f"translator.served_as={model} names a model of generator=server; give that or leave it out")

    def load(self, model_dir: Path, template: TemplateKind) -> None:
        """Chooses the model. It is loaded when the first prompt needs it."""
        self._source = (model_dir, template)

    @property
    def most_rows(self) -> int:
        """Prompts of a batch, however short."""
        return self.rows.on(device().type == "cuda", self.batch_size)

    def batches(self, instructions: Sequence[str], max_new_tokens: int) -> list[slice]:
        """Neighbours to complete together. No model is loaded if only their number counts, as on a CPU."""
        return list(cut([0.0] * len(instructions), math.inf, self.most_rows))

    def batches_of(self, lengths: Sequence[int], limits: Sequence[int]) -> list[slice]:
        """`batches` of prompts and answers with these numbers of tokens."""
        return list(cut([0.0] * len(lengths), math.inf, self.most_rows))

    def complete(
        self,
        instructions: list[str],
        max_new_tokens: int | Sequence[int],
        shared: str = "",
        sampling: Sampling = GREEDY,
        ids: Sequence[str] = (),
    ) -> list[Completion]:
        """Completions of one batch. One without room for its answer in the model's context is empty, of 0 tokens.

        Args:
            max_new_tokens: of each answer.
            shared: beginning that these instructions and those of later calls share at least in part. Its states are
                computed once and kept, see `Prefix`, until a call has another; the answers are the same.
            ids: of each answer, which decide the random numbers of one that is not greedy.

        Raises:
            InputError: a single prompt does not fit in the GPU's memory.
        """
        files, chats = self._files(), self.chats()
        stop = Stop(files.tokenizer.decode, files.stops)
        if not chats:
            stop = replace(stop, string=NEW_TURN, last=_headings(files.tokenizer))
        limits = [max_new_tokens] * len(instructions) if isinstance(max_new_tokens, int) else max_new_tokens
        probes = [self.prompt(f"{shared}{letter}") for letter in "a1"] if shared else []
        prompts = list(map(self.prompt, instructions))
        answers = self._complete(prompts, False, stop, limits, probes, sampling, ids)
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
        files = self._files()
        tokenizer, string = files.tokenizer, "" if "\n" in end else end
        stop = Stop(tokenizer.decode, files.stops | _line_ends(tokenizer), string, cuts=("\n", end))
        probes = [f"{shared}{letter}" for letter in "a1"] if shared else []
        return self._complete(texts, True, stop, max_new_tokens, probes)

    def prompt(self, instruction: str) -> str:
        """An instruction in the model's template."""
        return prompt_text(self._files().tokenizer, instruction)

    def count_tokens(self, texts: list[str]) -> list[int]:
        """Length of each text, in tokens of the model."""
        return [len(ids) for ids in self._files().tokenizer(texts, add_special_tokens=False).input_ids]

    @property
    def context(self) -> float:
        """Most tokens of a prompt and its answer; infinite if the model's config does not say."""
        return self._files().context

    def chats(self) -> bool:
        """Whether the model has a chat template of its own."""
        return INSTRUCTION_TEMPLATE not in self._files().tokenizer.chat_template

    def _complete(
        self,
        texts: list[str],
        special: bool,
        stop: Stop,
        limits: Sequence[int],
        probes: Sequence[str],
        sampling: Sampling = GREEDY,
        ids: Sequence[str] = (),
    ) -> list[Completion]:
        """Completions of rendered prompts.

        Args:
            special: whether the tokenizer adds special tokens, such as BOS, which a template writes itself.
            probes: two texts that have in common what prompts of several calls begin with, or none: up to where the
                words that follow cannot change the tokens.
        """
        tokenizer = self._files().tokenizer

        def tokens(text: str) -> list[int]:
            found: list[int] = tokenizer(text, add_special_tokens=special).input_ids
            return found

        prompts = list(map(tokens, texts))
        fitting = [index for index, prompt in enumerate(prompts) if len(prompt) + limits[index] <= self.context]
        answers: list[list[int]] = [[] for _ in prompts]
        if fitting:
            given, room = [prompts[index] for index in fitting], [limits[index] for index in fitting]
            seeds = [seed_of(ids[index]) for index in fitting] if ids else []
            beginning = common(*map(tokens, probes)) if probes else []
            written = self._answers(given, stop, room, beginning, sampling, seeds)
            for index, answer in zip(fitting, written, strict=True):
                answers[index] = answer
        decode = partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [stop.completion(decode(answer), len(answer), bool(answer) and stop.ended(answer)) for answer in answers]

    def _answers(
        self,
        prompts: list[list[int]],
        stop: Stop,
        limits: Sequence[int],
        beginning: list[int],
        sampling: Sampling,
        seeds: Sequence[int],
    ) -> list[list[int]]:
        """The tokens of each answer, including the one that ends it, of at most `limits` tokens.

        Args:
            prompts: at least one; each fits in the context with its answer.
            beginning: tokens that many prompts begin with, also those of other calls.
        """
        raise NotImplementedError

    def _files(self) -> ModelFiles:
        assert self._source, "load() comes first"
        return _model_files(*self._source)


@lru_cache(maxsize=1)
def _model_files(model_dir: Path, template: TemplateKind) -> ModelFiles:
    from transformers import AutoConfig, GenerationConfig

    tokenizer, config = load_tokenizer(model_dir, template), pretrained(AutoConfig, model_dir)
    try:
        eos = GenerationConfig.from_pretrained(model_dir, trust_remote_code=False).eos_token_id
    except OSError:  # the directory has none, as transformers finds, too
        eos = GenerationConfig.from_model_config(config).eos_token_id
    stops = {*stop_ids(tokenizer), *(eos if isinstance(eos, list) else [eos])} - {None}
    context = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None) or math.inf
    return ModelFiles(tokenizer, frozenset(stops), context)


@lru_cache(maxsize=1)
def _headings(tokenizer: Any) -> frozenset[int]:
    """The tokens that may end a heading of the instruction template."""
    return frozenset(id_ for token, id_ in tokenizer.get_vocab().items() if "#" in token)


@lru_cache(maxsize=1)
def _line_ends(tokenizer: Any) -> frozenset[int]:
    """The tokens with a line feed. Byte-level vocabularies write it Ċ, which is a letter in others."""
    known, decode = tokenizer.get_vocab(), tokenizer.convert_tokens_to_string
    return frozenset(id_ for token, id_ in known.items() if LINE_FEEDS & {*token, token} and "\n" in decode([token]))
