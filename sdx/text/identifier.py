"""py3langid's identifier, which can walk through many texts at once: three times faster, with the same scores."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from py3langid.langid import MODEL_FILE, LanguageIdentifier

LONGEST_BYTES = 8192
"""Longer texts are walked through one by one: all texts of a walk take as much memory as the longest."""


class Identifier(LanguageIdentifier):  # type: ignore[misc]
    """Scores as py3langid does; `look_ahead` says which texts come next."""

    __slots__ = ("_next_row", "_seen", "_visits")

    def look_ahead(self, texts: Sequence[str]) -> None:
        """Walks through these texts, byte by byte, in all of them at the same time."""
        if not hasattr(self, "_seen"):
            states = np.asarray(self.tk_nextmove)  # the state after a byte, in a row of 256 for each kind of state
            self._next_row = np.asarray(self._rowbase, np.int32)[states]
            self._seen = np.asarray(self.tk_output, np.int32)[states]
        given = sorted({one for one in map(self._encode, texts) if len(one) <= LONGEST_BYTES}, key=len, reverse=True)
        lengths = np.array([len(one) for one in given])
        moves = np.zeros((len(given), max(lengths, default=0)), np.int32)
        for number, one in enumerate(given):
            moves[number, : len(one)] = np.frombuffer(one, np.uint8)
        moves = np.ascontiguousarray(moves.T)
        row = np.full(len(given), self._rowbase[0], np.int32)
        for position, move in enumerate(moves):
            move = move[: np.searchsorted(-lengths, -position)]  # of texts that go on
            move += row[: len(move)]
            row = self._next_row.take(move)
        walked = zip(given, moves.T, strict=True)
        features = ((one, self._seen.take(moves_of[: len(one)])) for one, moves_of in walked)
        self._visits = {one: Counter(of[of >= 0].tolist()) for one, of in features}

    def _raw_score(self, text: bytes) -> Any:
        visits = getattr(self, "_visits", {}).get(text)
        return self._sparse_score(visits, self.nb_ptc) if visits else super()._raw_score(text)


@cache
def identifier() -> Identifier:
    made: Identifier = Identifier.from_model_file(MODEL_FILE)
    return made
