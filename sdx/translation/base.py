"""What every translator offers to the data steps."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Translator(ABC):
    """Translates whole texts between two languages, named by FLORES code, such as `eng_Latn`."""

    name: str
    """Short name, as in `translator=<name>` and in the record of each translated row."""

    @property
    @abstractmethod
    def version(self) -> str:
        """What decides the output besides the text: package and weights. Part of cache keys."""

    @abstractmethod
    def supports(self, source: str, target: str) -> bool:
        """Whether it translates `source` to `target`; nothing heavy is loaded."""

    @abstractmethod
    def translate(self, texts: list[str], source: str, target: str) -> list[str]:
        """Translations of `texts`, in order and in their layout.

        Raises:
            InputError: it does not support the pair.
        """
