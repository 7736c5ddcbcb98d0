"""Code-switching: some words of a text in L are replaced by their dictionary translation into T.

SDRRL (arXiv 2402.12204) switches words of the instructions, by a tool that it does not name; how is ours. Only the
replaced words change: everything between them, layout, punctuation, code, markup, addresses, numbers, is kept byte for
byte.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import regex

from sdx.data.dictionary_formats import fold
from sdx.data.mixture import draw
from sdx.languages import Language
from sdx.text.protect import Spans, blank, find_spans
from sdx.text.segment import split

LONGEST_WORDS = 3
"""Words of an entry such as `ice cream`."""
LONGEST_GRAPHEMES = 12
"""Of a word in a script without spaces."""
SHORTEST_GRAPHEMES = 2
"""One sign alone is mostly a part of a word that the dictionary lacks; it counts where it stands by itself."""

# Scripts that do not part words by spaces, with marks that belong to several, and the dot between Tibetan syllables.
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


class _Site(NamedTuple):
    """A stretch of the text that the dictionary knows, and what it would become."""

    start: int
    end: int
    translation: str
    in_run: bool
    """It stands in a script without spaces."""


def code_switch(
    text: str, dictionary: Mapping[str, Sequence[str]], word_ratio: float, seed: str, target: Language
) -> tuple[str, int]:
    """(the text with words replaced, how many were).

    About `word_ratio` of the words *that the dictionary knows* are replaced, by their best translation; at least one
    where there is one and the ratio is not 0. Which ones depends on the text and the seed; a higher ratio takes the
    same words and more. A word that is its own translation counts as not known.

    The replacement is capitalised like the word: lower, Title, UPPER. In a text without spaces, entries are found by
    longest match from the left; a translation is set apart by a space where both it and its neighbour would else look
    like one word of a spaced script. Time is linear in the length of the text.

    Args:
        dictionary: folded word or phrase of L -> its translations, best first; see `dictionaries.load`.
        word_ratio: from 0 to 1.
        target: the language of the translations, for its rules of capitals.
    """
    if not dictionary or word_ratio <= 0:
        return text, 0
    sites = list(_sites(text, dictionary, target))
    if not sites:
        return text, 0
    wanted = min(len(sites), max(1, round(word_ratio * len(sites))))
    state = sha256(f"{seed}\0{text}".encode(errors="surrogatepass")).digest()
    order = sorted(range(len(sites)), key=lambda number: sha256(state + number.to_bytes(8, "big")).digest())
    parts: list[str] = []
    position = 0
    for site in (sites[number] for number in sorted(order[:wanted])):
        kept = text[position : site.start]
        before = kept or (parts[-1] if parts else "")
        parts += kept, _padded(site, before[-1:], text[site.end : site.end + 1])
        position = site.end
    return "".join(parts) + text[position:], wanted


def code_switch_rows(
    rows: Iterable[Mapping[str, Any]],
    field: str,
    dictionary: Mapping[str, Sequence[str]],
    sentence_ratio: float,
    word_ratio: float,
    seed: str,
    target: Language,
) -> list[dict[str, Any]]:
    """The rows that were switched, with the new text in `field` and its count in `switched_words`.

    `sentence_ratio` of the rows are tried, by a hash of `id` and seed, so that a higher ratio takes the same rows and
    more; of these, the ones without a known word are left out.
    """
    switched = []
    for row in rows:
        if draw(f"{seed}/code-switching/{row['id']}") < sentence_ratio:
            text, words = code_switch(row[field], dictionary, word_ratio, f"{seed}/{row['id']}", target)
            if words:
                switched.append({**row, field: text, "switched_words": words})
    return switched


def _sites(text: str, dictionary: Mapping[str, Sequence[str]], target: Language) -> Iterator[_Site]:
    """What can be replaced, from left to right, disjoint."""
    prose = blank(blank(text, _not_prose(text)), find_spans(text))
    tokens = [token for token in _TOKEN.finditer(prose) if _is_whole(token, prose, text)]
    position = 0
    for number, token in enumerate(tokens):
        if token["run"]:
            yield from _in_run(token, dictionary, target)
        elif token.start() >= position:
            for end in reversed(_phrase_ends(tokens[number : number + LONGEST_WORDS], text)):
                if found := _translation(text[token.start() : end], dictionary, target):
                    yield _Site(token.start(), end, found, in_run=False)
                    position = end
                    break


def _not_prose(text: str) -> Spans:
    """Fenced code, formulas, lines of code, list markers and the like."""
    spans, position = [], 0
    for piece in split(text):
        end = position + len(piece.text)
        if not piece.translate:
            spans.append((position, end))
        position = end
    return spans


def _is_whole(token: regex.Match, prose: str, text: str) -> bool:
    """Whether neither a protected span nor a grapheme cuts through the word, nor does a dot make it part of a name."""
    start, end = token.span()
    if text[start - 1 : start] == "." or (text[end : end + 1] == "." and text[end + 1 : end + 2].isalnum()):
        return False  # .log, U.S.
    left = start > 0 and prose[start - 1] != text[start - 1] and _WORD_EDGE.match(text, start - 1)
    right = end < len(text) and prose[end] != text[end] and _WORD_EDGE.match(text, end)
    return not (left or right or _EXTENDS.match(text, end))


def _phrase_ends(tokens: Sequence[regex.Match], text: str) -> list[int]:
    """Where the first word ends, the first two, and so on, as long as they are words with one space between."""
    ends: list[int] = []
    for token in tokens:
        if token["run"] or _NUMBER.search(token[0]) or (ends and text[ends[-1] : token.start()] != " "):
            break
        ends.append(token.end())
    return ends


def _in_run(run: regex.Match, dictionary: Mapping[str, Sequence[str]], target: Language) -> Iterator[_Site]:
    """Longest match from the left over the graphemes of a stretch without spaces."""
    edges = [run.start(), *(sign.end() for sign in _GRAPHEME.finditer(run.string, *run.span()))]
    alone = len(edges) - 1 < SHORTEST_GRAPHEMES
    first = 0
    while first < len(edges) - 1:
        shortest = first + (1 if alone else SHORTEST_GRAPHEMES)
        for last in range(min(first + LONGEST_GRAPHEMES, len(edges) - 1), shortest - 1, -1):
            if found := _translation(run.string[edges[first] : edges[last]], dictionary, target):
                yield _Site(edges[first], edges[last], found, in_run=True)
                first = last
                break
        else:
            first += 1


def _translation(word: str, dictionary: Mapping[str, Sequence[str]], target: Language) -> str | None:
    """The best translation, in the word's case; none where the dictionary has none or the same word."""
    key = fold(word)
    translations = dictionary.get(key)
    if not translations or fold(translations[0]) == key:
        return None
    return _in_case_of(word, translations[0], target)


def _in_case_of(word: str, translation: str, target: Language) -> str:
    """Capitals where the word has them; else as the dictionary writes it, so that German nouns stay capital."""
    cased = sum(sign.isupper() or sign.islower() for sign in word)
    if (
        word.isupper() and cased > 1 and target.script != "Geor"
    ):  # its capitals are for headlines, and few fonts have them
        return _dotted(translation, target).upper()
    if word[0].isupper() or word[0].istitle():
        return _dotted(translation[0], target).title() + translation[1:]
    return translation


def _dotted(text: str, target: Language) -> str:
    return text.replace("i", "İ") if target.dotted_i else text


def _padded(site: _Site, before: str, after: str) -> str:
    """The translation, with spaces where it would else grow together with its neighbours."""
    if not site.in_run:
        return site.translation
    left, right = (
        bool(neighbour and _WORD_EDGE.match(neighbour) and _WORD_EDGE.match(edge) and not _SIGN_EDGE.match(edge))
        for neighbour, edge in ((before, site.translation[0]), (after, site.translation[-1]))
    )
    return " " * left + site.translation + " " * right
