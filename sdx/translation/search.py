"""What a beam search is asked for, whichever library does it."""

from dataclasses import dataclass

ROOM_FACTOR, ROOM_TOKENS = 2, 32
"""A translation may have twice the tokens of its source plus 32, rounded up to a power of two. Ours: the model may
loop, and sentences with the same limit can share a batch without changing each other."""


@dataclass(frozen=True)
class Search:
    """Beam search for the translations of one pair of languages.

    Args:
        beams: width; 1 is greedy.
        prefix: the token that every translation begins with, if any.
        most_tokens: the longest translation that the decoder has positions for; None if they do not end.
    """

    beams: int
    prefix: int | None
    most_tokens: int | None = None

    def room(self, tokens: int) -> int:
        """The most tokens that the translation of a source of `tokens` may have."""
        wanted = 1 << (ROOM_FACTOR * tokens + ROOM_TOKENS - 1).bit_length()
        return min(wanted, self.most_tokens or wanted)
