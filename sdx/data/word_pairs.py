"""Word pairs from a parallel corpus: what stands there as a pair of labels, and words that always come together.

Precision counts more than recall here: a wrong word in an instruction teaches something wrong. All of it is ours.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import regex

from sdx.data.dictionary_formats import fold, usable
from sdx.languages import Language

MAX_WORDS = 30
"""Of a text that association looks at: the cost of a pair is the product of its lengths."""
MIN_TOGETHER = 3
MIN_DICE = 0.6
"""The share of their occurrences that two words have together (Dice's coefficient), at the least."""
MARGIN = 0.1
"""By which it exceeds that of either word with any other."""
MIN_LABEL = 4
"""Letters of a label: `Sun` is as likely a day of the week."""

_WORD = regex.compile(r"\p{L}[\p{L}\p{M}\u200c\u200d]*(?:['’‐·׳״-][\p{L}\p{M}\u200c\u200d]+)*")
_END = regex.compile(r"[\s:.…!?。।؟]+$")
_CAPITAL_NOUNS = ("de", "lb")


def word_pairs(rows: Sequence[Mapping[str, Any]], source: Language, target: Language) -> Iterator[tuple[str, str]]:
    """(word of L, translation), the more certain ones of a word first.

    First come pairs of labels, `Search` and `Pesquisar`, the more frequent ones in front. Then words of running text
    that have most of their occurrences together, each clearly the other's best; only where spaces separate words, so
    Thai, Chinese and the like have labels alone.

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
    """Folded words that are each other's winner by Dice's coefficient."""
    left: Counter[str] = Counter()
    right: Counter[str] = Counter()
    together: Counter[tuple[str, str]] = Counter()
    for source, translated in texts:
        words = sorted({fold(word) for word in _WORD.findall(source)[:MAX_WORDS]})
        translations = sorted({fold(word, target.dotted_i) for word in _WORD.findall(translated)[:MAX_WORDS]})
        left.update(words)
        right.update(translations)
        together.update(product(words, translations))
    rivals: dict[tuple[str, bool], list[tuple[float, str]]] = {}
    for (word, translation), count in together.items():
        dice = 2 * count / (left[word] + right[translation])
        if count >= MIN_TOGETHER and dice >= MIN_DICE - MARGIN:
            rivals.setdefault((word, False), []).append((dice, translation))
            rivals.setdefault((translation, True), []).append((dice, word))
    best = {key: winner for key, found in rivals.items() if (winner := _winner(found))}
    for (word, is_translation), translation in best.items():
        if not is_translation and best.get((translation, True)) == word:
            yield word, translation


def _winner(found: list[tuple[float, str]]) -> str | None:
    """The best, if it is well ahead: words of one set phrase are all together equally often."""
    (dice, word), *others = sorted(found, reverse=True)
    return word if dice >= MIN_DICE and all(other <= dice - MARGIN for other, _ in others[:1]) else None


def _forms(texts: Sequence[str], target: Language) -> dict[str, str]:
    """Folded word -> how it is mostly written after the first word of a text."""
    seen: dict[str, Counter[str]] = {}
    for text in texts:
        for word in _WORD.findall(text)[1:]:
            seen.setdefault(fold(word, target.dotted_i), Counter())[word] += 1
    return {word: forms.most_common(1)[0][0] for word, forms in seen.items()}


def _uncapitalised(label: str, target: Language) -> str:
    """`Pesquisar` -> `pesquisar`: labels have capitals that words do not. German nouns, and all capitals, keep them."""
    if target.code in _CAPITAL_NOUNS or not label[1:].islower():
        return label
    first = {"I": "ı", "İ": "i"}.get(label[0]) if target.dotted_i else None
    return (first or label[0].lower()) + label[1:]
