"""The interface of all translators."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import regex

from sdx import InputError
from sdx.config import Precision, TemplateKind
from sdx.generation.base import Generator
from sdx.languages import Language
from sdx.models.batches import Arithmetic
from sdx.process.threads import usable_cores
from sdx.store.estimate import Plan, Work
from sdx.store.step import Step
from sdx.text.lengths import SENTENCE_TOKENS
from sdx.text.segment import translate_texts
from sdx.translation.memory import Memory


@dataclass(frozen=True)
class TranslationContext:
    """What a translator may use of the run it works for."""

    backbone: Step
    template: TemplateKind
    generator: Generator
    demonstrations: Callable[[Language, Language], Step | None]
    """The step that publishes sentence pairs of two languages as `demonstrations.jsonl`, or None."""
    run_dir: Path | None
    """Where choices are recorded; None if the run is only planned."""


@dataclass(frozen=True)
class Texts:
    """What is to be translated, for an estimate.

    Args:
        rows: texts.
        english: mean tokens of a text, as if it were in English: what engines on the CPU are measured in.
        target: mean tokens of its translation, by the backbone's tokenizer.
    """

    rows: float
    english: float
    target: float

    @property
    def sentences(self) -> float:
        return self.rows * math.ceil(self.english / SENTENCE_TOKENS)

    def each(self, tokens: float) -> float:
        """Tokens of a sentence, from those of a text."""
        return tokens * self.rows / max(self.sentences, 1.0)


class Translator(ABC):
    """Translates whole texts between two languages, named by FLORES code, such as `eng_Latn`."""

    name: str
    """As in `translator=<name>` and in the record of each translated row."""
    batch_rows: int = 32
    """Rows of a step that are translated, and written to disk, at once."""
    is_external: bool = True
    """Another model than the backbone under study translates, so it may translate test items."""
    is_remembered: bool = True
    """Whether a sentence is translated once for all runs of a cache. False if those before it may change the output."""
    core_tokens_per_s: float = math.inf
    """English tokens a second and CPU core, of an engine without a model in `work`. Measured."""

    @property
    @abstractmethod
    def version(self) -> str:
        """What decides the output besides the text and `needs`: package, weights, options. Part of cache keys."""

    @abstractmethod
    def why_unsupported(self, source: str, target: str) -> str | None:
        """Why the pair cannot be translated, and the fix, after "translator=<name> "; None if it can. Loads nothing."""

    def supports(self, source: str, target: str) -> bool:
        return self.why_unsupported(source, target) is None

    def check(self, source: str, target: str) -> None:
        """Raises InputError if the pair is not supported."""
        if reason := self.why_unsupported(source, target):
            raise InputError(f"translator={self.name} {reason}")

    def translate(self, texts: list[str], source: str, target: str, memory: Memory | None = None) -> list[str]:
        """Translations of `texts`, in order, in their layout. Checks the pair.

        The first sentence that is not in the memory loads the model.
        """
        self.check(source, target)

        def engine(sentences: list[str]) -> list[str]:
            return self.translate_sentences(sentences, source, target)

        return translate_texts(texts, memory.through(engine) if memory else engine, self.keep(source, target))

    @abstractmethod
    def translate_sentences(self, sentences: list[str], source: str, target: str) -> list[str]:
        """Translations of single sentences, in order, without regard to layout and protected spans; an empty one
        keeps the source."""

    def keep(self, source: str, target: str) -> regex.Pattern | None:
        """Matches what the engine cannot read and `translate` copies."""
        return None

    def attach(self, context: TranslationContext) -> None:
        """Called once, before anything else."""

    def record_choice(self) -> None:
        """Records in the run directory what was chosen; called when the run is known to work."""

    def needs(self, source: str, target: str) -> Mapping[str, Step]:
        """The steps whose outputs the translator reads for this pair, such as its model; part of cache keys."""
        return {}

    def work(self, plan: Plan, texts: Texts, needs: Mapping[str, Step]) -> Work:
        """What translating asks of the hardware. `needs` holds the steps that the method `needs` gave."""
        return Work(seconds=texts.rows * texts.english / (self.core_tokens_per_s * usable_cores()))

    def prepare(self, inputs: Mapping[str, Path]) -> None:
        """Takes the directories of the outputs of `needs`, before the first `translate`."""

    def for_pair(self, source: str, target: str) -> Translator:
        """The translator for this pair: itself, unless it chooses among several."""
        return self


def arithmetic_of(plan: Plan, name: str, here: Precision) -> Arithmetic:
    """The precision of a run's engine of this name on each device; `here` is that of this machine."""
    given = plan.on_gpus.mt if plan.on_gpus.mt and plan.on_gpus.mt.name == name else plan.on_gpus.translator
    return Arithmetic(here, getattr(given, "precision", Precision.bf16))
