"""What can be told from a text alone: the language that it is in, and whether it goes round in a loop."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

from sdx.languages import Language, codes, languages

if TYPE_CHECKING:
    from regex import Pattern

CONFIDENCE = 0.6
"""The share of probability from which a language counts as identified. Ours; see `language_of`."""
DECIDABLE_LETTERS = 30
"""From here on a text in one language can nearly always be identified; see `language_of`."""
DOUBT = 0.1
"""A language less probable than this is ruled out where another one is identified. Ours; see `in_language`."""
UNIDENTIFIED_DOUBT = 0.15
"""The same in a long text where no language is identified."""
HAN_DOUBT = 0.004
"""The same in a short text in Chinese characters alone."""
HAN_RIVAL = 0.02
"""There the expected language is identified only if the others are less probable than this."""
HAN = ("ja", "yue", "zh")
"""py3langid's codes of the languages that are written in Chinese characters."""
CASED = {"Latn": "Latin", "Cyrl": "Cyrillic", "Grek": "Greek", "Armn": "Armenian"}
"""Scripts that have capitals, by ISO 15924."""
PARTICLES = "al bin da das de del della den der di do dos du e el ibn la le ter van von y"
"""Words inside of names."""
GRAM_CHARS = 10
LOOP_CHARS = 80
DISTINCT_SHARE = 0.5


def language_of(text: str, expected: Language | None = None) -> str | None:
    """The code of a text's language; none where that cannot be told. Code, URLs and addresses do not count.

    py3langid ranks the 118 languages that it shares with our table. Two measures make it fit for short
    answers. Only languages of Belebele, and the expected one, may win: else one in eight Portuguese or
    Spanish texts of 20 to 30 letters is read as Galician, Extremaduran or Latin. And the winner needs a
    probability of 0.6 (the softmax of the log-likelihoods divided by the square root of the length in bytes,
    py3langid's calibration).

    Measured on the questions and choices of the human-translated MMLU, Portuguese expected: of texts with 1
    to 9 letters 4 % are decided, with 10 to 19 27 %, 20 to 29 70 %, 30 or more 98 %; 99.6 % of the decided
    ones are right; 0.2 % of Spanish ones and no English, French or Italian one are taken for Portuguese. Thai
    is decided from 5 letters on (95 %). Hindi below 15 letters is often read as a neighbour. Indonesian is
    poor, by another measurement.
    """
    probabilities = _probabilities(text, expected)
    best = max(probabilities, key=lambda label: probabilities[label], default=None)
    return codes()[best].code if best and probabilities[best] >= CONFIDENCE else None


def probability_of(language: Language, text: str) -> float | None:
    """How probable it is that a text is in a language, 0 to 1, as `language_of` reckons.

    Close relatives share it: an Indonesian text is often Malay with 0.6 and Indonesian with 0.4. None where py3langid
    does not know the language or the text has no letters in prose.
    """
    label = _label(language)
    return _probabilities(text, language).get(label) if label else None


def _probabilities(text: str, expected: Language | None) -> dict[str, float]:
    """py3langid's code -> probability; empty for a text without letters in prose."""
    words = _prose(text)
    if not _patterns()["letter"].search(words):
        return {}
    import py3langid

    rivals = _rivals() | ({_label(expected)} if expected else set())
    ranked = [(label, value) for label, value in py3langid.rank(words) if label in rivals]
    scale = math.sqrt(len(words.encode(errors="replace")))
    top = ranked[0][1]
    weights = {label: math.exp((value - top) / scale) for label, value in ranked}
    total = sum(weights.values())
    return {label: weight / total for label, weight in weights.items()}


def in_language(text: str, language: Language) -> bool | None:
    """Whether a text is an answer in a language.

    An empty text and a loop ("o que é o que é o que é", which identification takes for fluent) are not. Nor is one
    of 30 letters or more that cannot be identified: 98 % of proper texts of that length can, so it is a mixture of
    languages or none.

    None, to be left out of a rate and counted, where nothing can be told:

    - py3langid does not know the language (90 of our 209).
    - Less than 30 letters remain beside digits, code, formulas and URLs, and they decide nothing ("Paris.").
    - Nothing but names remains ("Barack Obama"): each word has a capital.
    - The language is not ruled out although another one is more probable, as between close relatives: Indonesian and
      Malay, Bosnian and Croatian, Hindi and Nepali. Of the beginnings of the paragraphs of the Universal Declaration
      of Human Rights, of 3 to 40 words, none is then taken for no Indonesian, Bosnian or Hindi (without this 58, 57
      and 11 %), and English ones are found out as often as without it where German, Portuguese, Norwegian or
      Indonesian is expected; Spanish ones for Portuguese in 85 % in place of 92 %, Malay ones for Indonesian hardly.
    - A short text in Chinese characters alone may be Chinese, Cantonese and Japanese ("東京"). Of the 440 stretches of
      kanji that the rule was tried on none counts as not Japanese.

    Simplified and Traditional Chinese are not told apart.
    """
    if (label := _label(language)) is None:
        return None
    if not text.strip() or repeats(text):
        return False
    words = _prose(text)
    letters = len(_patterns()["letter"].findall(words))
    probabilities = _probabilities(text, language)
    if not letters or _is_names(words, language):
        return None
    own, best = probabilities[label], max(probabilities, key=lambda label: probabilities[label])
    han = label in HAN and len(_patterns()["han"].findall(words)) == letters < DECIDABLE_LETTERS
    if probabilities[best] < CONFIDENCE:
        return False if letters >= DECIDABLE_LETTERS and own < UNIDENTIFIED_DOUBT else None
    if best == label:
        rivals = [probabilities.get(rival, 0) for rival in HAN if rival != label]
        return None if han and max(rivals) >= HAN_RIVAL else True
    return None if own >= (HAN_DOUBT if han else DOUBT) else False


