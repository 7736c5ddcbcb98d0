"""Code-switching: some words of a text in L are replaced by their dictionary translation into T.

SDRRL (arXiv 2402.12204) switches words of the instructions with a tool that it does not name; how is ours. Everything
between the replaced words (layout, punctuation, code, markup, addresses, numbers) is kept byte for byte.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

import regex

from sdx.data.dictionaries import Dictionary
from sdx.data.dictionary_formats import fold
from sdx.data.mixture import draw
from sdx.languages import Language
from sdx.text.protect import BLANK, blank, cut
from sdx.text.segment import find_sentences

LONGEST_WORDS = 3
"""Words of a dictionary entry such as `ice cream`."""
LONGEST_GRAPHEMES = 12
"""Graphemes of a dictionary entry in a script without spaces."""
SHORTEST_GRAPHEMES = 2
"""A single grapheme is mostly a part of a word that the dictionary lacks, unless it stands by itself."""

# Scripts without spaces between words, marks that belong to several of them, and the dot between Tibetan syllables.
_UNSPACED = (
    r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}ー\uff70\uff9e\uff9f"
)
_SIGN = rf"[[[{_UNSPACED}]&&[\p{{L}}\p{{M}}]]\u0f0b]"
_JOINED = r"[\p{M}\u200c\u200d]"
_LETTER = rf"[[\p{{L}}\p{{N}}]--[{_UNSPACED}]]"
_INNER = rf"[[\p{{L}}\p{{M}}\p{{N}}\u200c\u200d]--[{_UNSPACED}]]"
_TOKEN = regex.compile(
    # "don't", "e-mail", "snake_case" are one word each.
    rf"(?P<run>(?:{_SIGN}{_JOINED}*+)++) | (?P<word>{_LETTER}{_INNER}*+(?:['’‐_·׳״-]{_INNER}++)*+)",
    regex.VERBOSE | regex.V1,
)
_GRAPHEME = regex.compile(r"\X")
_EXTENDS = regex.compile(r"[\p{Grapheme_Extend}\p{Emoji_Modifier}\u200d]")
_NUMBER = regex.compile(r"[\p{N}_]")
_WORD_EDGE = regex.compile(r"[\p{L}\p{M}\p{N}]")
_SIGN_EDGE = regex.compile(_SIGN, regex.V1)

Site = tuple[int, int, str]
"""Start and end of a stretch of the text that the dictionary knows, and its translation in the stretch's case."""


def code_switch(text: str, dictionary: Dictionary, word_ratio: float, seed: str, target: Language) -> tuple[str, int]:
    """(the text with words replaced, how many were).

    About `word_ratio` of the words *that the dictionary knows* are replaced by their best translation; at least one
    word if the dictionary knows one and the ratio is not 0. Which words depends on the text and the seed; a higher
    ratio takes the same words and more. A word that is its own translation counts as not known.

    The replacement is capitalised like the word: lower, Title, UPPER. In a text without spaces, entries are found by
    longest match from the left, and spaces separate a translation from its neighbours if they would look like one word
    of a script with spaces. Time is linear in the length of the text.

    Args:
        dictionary: folded word or phrase of L -> its translations, best first; see `dictionaries.load`.
        word_ratio: from 0 to 1.
        target: the language of the translations, for its rules of capitals.
    """
    sites = list(_sites(text, dictionary, target)) if dictionary and word_ratio > 0 else []
    if not sites:
        return text, 0
    count = min(len(sites), max(1, round(word_ratio * len(sites))))
    state = sha256(f"{seed}\0{text}".encode(errors="surrogatepass")).digest()
    order = sorted(range(len(sites)), key=lambda number: sha256(state + number.to_bytes(8, "big")).digest())
    switched, position = "", 0
    for start, end, translation in (sites[number] for number in sorted(order[:count])):
        switched += text[position:start]
        if _SIGN_EDGE.match(text, start):
            translation = _spaced(translation, switched[-1:], text[end : end + 1])
        switched, position = switched + translation, end
    return switched + text[position:], count


