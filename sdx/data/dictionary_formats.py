"""What dictionaries look like on disk, and which of their entries can replace a word of a sentence.

Each reader yields (word of L, translation into T), the better translations of a word first.
"""

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
"""Of one word."""

# Letters in words joined by hyphens, apostrophes, the Catalan dot or Hebrew points of abbreviation; Tibetan words have
# a dot between and after their syllables, Persian and Hindi words have joiners of zero width.
_PHRASE = regex.compile(r"\p{L}[\p{L}\p{M}\u200c\u200d\u0f0b]*(?:[ '’‐·׳״-][\p{L}\p{M}\u200c\u200d\u0f0b]+)*")
_LATIN = regex.compile(r"\p{Latin}")
_CYRILLIC_STRESS = regex.compile(r"(?<=\p{Cyrillic})\u0301")
_APOSTROPHES = str.maketrans("’‐", "'-")
_EMOJI = regex.compile(r"\p{Emoji}")


def fold(word: str, dotted_i: bool = False) -> str:
    """A word as dictionaries look it up: NFC, without case, with a plain apostrophe and hyphen."""
    word = casefold(unicodedata.normalize("NFC", word), dotted_i)
    return unicodedata.normalize("NFC", word).translate(_APOSTROPHES)


def usable(pairs: Pairs, target: Language) -> Iterator[tuple[str, str]]:
    """The pairs that can replace each other in a sentence. Ours.

    Words only, no copies, no Latin letters unless T is written in them, no abbreviation of one letter. A translation
    has at most one word more than its source: an explanation is longer than what it explains.
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
    """MUSE (Conneau et al. 2018): `word translation` on each line, separated by a tab or a space; also with .gz.

    Raises:
        InputError: a line without two fields; as `read_lines`.
    """
    for place, line in read_lines(path, where):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("\t")] if "\t" in line else line.split()
        if len(fields) != 2 or not all(fields):
            raise InputError(
                f"{place} is {line.strip()[:60]!r}, not a word and its translation; "
                "separate them with one tab, or with a space if both are single words"
            )
        yield fields[0], fields[1]


def read_cldr(directory: Path, target: Language) -> Iterator[tuple[str, str]]:
    """The names of emoji in English and T, which CLDR translates one by one: words and noun phrases of two words."""
    locale = {"tl": "fil", "zho_Hant": "zh-Hant"}.get(target.code, target.code)
    english, names = _emoji_names(directory, "en"), _emoji_names(directory, locale)
    pairs = ((english[emoji], name) for emoji, name in names.items() if len(english.get(emoji, "").split()) in (1, 2))
    return usable(pairs, target)


def _emoji_names(directory: Path, locale: str) -> dict[str, str]:
    [path] = directory.rglob(f"{locale}/annotations.json")
    content = json.loads(path.read_text("utf-8"))["annotations"]["annotations"]
    return {emoji: names["tts"][0] for emoji, names in content.items() if "tts" in names and _EMOJI.match(emoji)}
