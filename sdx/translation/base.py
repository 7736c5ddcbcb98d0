"""The interface of all translators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sdx import InputError
from sdx.config import TemplateKind
from sdx.generation.hf import HFGenerator
from sdx.languages import Language
from sdx.store.step import Step


@dataclass(frozen=True)
class TranslationContext:
    """What a translator may use of the run it works for."""

    backbone: Step
    template: TemplateKind
    generator: HFGenerator
    demonstrations: Callable[[Language, Language], Step | None]
    """The step that publishes sentence pairs of two languages as `demonstrations.jsonl`, or None."""
    run_dir: Path | None
    """Where choices are recorded; None if the run is only planned."""


class Translator(ABC):
    """Translates whole texts between two languages, named by FLORES code, such as `eng_Latn`."""

    name: str
    """As in `translator=<name>` and in the record of each translated row."""
    batch_rows: int = 32
    """Rows of a step that are translated, and written to disk, at once."""
    is_external: bool = True
    """Another model than the backbone under study translates, so it may translate test items."""

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

    @abstractmethod
    def translate(self, texts: list[str], source: str, target: str) -> list[str]:
        """Translations of `texts`, in order and with their layout. The first call loads the model.

        Raises:
            InputError: the pair is not supported.
        """

    def attach(self, context: TranslationContext) -> None:
        """Called once, before anything else."""

    def record_choice(self) -> None:
        """Records in the run directory what was chosen; called when the run is known to work."""

    def needs(self, source: str, target: str) -> Mapping[str, Step]:
        """The steps whose outputs the translator reads for this pair, such as its model; part of cache keys."""
        return {}

    def prepare(self, inputs: Mapping[str, Path]) -> None:
        """Takes the directories of the outputs of `needs`, before the first `translate`."""

    def for_pair(self, source: str, target: str) -> Translator:
        """The translator for this pair: itself, unless it chooses among several."""
        return self
