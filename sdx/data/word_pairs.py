"""Word pairs from a parallel corpus: pairs of labels, and words that always occur together. Ours.

Precision counts more than recall here: a wrong word in an instruction teaches something wrong.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import regex

from sdx.data.dictionary_formats import fold, usable
from sdx.languages import Language

MAX_WORDS = 30
"""Of a text that are associated: the cost of a pair of texts is the product of their lengths."""
MIN_JOINT = 3
"""Pairs of texts that have both words."""
MIN_DICE = 0.6
"""Dice's coefficient of two words: the share of their occurrences that are in the same pair of texts."""
MARGIN = 0.1
"""Difference to the coefficient of either word with any other word."""
MIN_LABEL = 4
"""Letters of a label: `Sun` is as likely a day of the week."""

_WORD = regex.compile(r"\p{L}[\p{L}\p{M}\u200c\u200d]*(?:['’‐·׳״-][\p{L}\p{M}\u200c\u200d]+)*")
_END = regex.compile(r"[\s:.…!?。।؟]+$")
_CAPITAL_NOUNS = ("de", "lb")


def word_pairs(rows: Sequence[Mapping[str, Any]], source: Language, target: Language) -> Iterator[tuple[str, str]]:
    """(word of L, translation), the more certain ones of a word first.

    First come pairs of labels, `Search` and `Pesquisar`, by frequency. Then come words of running text that mostly
    occur together, each clearly the other's best match; only if spaces separate words, so Thai has labels alone.

    Args:
        rows: with `source` and `target`, texts that say the same.
    """
    texts = sorted(((row["source"], row["target"]) for row in rows), key=lambda pair: (len(pair[0] + pair[1]), pair))
    labels = Counter(usable(((_END.sub("", left), _END.sub("", right)) for left, right in texts), target))
    form = _forms([right for _, right in texts], target)
    for (word, translation), _ in labels.most_common():
        if len(word) >= MIN_LABEL and len(word.split()) <= 2:
            yield word, form.get(fold(translation, target.dotted_i), _uncapitalised(translation, target))
    if source.spaces and target.spaces:
        for word, translation in usable(_associated(texts, target), target):
            yield word, form.get(translation, translation)


def _associated(texts: Sequence[tuple[str, str]], target: Language) -> Iterator[tuple[str, str]]:
    """Folded words that are each other's best match by Dice's coefficient."""
    left: Counter[str] = Counter()
    right: Counter[str] = Counter()
    joint: Counter[tuple[str, str]] = Counter()
    for source, translated in texts:
        words = sorted({fold(word) for word in _WORD.findall(source)[:MAX_WORDS]})
        translations = sorted({fold(word, target.dotted_i) for word in _WORD.findall(translated)[:MAX_WORDS]})
        left.update(words)
        right.update(translations)
        joint.update(product(words, translations))
    translations_of: dict[str, list[tuple[float, str]]] = {}
    words_of: dict[str, list[tuple[float, str]]] = {}
    for (word, translation), count in joint.items():
        dice = 2 * count / (left[word] + right[translation])
        if count >= MIN_JOINT and dice >= MIN_DICE - MARGIN:
            translations_of.setdefault(word, []).append((dice, translation))
            words_of.setdefault(translation, []).append((dice, word))
    for word, candidates in translations_of.items():
        if (best := _clearly_best(candidates)) and _clearly_best(words_of[best]) == word:
            yield word, best


def _clearly_best(candidates: list[tuple[float, str]]) -> str | None:
    """The best candidate if it is well ahead: words of one set phrase all occur together equally often."""
    (dice, word), *others = sorted(candidates, reverse=True)
    return word if dice >= MIN_DICE and all(other <= dice - MARGIN for other, _ in others) else None


def _forms(texts: Sequence[str], target: Language) -> dict[str, str]:
    """Folded word -> its most frequent spelling after the first word of a text."""
    seen: dict[str, Counter[str]] = {}
    for text in texts:
        for word in _WORD.findall(text)[1:]:
            seen.setdefault(fold(word, target.dotted_i), Counter())[word] += 1
    return {word: forms.most_common(1)[0][0] for word, forms in seen.items()}


def _uncapitalised(label: str, target: Language) -> str:
    """`Pesquisar` -> `pesquisar`: labels have capitals that words do not have. German nouns and all capitals stay."""
    if target.code in _CAPITAL_NOUNS or not label[1:].islower():
        return label
    first = {"I": "ı", "İ": "i"}.get(label[0]) if target.dotted_i else None
    return (first or label[0].lower()) + label[1:]
