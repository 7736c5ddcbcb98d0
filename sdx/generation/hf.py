"""Completions by a Hugging Face model in this process."""

from collections.abc import Sequence
from typing import Any

from sdx.generation.base import Generator, Stop
from sdx.generation.decode import decode
from sdx.generation.prefix import Prefix, reusable
from sdx.generation.sampling import GREEDY, Chooser, Sampling
from sdx.models.backbone import loaded
from sdx.models.batches import cut
from sdx.models.template import prompt_ids
from sdx.process.ranks import device


class _Ready:
    """A loaded model with its tokenizer, and the states of the last beginning."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.prefix: Prefix | None = None

    def prefix_of(self, beginning: list[int]) -> Prefix | None:
        """The beginning's states, kept from the last call if it was the same; None if the model cannot reuse any."""
        if self.prefix is None or self.prefix.ids != beginning:
            self.prefix = None  # frees its memory first
            if beginning and reusable(self.model):
                self.prefix = Prefix(self.model, beginning)
        return self.prefix


class HFGenerator(Generator):
    """A model of transformers, with batches that fit in the GPU's memory."""

    def batches(self, instructions: Sequence[str], max_new_tokens: int) -> list[slice]:
        if device().type == "cpu":
            return super().batches(instructions, max_new_tokens)
        tokenizer = self._files().tokenizer
        lengths = [len(prompt_ids(tokenizer, instruction)) for instruction in instructions]
        return self.batches_of(lengths, [max_new_tokens] * len(lengths))

    def batches_of(self, lengths: Sequence[int], limits: Sequence[int]) -> list[slice]:
        from sdx.models.fit import room

        read = [int(min(length, self.context)) for length in lengths]  # longer prompts are not completed
        return list(cut(self._sizes(read, limits), room(self._ready().model), self.most_rows))

    def _answers(
        self,
        prompts: list[list[int]],
        stop: Stop,
        limits: Sequence[int],
        beginning: list[int],
        sampling: Sampling,
        seeds: Sequence[int],
    ) -> list[list[int]]:
        """Raises InputError if a single prompt does not fit in the GPU's memory."""
        from sdx.models.fit import pieces

        ready = self._ready()
        answers: list[list[int]] = []
        prefix, pad = ready.prefix_of(beginning), ready.tokenizer.pad_token_id

        def decoded(some: slice) -> list[list[int]]:
            choose = None if sampling == GREEDY else Chooser(sampling, seeds[some], prompts[some], limits[some])
            return decode(ready.model, prompts[some], stop.ended, pad, limits[some], prefix, choose)

        for _, completed in pieces(
            ready.model,
            self._sizes(list(map(len, prompts)), limits),
            [slice(0, len(prompts))],
            decoded,
            lambda row: f"a prompt of {len(prompts[row])} tokens with an answer of up to {limits[row]}",
            "lower scale.max_new_tokens, or translator.shots of translator=self, or take a GPU with more memory",
        ):
            answers += completed
        return answers

    def _sizes(self, lengths: Sequence[int], limits: Sequence[int]) -> list[float]:
        """Bytes of prompts and answers with these numbers of tokens."""
        from sdx.models.fit import row_bytes

        return list(map(row_bytes(self._ready().model).completed, lengths, limits))

    def _ready(self) -> _Ready:
        tokenizer = self._files().tokenizer  # before the model, which takes long to load: it may be refused
        assert self._source
        model_dir, template = self._source
        resident = loaded(model_dir, self.precision)
        return resident.cached(template, lambda: _Ready(resident.model, tokenizer))
