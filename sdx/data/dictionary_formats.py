"""What dictionaries look like on disk, and which of their entries can stand in for a word of a sentence.

Each reader yields (word of L, translation into T), the better translations of a word first.
"""

from __future__ import annotations

import gzip
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits
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


# Tags such as <n> or [bot.], notes in braces, a field of use in front, links; the number of a sense that has none.
_LABELS = regex.compile(r"<[^<>]*>|(?<!\[)\[[^\[\]]*\](?!\])|\{[^{}]*\}|^\s*\([^()]*\)|[\[\]]|\s\d+\.\s*$")
_SENSE = regex.compile(r"\d+\.\s+(?=\S)")
_PARTICLE = regex.compile(r"^(?:to|an?|the)\s+(?=\S)", regex.IGNORECASE)
_HEAD_END = regex.compile(r"\s+(?:/|<[^<>]*>\s*$)")

_OUT_OF_CONTEXT = frozenset(
    """
    the an this that these those me my mine you your yours he him his she her hers it its we us our ours they them
    their theirs who whom whose which what when where why how and or but nor so yet if then than because as until while
    although though unless since of in on at by for with about against between into through during before after above
    below to from up down out off over under upon within without across along among around behind beside beyond despite
    except near per toward towards via again once here there all any both each few more most other another some such no
    not only own same too very every either neither much many also just even still well can could will would shall
    should may might must do does did be is are am was were been being have has had having like get got let lot
    """.split()
)
"""English words whose first sense in a dictionary is seldom the one in a sentence: can (a tin), down (a feather)."""
_LETTER_COST = 0.1
"""For each of the one or two directions: what was best, by eye, for 110 common words in ten languages."""


def read_freedict(directory: Path, target: Language) -> Iterator[tuple[str, str]]:
    """FreeDict, English to T and, where it is there, T to English: `eng-xxx` and `xxx-eng` in dictd's format.

    Headwords list their translations by the alphabet as often as by use. Hence the better translation is the one
    that is given for more senses of a word, that is itself translated by that word, and that is short, as frequent
    words are (Zipf's law of abbreviation). Ours.
    """
    directions = [(_entries(index), "eng-" in index.name) for index in sorted(directory.rglob("*.index"))]
    cost = _LETTER_COST * len(directions)
    scores: dict[str, dict[str, float]] = {}
    for entries, from_english in directions:
        pairs = entries if from_english else ((word, head) for head, word in entries)
        forward = usable(((_PARTICLE.sub("", word), translation) for word, translation in pairs), target)
        ranked = _by_mentions(forward if from_english else ((translation, word) for word, translation in forward))
        for head, others in ranked:
            for rank, other in enumerate(others, 1):
                word, translation = (head, other) if from_english else (other, head)
                of_word = scores.setdefault(word, {})
                of_word[translation] = of_word.get(translation, -cost * len(translation)) + 1 / rank
    for word, of_word in scores.items():
        if word not in _OUT_OF_CONTEXT:
            yield from ((word, translation) for translation in sorted(of_word, key=lambda t: -of_word[t]))


def _by_mentions(pairs: Pairs) -> Iterator[tuple[str, list[str]]]:
    """(headword, its translations, those given more often first)."""
    mentions: dict[str, Counter[str]] = {}
    for head, translation in pairs:
        mentions.setdefault(head, Counter())[translation] += 1
    for head, counts in mentions.items():
        yield head, [translation for translation, _ in counts.most_common()]


def _entries(index: Path) -> Iterator[tuple[str, str]]:
    """(headword, translation) of a dictionary in dictd's format: an index of headword, offset and length, and text.

    An entry is `headword /pronunciation/ <part of speech>`, then the translations of its senses, each on a line of
    its own, `1. ` and so on in front where there are several. Between them stand definitions and examples.
    """
    text = gzip.decompress(index.with_suffix(".dict.dz").read_bytes())
    spans = {
        (_base64(offset), _base64(length))
        for headword, offset, length in (line.split("\t")[:3] for line in index.read_text("utf-8").splitlines())
        if not headword.startswith("00database")
    }
    for offset, length in sorted(spans):
        head, *lines = text[offset : offset + length].decode("utf-8", "replace").strip().split("\n")
        word = _HEAD_END.split(head, maxsplit=1)[0]
        lines = [line for line in lines if line.strip()]
        for sense in [line for number, line in enumerate(lines) if number == 0 or _SENSE.match(line)]:
            translations = _LABELS.sub("", _SENSE.sub("", sense)).replace("~", " ")
            for translation in regex.split("[,;]", translations):
                yield word, " ".join(translation.split())


_DIGITS = {digit: value for value, digit in enumerate(ascii_uppercase + ascii_lowercase + digits + "+/")}


def _base64(number: str) -> int:
    value = 0
    for digit in number:
        value = value * 64 + _DIGITS[digit]
    return value


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