@cache
def _labels() -> frozenset[str]:
    import py3langid

    return frozenset(label for label, _ in py3langid.rank("a"))


def _label(language: Language) -> str | None:
    """py3langid's code, ISO 639-1 or 639-3; none where it lacks the language or knows its other script."""
    if language.flores == "zho_Hant":
        return "zh"
    standard = (code for code in (language.iso639_1, language.iso639_3) if codes().get(code) is language)
    return next((code for code in standard if code in _labels()), None)


@cache
def _rivals() -> frozenset[str]:
    labels = (_label(language) for language in languages() if language.belebele)
    return frozenset(label for label in labels if label)


@cache
def _patterns() -> dict[str, Pattern[str]]:
    import regex

    # Possessive, bounded or tied to the start of a run, so that 100 kB of one character stay linear.
    not_prose = r"""
        # A fence that is not closed reaches to the end.
        ^[ \t]*(?P<fence>`{3,}+|~{3,}+) [^\n]*+\n (?s:.*?) (?:^[ \t]*(?P=fence)[`~]*[ \t]*$ | \Z)
        | (?P<ticks>`{1,9}) [^`\n]++ (?P=ticks)
        | (?:https?://|www\.) [^\s<>"]+
        | (?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)+
        | \$\$ [^$]{1,400}+ \$\$ | (?<![\\$\w])\$ [^\s$][^$\n]{0,300}+ \$ (?!\d)
        | \\\( [^\n]{1,400}? \\\) | \\\[ (?s:.{1,400}?) \\\]
    """
    return {
        "not_prose": regex.compile(not_prose, regex.M | regex.X),
        "letter": regex.compile(r"\p{L}"),
        "word": regex.compile(r"\p{L}[\p{L}\p{M}'’]*+"),
        "han": regex.compile(r"\p{Han}"),
        **{code: regex.compile(rf"[\p{{Latin}}\p{{{script}}}]") for code, script in CASED.items()},
    }


def _is_names(words: str, language: Language) -> bool:
    """Whether each word has a capital, or stands inside of names, in letters that the language has names in."""
    patterns = _patterns()
    letters = patterns["letter"].findall(words)
    if len(letters) != len(patterns[language.script if language.script in CASED else "Latn"].findall(words)):
        return False
    if len(letters) >= DECIDABLE_LETTERS and words.isupper():
        return False
    found = patterns["word"].findall(words)
    small = [word for word in found if word == word.lower()]
    return len(small) < len(found) and all(word in PARTICLES.split() for word in small)


def _prose(text: str) -> str:
    return str(_patterns()["not_prose"].sub(" ", text).strip())


def repeats(text: str) -> bool:
    """Whether a text goes round in a loop: less than half of its 10-character stretches are distinct. Ours.

    Characters, not words, so that it holds for scripts without spaces; a list with a common wording is far above.
    """
    grams = [text[start : start + GRAM_CHARS] for start in range(len(text) - GRAM_CHARS + 1)]
    return len(set(grams)) < DISTINCT_SHARE * len(grams)


def loops(text: str) -> bool:
    """Whether some stretch of words goes round in a loop, as where one sentence of many ran to its limit. Ours.

    A stretch that is less than half letters and digits is a table, a ruler or code, and may repeat what it likes.

    None of the 690 seed answers, of 9,975 questions and choices of the human-translated MMLU, of GSM8K's 1,319 worked
    answers and of 1,000 passages of SQuAD does.
    """
    starts = range(0, max(1, len(text) - LOOP_CHARS + 1), LOOP_CHARS // 4)
    stretches = (text[start : start + LOOP_CHARS] for start in starts)
    worded = (stretch for stretch in stretches if 2 * sum(map(str.isalnum, stretch)) > len(stretch))
    return repeats(text) or any(map(repeats, worded))
