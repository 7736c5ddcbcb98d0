"""What every translator offers to the data steps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sdx.config import Precision, TemplateKind
from sdx.generation.hf import HFGenerator
from sdx.languages import Language, language
from sdx.models.batches import Arithmetic
from sdx.store.estimate import Plan, Work
from sdx.store.step import Step
from sdx.text.lengths import SENTENCE_TOKENS


@dataclass(frozen=True)
class Surroundings:
    """What of a run a translator may build on."""

    backbone: Step
    template: TemplateKind
    generator: HFGenerator
    demonstrations: Callable[[Language, Language], Step | None]
    """The step that publishes sentence pairs of two languages as `demonstrations.jsonl`; none where there is none."""
    run_dir: Path | None
    """Where a choice is recorded; nowhere when a run is only planned."""


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
    """Short name, as in `translator=<name>` and in the record of each translated row."""
    batch_rows: int = 32
    """Rows of a step that are translated, and put on disk, at once."""
    is_external: bool = True
    """Another model than the backbone under study does the work, so that it may translate test items."""

    @property
    @abstractmethod
    def version(self) -> str:
        """What decides the output besides the text and `needs`: package, weights, options. Part of cache keys."""

    @abstractmethod
    def supports(self, source: str, target: str) -> bool:
        """Whether it translates `source` to `target`; nothing heavy is loaded and no network is asked."""

    def why_unsupported(self, source: str, target: str) -> str | None:
        """What is in the way of the pair, and the fix, after "translator=<name> "; none where it is supported."""
        if self.supports(source, target):
            return None
        names = " to ".join(f"{entry.name} ({entry.code})" for entry in (language(source), language(target)))
        return f"cannot translate {names}; give another translator or lang"

    @abstractmethod
    def translate(self, texts: list[str], source: str, target: str) -> list[str]:
        """Translations of `texts`, in order and in their layout. What is heavy is loaded by the first call.

        Raises:
            InputError: it does not support the pair.
        """

    def place(self, surroundings: Surroundings) -> None:
        """Tells it the run it works in, once, before anything else is asked of it."""

    def settle(self) -> None:
        """The run can work, and will: what was chosen for it is recorded in its run directory."""

    def needs(self, source: str, target: str) -> Mapping[str, Step]:
        """The steps whose outputs it reads to translate the pair, such as its model; they count for cache keys."""
        return {}

    def work(self, plan: Plan, texts: Texts, needs: Mapping[str, Step]) -> Work:
        """What translating asks of the hardware.

        Args:
            needs: what `needs` gave.
        """
        return Work()

    def prepare(self, inputs: Mapping[str, Path]) -> None:
        """Says where the outputs of `needs` lie, before the first `translate`."""

    def for_pair(self, source: str, target: str) -> Translator:
        """The engine that translates this pair: itself, but for translators that choose one."""
        return self


def arithmetic_of(plan: Plan, name: str, here: Precision) -> Arithmetic:
    """In what a run's engine of this name computes.

    Args:
        here: its precision on this machine.
    """
    given = plan.on_gpus.mt if plan.on_gpus.mt and plan.on_gpus.mt.name == name else plan.on_gpus.translator
    return Arithmetic(here, getattr(given, "precision", Precision.bf16))
