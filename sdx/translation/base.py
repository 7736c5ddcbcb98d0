"""What every translator offers to the data steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sdx.config import TemplateKind
from sdx.generation.hf import HFGenerator
from sdx.languages import Language, language
from sdx.store.step import Step


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

    def prepare(self, inputs: Mapping[str, Path]) -> None:
        """Says where the outputs of `needs` lie, before the first `translate`."""

    def for_pair(self, source: str, target: str) -> Translator:
        """The engine that translates this pair: itself, but for translators that choose one."""
        return self
