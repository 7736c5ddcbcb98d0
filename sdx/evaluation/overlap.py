"""Overlap of an answer with its references: ROUGE-L, and F1 and exact match as in SQuAD, for any script.

The usual implementations split at spaces and keep ASCII, so that Thai and Chinese score 0. Here a token is a word
where spaces separate words and a character elsewhere (`Language.spaces`): characters of Chinese, Japanese, Thai and
Khmer are what MKQA's own evaluation compares too. Nothing is stemmed. Texts are compared in Unicode's NFKC form
without case, with all decimal digits as 0 to 9. All values are from 0 to 1.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

import regex

from sdx.languages import ENGLISH, Language

ARTICLES = frozenset(("a", "an", "the"))
WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")
MARK = regex.compile(r"[\p{P}\p{S}]+")


def rouge_l(answer: str, references: Sequence[str], language: Language) -> float:
    """ROUGE-L's F-measure (Lin 2004), precision and recall of equal weight, of the best reference."""
    found = _words(answer, language)
    return max(_f(_common_subsequence(found, wanted), found, wanted) for wanted in _each(references, language))


def f1(answer: str, references: Sequence[str], language: Language) -> float:
    """F1 of the tokens, regardless of their order, with the best reference.

    As in SQuAD's evaluation punctuation is deleted and English loses its articles. MKQA's evaluation deletes the
    articles of twelve more languages, and of other than ASCII's punctuation nothing.
    """
    found = _answer(answer, language)
    return max(_bag_f(found, _answer(reference, language)) for reference in references)


def exact_match(answer: str, references: Sequence[str], language: Language) -> bool:
    """Whether the tokens that `f1` compares are those of a reference, in their order."""
    return _answer(answer, language) in [_answer(reference, language) for reference in references]


def _normal(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in folded)


def _words(text: str, language: Language) -> list[str]:
    words = WORD.findall(_normal(text))
    return words if language.spaces else list("".join(words))


def _each(references: Sequence[str], language: Language) -> list[list[str]]:
    return [_words(reference, language) for reference in references]


def _answer(text: str, language: Language) -> list[str]:
    words = MARK.sub("", _normal(text)).split()
    if language.flores == ENGLISH:
        words = [word for word in words if word not in ARTICLES]
    return words if language.spaces else list("".join(words))


def _bag_f(found: list[str], wanted: list[str]) -> float:
    return _f((Counter(found) & Counter(wanted)).total(), found, wanted)


def _f(common: int, found: list[str], wanted: list[str]) -> float:
    if not found or not wanted:  # as SQuAD has it: both are no answer, or one is wrong
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
