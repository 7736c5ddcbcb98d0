"""The tokens of an answer that are compared, by our rules or by those of a published evaluation.

`unicode`, ours, is for any script: a token is a word if spaces separate words (`Language.spaces`), else a character.
Texts are compared in Unicode's NFKC_Casefold form, which has no joiners, soft hyphens and directional marks, with the
language's own rule for the case of i and with all decimal digits as 0 to 9. Punctuation and English articles are
deleted, as in SQuAD's evaluation.

The others are for comparison with published figures, and follow the published scripts exactly:

- `squad`, of SQuAD 1.1 (Rajpurkar et al. 2016), with which XTREME measures XQuAD: ASCII punctuation and English
  articles are deleted in every language, and spaces separate tokens. A Thai or Chinese answer is one token.
- `mlqa` (Lewis et al. 2020): all punctuation and the articles of five languages are deleted; each Chinese character is
  a token, and so is the text between two of them. Seven languages.
- `mkqa` (Longpre et al. 2021): ASCII punctuation and the articles of fourteen languages are deleted; each character is
  a token in Chinese, Japanese, Thai and Khmer.
"""

from __future__ import annotations

import re
import string
import unicodedata
from enum import Enum
from functools import cache

import regex

from sdx.languages import ENGLISH, Language, casefold
from sdx.text.numbers import ascii_digits


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

ARTICLES = {
    "ar": "ال",
    "da": "en et",
    "de": "ein eine einen einem eines einer der die das den dem des",
    "en": "a an the",
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
"""MKQA's, by `Language.code`; MLQA has the same in its languages. In order: the first that fits is deleted. Those with
an apostrophe are left out: they fit nowhere, because apostrophes are deleted before."""

WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+")
MARK = regex.compile(r"[\p{P}\p{S}]+")
PARTING = regex.compile(r"[\u200b\u1361]")
"""Separators of words: the space of zero width, and the Ethiopic one."""
IGNORED = regex.compile(r"[\p{Default_Ignorable_Code_Point}\u055a-\u055c\u055e]")
"""They occur in words but do not change them: joiners, soft hyphens and the like, and the stress of Armenian words."""
JOINED = {
    **{f"{letter}\u0d4d\u200d": chillu for letter, chillu in zip("ണനരലളക", "ൺൻർൽൾൿ", strict=True)},
    "\u09a4\u09cd\u200d": "ৎ",
}
"""Older spellings, with a joiner, of letters that Unicode now has: Malayalam's chillus, Bengali's khanda ta."""
HAN = regex.compile(r"[\u4e00-\u9fa5]|[^\s\u4e00-\u9fa5]+")
"""A Chinese character in MLQA's definition, or the text between two of them."""


def words(text: str, language: Language) -> list[str]:
    """The words of a text, or their characters if spaces do not separate words; hyphens separate words."""
    found = WORD.findall(_normal(text, language))
    return found if language.spaces else list("".join(found))


def answer_tokens(text: str, language: Language, normalisation: Normalisation = Normalisation.unicode) -> list[str]:
    """The tokens of an answer or of a reference."""
    if normalisation is not Normalisation.unicode:
        return _published(text, language, normalisation)
    tokens = MARK.sub("", _normal(text, language)).split()
    if language.flores == ENGLISH:
        tokens = [token for token in tokens if token not in ARTICLES["en"].split()]
    return tokens if language.spaces else list("".join(tokens))


def _normal(text: str, language: Language) -> str:
    text = unicodedata.normalize("NFKC", text)
    for spelling, letter in JOINED.items():
        text = text.replace(spelling, letter)
    text = IGNORED.sub("", PARTING.sub(" ", text))
    return ascii_digits(unicodedata.normalize("NFKC", casefold(text, language.dotted_i)))


def _published(text: str, language: Language, normalisation: Normalisation) -> list[str]:
    mlqa = normalisation is Normalisation.mlqa
    text = text.lower()
    marks = {char for char in text if char in string.punctuation or (mlqa and unicodedata.category(char)[0] == "P")}
    text = "".join(char for char in text if char not in marks)
    if articles := _articles("en" if normalisation is Normalisation.squad else language.code):
        text = articles.sub(" ", text)
    if mlqa and language.code == "zh":
        parts: list[str] = HAN.findall(text)
        return parts
    if normalisation is Normalisation.mkqa and language.mkqa in MKQA_CHARACTERS:
        return [char for char in text if not char.isspace()]
    return text.split()


@cache
def _articles(code: str) -> re.Pattern[str] | None:
    """Matches the articles of a language: as words; in French and Italian also at the beginning of words, so that
    `lemon` becomes `mon`; in Arabic anywhere. None for a language without articles."""
    if code not in ARTICLES:
        return None
    article = "|".join(ARTICLES[code].split())
    if code == "ar":
        return re.compile(article)
    return re.compile(rf"\b(?:{article})" + ("" if code in ("fr", "it") else r"\b"))
