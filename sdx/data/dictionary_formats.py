"""What dictionaries look like on disk, and which of their entries can stand in for a word of a sentence.

Each reader yields (word of L, translation into T), the better translations of a word first.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import regex

from sdx import InputError
from sdx.languages import Language, casefold
from sdx.sources.files import read_lines

Pairs = Iterable[tuple[str, str]]

MAX_TRANSLATIONS = 5
"""Kept of one word."""

# Letters in words joined by hyphens, apostrophes, the Catalan dot or Hebrew points of abbreviation; a Tibetan word
# has a dot between and after its syllables, a Persian or Hindi one joiners of zero width.
_PHRASE = regex.compile(r"\p{L}[\p{L}\p{M}\u200c\u200d\u0f0b]*(?:[ '’‐·׳״-][\p{L}\p{M}\u200c\u200d\u0f0b]+)*")
_LATIN = regex.compile(r"\p{Latin}")
_CYRILLIC_STRESS = regex.compile(r"(?<=\p{Cyrillic})\u0301")
_APOSTROPHES = str.maketrans("’‐", "'-")


def fold(word: str, dotted_i: bool = False) -> str:
    """The form in which words are looked up: NFC, without case, with a plain apostrophe and hyphen."""
    word = casefold(unicodedata.normalize("NFC", word), dotted_i)
    return unicodedata.normalize("NFC", word).translate(_APOSTROPHES)


def usable(pairs: Pairs, target: Language) -> Iterator[tuple[str, str]]:
    """The pairs that can stand in for each other in a sentence. Ours.

    Words only, no copies, no Latin letters where T is not written in them, no abbreviation of one letter. An
    explanation is longer than what it explains: a translation has at most one word more than its source.
    """
    for word, translation in pairs:
        word = fold(word.strip())
        translation = _CYRILLIC_STRESS.sub("", unicodedata.normalize("NFC", translation.strip()))
        if (
            len(word) > 1
            and _PHRASE.fullmatch(word)
            and _PHRASE.fullmatch(translation)
            and len(translation.split()) <= len(word.split()) + 1
            and fold(translation) != word
            and (target.script == "Latn" or not _LATIN.search(translation))
        ):
            yield word, translation


def dictionary_rows(pairs: Pairs, origin: str) -> list[dict[str, Any]]:
    """`{"id", "translations", "origin"}`, a row a word, in the order of the words' first pairs."""
    words: dict[str, dict[str, None]] = {}
    for word, translation in pairs:
        words.setdefault(fold(word), {})[translation] = None
    return [
        {"id": word, "translations": list(translations)[:MAX_TRANSLATIONS], "origin": origin}
        for word, translations in words.items()
    ]


def read_muse(path: Path, where: str) -> Iterator[tuple[str, str]]:
    """MUSE (Conneau et al. 2018): `word translation` on each line, parted by a tab or a space; also with .gz.

    Raises:
        InputError: a line without two fields; what `read_lines` refuses.
    """
    for place, line in read_lines(path, where):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("\t")] if "\t" in line else line.split()
        if len(fields) != 2 or not all(fields):
            raise InputError(
                f"{place} is {line.strip()[:60]!r}, not a word and its translation; "
                "part them with one tab, or with a space where both are single words"
            )
        yield fields[0], fields[1]


def read_cldr(directory: Path, target: Language) -> Iterator[tuple[str, str]]:
    """The names of emoji in English and T, which CLDR translates one by one: words and noun phrases of two."""
    [english] = (_emoji_names(path) for path in directory.rglob("en/annotations.json"))
    [names] = (_emoji_names(path) for path in directory.rglob(f"{cldr_locale(target)}/annotations.json"))
    pairs = ((english[emoji], name) for emoji, name in names.items() if len(english.get(emoji, "").split()) in (1, 2))
    return usable(pairs, target)


def cldr_locale(target: Language) -> str:
    """CLDR's code of a language of our table."""
    return {"tl": "fil", "zho_Hant": "zh-Hant"}.get(target.code, target.code)


_EMOJI = regex.compile(r"\p{Emoji}.*")


def _emoji_names(path: Path) -> dict[str, str]:
    content = json.loads(path.read_text("utf-8"))["annotations"]["annotations"]
    return {emoji: names["tts"][0] for emoji, names in content.items() if "tts" in names and _EMOJI.match(emoji)}
