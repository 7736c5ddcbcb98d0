"""What of an answer is compared: its tokens, by our rules or by those of a published evaluation.

`unicode`, ours, holds for any script: a token is a word where spaces separate words and a character elsewhere
(`Language.spaces`). Texts are compared in Unicode's NFKC_Casefold form, which has no joiners, soft hyphens and
directional marks, with the language's own rule for the case of i and with all decimal digits as 0 to 9. Punctuation is
deleted, as in SQuAD's evaluation, and English loses its articles.

The others are for figures that stand beside published ones, and follow the scripts to their quirks:

- `squad`, of SQuAD 1.1 (Rajpurkar et al. 2016) and what XTREME measures XQuAD with: ASCII's punctuation and English
  articles are deleted in every language, and tokens are parted by spaces. A Thai or Chinese answer is one token.
- `mlqa` (Lewis et al. 2020): all punctuation, articles of five languages; each Chinese character is a token, and so is
  what stands between. Seven languages.
- `mkqa` (Longpre et al. 2021): ASCII's punctuation, articles of fourteen languages; each character is a token in
  Chinese, Japanese, Thai and Khmer.
"""

from __future__ import annotations

import re
import string
import unicodedata
from enum import Enum
from functools import cache

import regex

from sdx.languages import ENGLISH, Language, casefold


class Normalisation(str, Enum):
    """Whose rules decide the tokens of an answer."""

    unicode = "unicode"
    squad = "squad"
    mlqa = "mlqa"
    mkqa = "mkqa"

    def named(self, metric: str) -> str:
        """The metric's name in tables: `F1`, `F1 (MLQA)`."""
        return metric if self is Normalisation.unicode else f"{metric} ({PUBLISHED[self]})"

    def why_unsupported(self, language: Language) -> str | None:
        """Why there is no such figure in a language, as a sentence."""
        if self is not Normalisation.mlqa or language.code in MLQA:
            return None
        return f"MLQA's evaluation has {', '.join(MLQA)} only; choose normalisation=squad or unicode."


PUBLISHED = {Normalisation.squad: "SQuAD", Normalisation.mlqa: "MLQA", Normalisation.mkqa: "MKQA"}
MLQA = ("ar", "de", "en", "es", "hi", "vi", "zh")
MKQA_CHARACTERS = ("ja", "km", "th", "zh_cn", "zh_hk", "zh_tw")
"""Of `Language.mkqa`."""

ENGLISH_ARTICLES = "a an the"
ARTICLES = {
    "ar": "ال",
    "da": "en et",
    "de": "ein eine einen einem eines einer der die das den dem des",
    "en": ENGLISH_ARTICLES,
    "es": "un una unos unas el la los las",
    "fi": "se yks yksi",
    "fr": "le la les du de des un une",
    "hu": "a az egy",
    "it": "il lo la i gli le del dello della dei degli delle uno una un",
    "nl": "de het een des der den",
    "no": "en et ei",
    "pt": "o a os as um uma uns umas",
    "sv": "en ett",
    "vi": "của là cái chiếc những",
}
"""MKQA's, by `Language.code`; MLQA has the same in its languages. In order: the first that fits is deleted. What they
have with an apostrophe fits nowhere, as that is deleted before."""
ANYWHERE = ("ar",)
"""The article is deleted inside of words, too."""
PREFIXES = ("fr", "it")
"""Articles are deleted from the beginning of words, too: `lemon` becomes `mon`."""

WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")
MARK = regex.compile(r"[\p{P}\p{S}]+")
PARTING = regex.compile(r"[\u200b\u1361]")
"""They stand between words: a space of zero width, and the Ethiopic one."""
IGNORED = regex.compile(r"[\p{Default_Ignorable_Code_Point}\u055a-\u055c\u055e]")
"""They stand in words and make no other: joiners, soft hyphens and the like, and the stress of an Armenian word."""
JOINED = {
    **{f"{letter}\u0d4d\u200d": chillu for letter, chillu in zip("ണനരലളക", "ൺൻർൽൾൿ", strict=True)},
    "\u09a4\u09cd\u200d": "ৎ",
}
"""Older spellings, with a joiner, of letters that Unicode has now: Malayalam's chillus, Bengali's khanda ta."""
HAN = regex.compile(r"[\u4e00-\u9fa5]|[^\s\u4e00-\u9fa5]+")
"""What MLQA takes for a Chinese character, and what stands between."""


def words(text: str, language: Language) -> list[str]:
    """The words of a text, or the characters of them where spaces do not separate words; hyphens part words."""
    found = WORD.findall(_normal(text, language))
    return found if language.spaces else list("".join(found))


def answer_tokens(text: str, language: Language, normalisation: Normalisation = Normalisation.unicode) -> list[str]:
    """What of an answer is compared with what of a reference."""
    if normalisation is not Normalisation.unicode:
        return _published(text, language, normalisation)
    tokens = MARK.sub("", _normal(text, language)).split()
    if language.flores == ENGLISH:
        tokens = [token for token in tokens if token not in ENGLISH_ARTICLES.split()]
    return tokens if language.spaces else list("".join(tokens))


def _normal(text: str, language: Language) -> str:
    text = unicodedata.normalize("NFKC", text)
    for spelling, letter in JOINED.items():
        text = text.replace(spelling, letter)
    text = IGNORED.sub("", PARTING.sub(" ", text))
    text = unicodedata.normalize("NFKC", casefold(text, language.dotted_i))
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)


def _published(text: str, language: Language, normalisation: Normalisation) -> list[str]:
    every = normalisation is Normalisation.mlqa
    kept = (char for char in text.lower() if not _is_mark(char, every))
    text = "".join(kept)
    if articles := _articles("en" if normalisation is Normalisation.squad else language.code):
        text = articles.sub(" ", text)
    if every and language.code == "zh":
        parts: list[str] = HAN.findall(text)
        return parts
    if normalisation is Normalisation.mkqa and language.mkqa in MKQA_CHARACTERS:
        return [char for char in text if not char.isspace()]
    return text.split()


def _is_mark(char: str, every: bool) -> bool:
    return char in string.punctuation or (every and unicodedata.category(char).startswith("P"))


@cache
def _articles(code: str) -> re.Pattern[str] | None:
    """What deletes the articles of a language; none where it has none."""
    if code not in ARTICLES:
        return None
    one = "|".join(ARTICLES[code].split())
    if code in ANYWHERE:
        return re.compile(one)
    return re.compile(rf"\b(?:{one})" + ("" if code in PREFIXES else r"\b"))
