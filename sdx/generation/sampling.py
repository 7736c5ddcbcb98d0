"""How the tokens of an answer are chosen, equal in meaning for all engines: greedily, or drawn at random.

A repetition penalty (arXiv 1909.05858) divides the positive logits of all tokens of prompt and answer, and multiplies
the negative ones. Logits are then divided by the temperature, the `top_k` largest kept, and of those the smallest set
whose probabilities reach `top_p` together (arXiv 1904.09751), at least one. This is the order of vLLM.

The random numbers of a row come from its id, so an answer depends neither on the other rows of a batch nor on who else
works.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from sdx import InputError

NUMBERED = "::answer-"
"""Between the id of a question and the number of its second answer and later ones; no id of a question has it."""


@dataclass(frozen=True)
class Sampling:
    """The fields are those of `sdx.config.GeneratorConfig`."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    answers: int = 1

    def __post_init__(self) -> None:
        """Raises InputError for values without an effect."""
        if self.temperature == 0:
            for name, neutral in (("answers", 1), ("top_p", 1.0), ("top_k", 0)):
                if (value := getattr(self, name)) != neutral:
                    raise InputError(
                        f"generator.{name}={value} has no effect on greedy answers, all of which are equal; give "
                        f"generator.temperature above 0, as 0.7, or generator.{name}={neutral:g}"
                    )

    @property
    def options(self) -> dict[str, float]:
        """For an engine that samples by itself, which gives one answer at a time."""
        return {name: value for name, value in vars(self).items() if name != "answers"}

    @property
    def identity(self) -> Any:
        """Part of a step's key."""
        return "greedy" if self == GREEDY else vars(self)

    def ids(self, question: str) -> list[str]:
        """The ids of all answers to a question, which begin with its own.

        Raises:
            InputError: the question's id looks like that of an answer.
        """
        if self.answers > 1 and NUMBERED in question:
            raise InputError(f"the id {question} has {NUMBERED!r}, which numbers answers; rename it, or set answers=1")
        return [question, *(f"{question}{NUMBERED}{number}" for number in range(2, self.answers + 1))]


GREEDY = Sampling()


def seed_of(id_: str) -> int:
    """Of the random numbers of a row: 31 bits, which every engine takes."""
    return int.from_bytes(sha256(id_.encode()).digest()[:4], "big") >> 1


@dataclass
class Chooser:
    """Chooses the next token of each row of a batch.

    Args:
        seeds: of each prompt, if the temperature is above 0.
        limits: most tokens of each answer.
    """

    sampling: Sampling
    seeds: Sequence[int]
    prompts: Sequence[Sequence[int]]
    limits: Sequence[int]
    _drawn: Any = field(default=None, init=False)
    _seen: Any = field(default=None, init=False)

    def __call__(self, logits: Any, rows: list[int], step: int) -> Any:
        """The tokens, [batch].

        Args:
            logits: [batch, vocab].
            rows: prompt of each row.
            step: number of tokens chosen before.
        """
        import torch

        logits = logits.float()
        if self.sampling.repetition_penalty != 1:
            logits = self._penalised(logits, rows)
        if self.sampling.temperature == 0:
            chosen = logits.argmax(-1)
        else:
            if self._drawn is None:  # [prompts, most tokens]
                self._drawn = torch.zeros(len(self.prompts), max(self.limits), dtype=torch.float64)
                for row, (seed, limit) in enumerate(zip(self.seeds, self.limits, strict=True)):
                    numbers = torch.Generator().manual_seed(seed)
                    self._drawn[row, :limit] = torch.rand(limit, generator=numbers, dtype=torch.float64)
            chosen = self._sampled(logits, self._drawn[rows, step].to(logits.device))
        if self._seen is not None:
            self._seen[rows, chosen] = True
        return chosen

    def _penalised(self, logits: Any, rows: list[int]) -> Any:
        import torch

        if self._seen is None:
            self._seen = torch.zeros(len(self.prompts), logits.shape[-1], dtype=torch.bool, device=logits.device)
            for row, prompt in enumerate(self.prompts):
                self._seen[row, list(prompt)] = True
        factor = self.sampling.repetition_penalty
        return torch.where(self._seen[rows], torch.where(logits > 0, logits / factor, logits * factor), logits)

    def _sampled(self, logits: Any, drawn: Any) -> Any:
        """The tokens at these numbers between 0 and 1 of the cumulative probability."""
        import torch

        top_k, top_p, order = self.sampling.top_k, self.sampling.top_p, None
        logits = logits / self.sampling.temperature
        if top_k or top_p < 1:
            logits, order = logits.topk(min(top_k or logits.shape[-1], logits.shape[-1]), -1)
        shares = logits.double().softmax(-1)
        if top_p < 1:
            shares = shares.where(shares.cumsum(-1) - shares < top_p, 0)
        cumulative = shares.cumsum(-1)
        place = torch.searchsorted(cumulative, drawn[:, None] * cumulative[:, -1:], right=True)
        place = place.clamp(max=cumulative.shape[-1] - 1)  # a product near 1 may be rounded up
        return (place if order is None else order.gather(-1, place))[:, 0]
