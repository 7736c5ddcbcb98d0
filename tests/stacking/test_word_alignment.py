"""Words in two tokenizers, aligned by the characters of their tokens."""

from itertools import pairwise
from pathlib import Path

import pytest

from sdx.languages import language
from sdx.stacking.alignment_data import aligned_words
from sdx.stacking.encoder_languages import encoder_tokenizer
from sdx.stacking.sequences import Encoded, llm_tokenizer
from tests.kit.tiny import tiny_tokenizer


def encoded(*offsets: tuple[int, int], first: int = 0) -> Encoded:
    """A text with these tokens, after `first` others."""
    return Encoded([0] * (first + len(offsets)), [(first, first + len(offsets))], [list(offsets)])


WHOLE = encoded((0, 2), (3, 5), (6, 9))
"""A token for each word of "ab cd. efg", which a space does not belong to."""


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        # A space belongs to the token behind it, as in byte-level BPE and SentencePiece.
        (encoded((0, 2), (2, 5), (5, 9)), [(0, 1), (1, 2), (2, 3)]),
        (encoded((0, 1), (1, 2), (2, 4), (4, 5), (5, 9)), [(0, 2), (2, 4), (4, 5)]),
        (encoded((0, 2), (2, 5), (5, 9), first=2), [(2, 3), (3, 4), (4, 5)]),
        # A space is a token of its own, and of no word.
        (encoded((0, 2), (2, 3), (3, 5), (5, 6), (6, 9)), [(0, 1), (2, 3), (4, 5)]),
        # Special tokens and bytes of a character that was told before have no characters.
        (encoded((0, 0), (0, 2), (3, 5), (5, 5), (5, 9)), [(1, 2), (2, 3), (4, 5)]),
        # A token over two words is of the last one, and the first has no token.
        (encoded((0, 5), (5, 9)), [None, (0, 1), (1, 2)]),
        (encoded((0, 1), (1, 4), (4, 5), (5, 9)), [(0, 1), (1, 3), (3, 4)]),
        # What was cut has no tokens.
        (encoded((0, 2), (2, 4)), [(0, 1), (1, 2), None]),
        (encoded(), [None, None, None]),
    ],
)
def test_tokens_of_words(other: Encoded, expected: list[tuple[int, int] | None]):
    text = "ab cd efg"
    pairs = [((n, n + 1), span) for n, span in enumerate(expected) if span]
    assert aligned_words(text, WHOLE, other) == pairs
    assert aligned_words(text, other, WHOLE) == [(theirs, ours) for ours, theirs in pairs]


def test_punctuation_is_of_its_word():
    text = "ab, (cd)."
    apart = encoded((0, 2), (2, 3), (4, 5), (5, 7), (7, 9))
    assert aligned_words(text, apart, encoded((0, 3), (3, 9))) == [((0, 2), (0, 1)), ((2, 5), (1, 2))]


@pytest.mark.parametrize("limit", [64, 20])
@pytest.mark.parametrize("text", ["The quick  brown fox, it is.", ' Plants\ntake in "gas" — naïve ', "x"])
def test_real_tokenizers(encoder_dir: Path, text: str, limit: int):
    """Single characters with `▁` for a space, against a byte-level BPE."""
    one, two = encoder_tokenizer(encoder_dir, "", language("en")), llm_tokenizer(tiny_tokenizer(chat=False))
    [ours], [theirs] = (read.encode([(text,)], limit) for read in (one, two))
    words = aligned_words(text, ours, theirs)
    assert words
    if limit == 64:
        assert len(words) == len(text.split())
    for ((a, b), (c, d)), word in zip(words, text.split(), strict=False):
        letters = "".join(one.tokenizer.convert_ids_to_tokens(ours.ids[a:b])).strip("▁")
        assert word.startswith(letters.replace("<unk>", "—"))
        assert word.startswith(two.tokenizer.decode(theirs.ids[c:d]).strip().rstrip("\ufffd"))
    for side in (0, 1):
        places = [pair[side] for pair in words]
        assert all(end <= start for (_, end), (start, _) in pairwise(places))
