"""Overlap of an answer with its references: ROUGE-L, and F1 and exact match as in SQuAD, for any script.

The usual implementations split at spaces and keep ASCII, so that Thai and Chinese score 0; which tokens are compared
here is in `sdx.tasks.normalisation`. Nothing is stemmed. All values are from 0 to 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sdx.languages import Language
from sdx.tasks.normalisation import Normalisation, answer_tokens, words

UNANSWERED = (Normalisation.squad, Normalisation.mlqa)
"""F1 of an answer without tokens is 0 there even if the reference has none."""


def rouge_l(answer: str, references: Sequence[str], language: Language) -> float:
    """ROUGE-L's F-measure (Lin 2004), precision and recall of equal weight, of the best reference."""
    found = words(answer, language)
    wanted = (words(reference, language) for reference in references)
    return max(_f(_common_subsequence(found, one), found, one) for one in wanted)


def f1(
    answer: str, references: Sequence[str], language: Language, normalisation: Normalisation = Normalisation.unicode
) -> float:
    """F1 of the tokens, regardless of their order, with the best reference."""
    found = answer_tokens(answer, language, normalisation)
    if not found and normalisation in UNANSWERED:
        return 0.0
    return max(_bag_f(found, answer_tokens(reference, language, normalisation)) for reference in references)


def exact_match(
    answer: str, references: Sequence[str], language: Language, normalisation: Normalisation = Normalisation.unicode
) -> bool:
    """Whether the tokens that `f1` compares are those of a reference, in their order."""
    found = answer_tokens(answer, language, normalisation)
    return found in [answer_tokens(reference, language, normalisation) for reference in references]


def _bag_f(found: list[str], wanted: list[str]) -> float:
    return _f((Counter(found) & Counter(wanted)).total(), found, wanted)


def _f(common: int, found: list[str], wanted: list[str]) -> float:
    if not found or not wanted:  # as SQuAD 2.0 has it: both are no answer, or one is wrong
        return float(found == wanted)
    return 2 * common / (len(found) + len(wanted))


def _common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the table at a time in the bits of a number (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for place, token in enumerate(one):
        places[token] = places.get(token, 0) | 1 << place
    whole = (1 << len(one)) - 1
    row = whole
    for token in other:
        matched = row & places.get(token, 0)
        row = ((row + matched) | (row - matched)) & whole
    return len(one) - row.bit_count()
