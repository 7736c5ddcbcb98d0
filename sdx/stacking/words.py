"""Words of a text in two tokenizers (MT-LLM, later recipe: spans aligned by the offsets of characters)."""

import re
from bisect import bisect_right
from collections.abc import Sequence

from sdx.models.segments import Encoded

WORD = re.compile(r"\S+")
Span = tuple[int, int]


def aligned(text: str, one: Encoded, other: Encoded) -> list[tuple[Span, Span]]:
    """For each word that both have tokens of, its tokens in one and in the other: the first and the one after the last.

    A token is of the word that its last character is in: some tokenizers count the space before a word to it. One that
    is all space is of none.

    Args:
        text: English, or another language with spaces between words.
        one, other: encodings of that text alone.
    """
    words = [match.span() for match in WORD.finditer(text)]
    places = _places(words, one), _places(words, other)
    return [(places[0][word], places[1][word]) for word in places[0] if word in places[1]]


def _places(words: Sequence[Span], encoded: Encoded) -> dict[int, Span]:
    """Word -> its tokens."""
    found: dict[int, Span] = {}
    starts = [start for start, _ in words]
    first, _ = encoded.spans[0]
    for number, (start, end) in enumerate(encoded.offsets[0]):
        if end <= start:
            continue
        word = bisect_right(starts, end - 1) - 1
        if word >= 0 and end <= words[word][1]:
            begin, _ = found.get(word, (first + number, 0))
            found[word] = begin, first + number + 1
    return found
