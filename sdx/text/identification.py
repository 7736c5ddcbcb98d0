"""What a text alone shows: which language it is in, and whether it goes round in a loop."""

import math
from collections.abc import Iterable
from functools import cache, lru_cache

import regex

from sdx.languages import Language, codes

CONFIDENCE = 0.6
"""The probability from which a language counts as identified. Ours; see `language_of`."""
DECIDABLE_LETTERS = 30
"""From this length on, a text in one language can nearly always be identified; see `language_of`."""
DOUBT = 0.1
"""A less probable language is ruled out if another one is identified. Ours; see `in_language`."""
UNIDENTIFIED_DOUBT = 0.15
"""The same in a long text in which no language is identified."""
HAN_DOUBT = 0.004
"""The same in a short text in Chinese characters alone."""
HAN_RIVAL = 0.02
"""In such a text the expected language is identified only if the others are less probable than this."""
HAN = ("ja", "yue", "zh")
"""py3langid's codes of the languages that are written in Chinese characters."""
PARTICLES = "al bin da das de del della den der di do dos du e el ibn la le ter van von y".split()
"""Words inside of names."""
GRAM_CHARS = 10
LOOP_CHARS = 80

# Possessive, bounded or tied to the start of a run: 100 kB of one character take linear time.
_NOT_PROSE = regex.compile(
    r"""
    # A fence that is not closed reaches to the end.
    ^[ \t]*(?P<fence>`{3,}+|~{3,}+) [^\n]*+\n (?s:.*?) (?:^[ \t]*(?P=fence)[`~]*[ \t]*$ | \Z)
    | (?P<ticks>`{1,9}) [^`\n]++ (?P=ticks)
    | (?:https?://|www\.) [^\s<>"]+
    | (?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)+
    | \$\$ [^$]{1,400}+ \$\$ | (?<![\\$\w])\$ [^\s$][^$\n]{0,300}+ \$ (?!\d)
    | \\\( [^\n]{1,400}? \\\) | \\\[ (?s:.{1,400}?) \\\]
    """,
    regex.MULTILINE | regex.VERBOSE,
)
_SIGNS = ("`", "~~~", "://", "www.", "@", "$", "\\")
"""A text without any of them has nothing that `_NOT_PROSE` finds."""
_LETTERS = regex.compile(r"\p{L}++")
_WORD = regex.compile(r"\p{L}[\p{L}\p{M}'’]*+")
_HAN = regex.compile(r"\p{Han}++")
_LATIN = regex.compile(r"\p{Latin}++")
_CASED = {
    "Cyrl": regex.compile(r"[\p{Latin}\p{Cyrillic}]++"),
    "Grek": regex.compile(r"[\p{Latin}\p{Greek}]++"),
    "Armn": regex.compile(r"[\p{Latin}\p{Armenian}]++"),
}
"""Scripts with capitals beside Latin, by ISO 15924 -> letters of names in a text in that script."""


def language_of(text: str, expected: Language | None = None) -> str | None:
    """The code of a text's language; None if it cannot be identified. Code, URLs and addresses do not count.

    py3langid ranks the 118 languages that it shares with our table. Two measures make it fit for short answers. Only
    languages of Belebele, and the expected one, may win: otherwise one in eight Portuguese or Spanish texts of 20 to 30
    letters is read as Galician, Extremaduran or Latin. And the winner needs a probability of 0.6 (the softmax of the
    log-likelihoods divided by the square root of the length in bytes, py3langid's calibration).

    Measured on the questions and choices of the human-translated MMLU, Portuguese expected: of texts with 1 to 9
    letters 4 % are decided, with 10 to 19 27 %, 20 to 29 70 %, 30 or more 98 %; 99.6 % of the decided ones are right;
    0.2 % of Spanish ones and no English, French or Italian one are taken for Portuguese. Thai is decided from 5 letters
    on (95 %). Hindi below 15 letters is often read as a neighbour. Indonesian is poor, by another measurement.
    """
    probabilities = _probabilities(text, expected)
    best = max(probabilities, key=probabilities.__getitem__, default="")
    return codes()[best].code if best and probabilities[best] >= CONFIDENCE else None


def probability_of(language: Language, text: str) -> float | None:
    """How probable it is that a text is in a language, 0 to 1, as in `language_of`.

    Close relatives share the probability: an Indonesian text is often Malay with 0.6 and Indonesian with 0.4. None if
    py3langid does not know the language or the text has no letters in prose.
    """
    label = _labels().get(language)
    return _probabilities(text, language).get(label) if label else None


@lru_cache(maxsize=1)  # a text is asked about twice in a row
def _probabilities(text: str, expected: Language | None) -> dict[str, float]:
    """py3langid's code -> probability; empty for a text without letters in prose."""
    words = _prose(text)
    if not _LETTERS.search(words):
        return {}
    from sdx.text.identifier import identifier

    rivals = _rivals(expected)
    ranked = [(label, value) for label, value in identifier().rank(words) if label in rivals]
    scale = math.sqrt(len(words.encode(errors="replace")))
    weights = {label: math.exp((value - ranked[0][1]) / scale) for label, value in ranked}
    total = sum(weights.values())
    return {label: weight / total for label, weight in weights.items()}