def code_switch_rows(
    rows: Iterable[Mapping[str, Any]],
    field: str,
    dictionary: Dictionary,
    sentence_ratio: float,
    word_ratio: float,
    seed: str,
    target: Language,
) -> Iterator[dict[str, Any]]:
    """The rows that were switched, with the new text in `field` and the number of replaced words in `switched_words`.

    `sentence_ratio` of the rows are tried, by a hash of `id` and seed: a higher ratio takes the same rows and more.
    Rows without a known word are left out.
    """
    for row in rows:
        if draw(f"{seed}/code-switching/{row['id']}") < sentence_ratio:
            text, words = code_switch(row[field], dictionary, word_ratio, f"{seed}/{row['id']}", target)
            if words:
                yield {**row, field: text, "switched_words": words}


def _sites(text: str, dictionary: Dictionary, target: Language) -> Iterator[Site]:
    """What can be replaced, from left to right, disjoint."""
    parts = cut(blank(text), find_sentences(text))
    prose = "".join(part if number % 2 else BLANK * len(part) for number, part in enumerate(parts))
    tokens = [token for token in _TOKEN.finditer(prose) if _is_whole(token, prose, text)]
    position = 0
    for number, token in enumerate(tokens):
        if token["run"]:
            yield from _in_run(token, dictionary, target)
        elif token.start() >= position:
            for end in reversed(_phrase_ends(tokens[number : number + LONGEST_WORDS], text)):
                if translation := _translation(text[token.start() : end], dictionary, target):
                    yield token.start(), end, translation
                    position = end
                    break


def _is_whole(token: regex.Match, prose: str, text: str) -> bool:
    """Whether no protected span or grapheme cuts through the word, and no dot makes it part of a name."""
    start, end = token.span()
    if text[start - 1 : start] == "." or (text[end : end + 1] == "." and text[end + 1 : end + 2].isalnum()):
        return False  # .log, U.S.
    left = start > 0 and prose[start - 1] != text[start - 1] and _WORD_EDGE.match(text, start - 1)
    right = end < len(text) and prose[end] != text[end] and _WORD_EDGE.match(text, end)
    return not (left or right or _EXTENDS.match(text, end))


def _phrase_ends(tokens: Sequence[regex.Match], text: str) -> list[int]:
    """Ends of the phrases of the first word, the first two words, and so on, if one space separates the words."""
    ends: list[int] = []
    for token in tokens:
        if token["run"] or _NUMBER.search(token[0]) or (ends and text[ends[-1] : token.start()] != " "):
            break
        ends.append(token.end())
    return ends


def _in_run(run: regex.Match, dictionary: Dictionary, target: Language) -> Iterator[Site]:
    """Longest match from the left over the graphemes of a stretch without spaces."""
    edges = [run.start(), *(grapheme.end() for grapheme in _GRAPHEME.finditer(run.string, *run.span()))]
    count = len(edges) - 1
    first = 0
    while first < count:
        for last in range(min(first + LONGEST_GRAPHEMES, count), first + min(SHORTEST_GRAPHEMES, count) - 1, -1):
            if translation := _translation(run.string[edges[first] : edges[last]], dictionary, target):
                yield edges[first], edges[last], translation
                first = last
                break
        else:
            first += 1


def _translation(word: str, dictionary: Dictionary, target: Language) -> str | None:
    """The best translation, with the word's capitals; None if the dictionary has none or the same word.

    A word without capitals gets the translation as the dictionary writes it, so German nouns keep theirs.
    """
    key = fold(word)
    if not (translations := dictionary.get(key)) or fold(translations[0]) == key:
        return None
    best = translations[0]
    cased = sum(sign.isupper() or sign.islower() for sign in word)
    if word.isupper() and cased > 1 and target.script != "Geor":  # whose capitals are for headlines, and in few fonts
        return _dotted(best, target).upper()
    if word[0].isupper() or word[0].istitle():
        return _dotted(best[0], target).title() + best[1:]
    return best


def _dotted(text: str, target: Language) -> str:
    return text.replace("i", "İ") if target.dotted_i else text


def _spaced(translation: str, before: str, after: str) -> str:
    """The translation, with spaces where it would otherwise grow together with its neighbours."""
    left, right = (
        " " * bool(_WORD_EDGE.match(neighbour) and _WORD_EDGE.match(edge) and not _SIGN_EDGE.match(edge))
        for neighbour, edge in ((before, translation[0]), (after, translation[-1]))
    )
    return left + translation + right
