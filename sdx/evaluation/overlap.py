"""Overlap of an answer with its references: ROUGE-L, and F1 and exact match as in SQuAD, for any script.

The usual implementations split at spaces and keep ASCII, so Thai and Chinese score 0; `sdx.tasks.normalisation` makes
the tokens that are compared here. Nothing is stemmed. All values are from 0 to 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sdx.languages import Language
from sdx.tasks.normalisation import Normalisation, answer_tokens, words


def rouge_l(answer: str, references: Sequence[str], language: Language) -> float:
    """ROUGE-L's F-measure (Lin 2004), precision and recall of equal weight, of the best reference."""
    tokens = words(answer, language)
    wanted = (words(reference, language) for reference in references)
    return max(_f(common_subsequence(tokens, reference), tokens, reference) for reference in wanted)


def f1(
    answer: str, references: Sequence[str], language: Language, normalisation: Normalisation = Normalisation.unicode
) -> float:
    """F1 of the tokens, regardless of their order, with the best reference."""
    tokens = answer_tokens(answer, language, normalisation)
    if not tokens and normalisation in (Normalisation.squad, Normalisation.mlqa):
        return 0.0  # even if the reference has no tokens
    wanted = (answer_tokens(reference, language, normalisation) for reference in references)
    return max(_f((Counter(tokens) & Counter(reference)).total(), tokens, reference) for reference in wanted)


def exact_match(
    answer: str, references: Sequence[str], language: Language, normalisation: Normalisation = Normalisation.unicode
) -> bool:
    """Whether the tokens that `f1` compares are those of a reference, in their order."""
    tokens = answer_tokens(answer, language, normalisation)
    return tokens in [answer_tokens(reference, language, normalisation) for reference in references]


def _f(common: int, tokens: list[str], wanted: list[str]) -> float:
    if not tokens or not wanted:  # as in SQuAD 2.0: 1 if both are empty, else 0
        return float(tokens == wanted)
    return 2 * common / (len(tokens) + len(wanted))


def common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the table at a time in the bits of a number (Hyyrö 2004)."""
    positions: dict[str, int] = {}
    for position, token in enumerate(one):
        positions[token] = positions.get(token, 0) | 1 << position
    whole = (1 << len(one)) - 1
    row = whole
    for token in other:
        matched = row & positions.get(token, 0)
        row = ((row + matched) | (row - matched)) & whole
    return len(one) - row.bit_count()