def in_language(text: str, language: Language) -> bool | None:
    """Whether a text is an answer in a language.

    An empty text and a loop ("o que é o que é o que é", which py3langid takes for fluent) are not. Nor is a text of 30
    letters or more that cannot be identified: 98 % of proper texts of that length can, so it is a mixture of languages
    or none.

    None, to be left out of a rate and counted, means that the text does not show it:

    - py3langid does not know the language (90 of our 209).
    - Less than 30 letters remain beside digits, code, formulas and URLs, and they decide nothing ("Paris.").
    - Nothing but names remains ("Barack Obama"): each word has a capital.
    - The language is not ruled out although another one is more probable, as between close relatives: Indonesian and
      Malay, Bosnian and Croatian, Hindi and Nepali. Of the beginnings of the paragraphs of the Universal Declaration
      of Human Rights, of 3 to 40 words, none is then taken for no Indonesian, Bosnian or Hindi (without this rule 58,
      57 and 11 %). English ones are found out as often as without the rule if German, Portuguese, Norwegian or
      Indonesian is expected; Spanish ones for Portuguese in 85 % instead of 92 %, Malay ones for Indonesian hardly.
    - A short text in Chinese characters alone may be Chinese, Cantonese and Japanese ("東京"). Of the 440 stretches of
      kanji that the rule was tried on, none counts as not Japanese.

    Simplified and Traditional Chinese are not told apart.
    """
    if (label := _labels().get(language)) is None:
        return None
    if not text.strip() or repeats(text):
        return False
    words = _prose(text)
    letters = characters_in(_LETTERS, words)
    if not letters or _is_names(words, language):
        return None
    probabilities = _probabilities(text, language)
    own, best = probabilities[label], max(probabilities, key=probabilities.__getitem__)
    han = label in HAN and characters_in(_HAN, words) == letters < DECIDABLE_LETTERS
    if probabilities[best] < CONFIDENCE:
        return False if letters >= DECIDABLE_LETTERS and own < UNIDENTIFIED_DOUBT else None
    if best == label:
        rivals = [probabilities.get(rival, 0) for rival in HAN if rival != label]
        return None if han and max(rivals) >= HAN_RIVAL else True
    return None if own >= (HAN_DOUBT if han else DOUBT) else False


@cache
def _labels() -> dict[Language, str]:
    """py3langid's code, ISO 639-1 or 639-3, of each language that it knows in the script of the table."""
    from sdx.text.identifier import identifier

    known = {label: codes().get(label) for label, _ in identifier().rank("a")}
    labels = {entry: code for code, entry in known.items() if entry and code in (entry.iso639_1, entry.iso639_3)}
    return {**labels, codes()["zho_Hant"]: "zh"}


def look_ahead(texts: Iterable[str]) -> None:
    """Makes the identification of these texts faster, if they come next; see `Identifier.look_ahead`."""
    from sdx.text.identifier import identifier

    identifier().look_ahead([*map(_prose, texts)])


@cache
def _rivals(expected: Language | None) -> frozenset[str]:
    return frozenset(label for entry, label in _labels().items() if entry.belebele or entry == expected)


def _is_names(words: str, language: Language) -> bool:
    """Whether each word has a capital, or stands inside of names, in letters that the language has names in."""
    letters = characters_in(_LETTERS, words)
    if letters != characters_in(_CASED.get(language.script, _LATIN), words):
        return False
    if letters >= DECIDABLE_LETTERS and words.isupper():
        return False
    found = _WORD.findall(words)
    small = [word for word in found if word == word.lower()]
    return len(small) < len(found) and all(word in PARTICLES for word in small)


def characters_in(runs: regex.Pattern, text: str) -> int:
    """Characters in the runs of a text."""
    return len("".join(runs.findall(text)))


@lru_cache(maxsize=512)
def _prose(text: str) -> str:
    return str(_NOT_PROSE.sub(" ", text) if any(sign in text for sign in _SIGNS) else text).strip()


def repeats(text: str) -> bool:
    """Whether a text goes round in a loop: less than half of its 10-character stretches are distinct. Ours.

    Characters work for scripts without spaces too; a list with a common wording is far above.
    """
    return 2 * _distinct(text) < _grams(text)


def _grams(text: str) -> int:
    return max(0, len(text) - GRAM_CHARS + 1)


@lru_cache(maxsize=1)
def _distinct(text: str) -> int:
    return len({text[start : start + GRAM_CHARS] for start in range(_grams(text))})


def loops(text: str) -> bool:
    """Whether some stretch of words goes round in a loop, as when one sentence of many ran to its limit. Ours.

    A stretch that is less than half letters and digits is a table, a ruler or code, and may repeat what it likes. None
    of the 690 seed answers, of 9,975 questions and choices of the human-translated MMLU, of GSM8K's 1,319 worked
    answers and of 1,000 passages of SQuAD goes round.
    """
    if repeats(text):
        return True
    if 2 * (_grams(text) - _distinct(text)) <= LOOP_CHARS - GRAM_CHARS + 1:
        return False  # all that repeats would not make one stretch a loop
    starts = range(0, max(1, len(text) - LOOP_CHARS + 1), LOOP_CHARS // 4)
    stretches = (text[start : start + LOOP_CHARS] for start in starts)
    worded = (stretch for stretch in stretches if 2 * sum(map(str.isalnum, stretch)) > len(stretch))
    return any(map(repeats, worded))
