"""One table of languages: the 204 of FLORES-200 and five romanised variants that only Belebele has.

`languages.csv` has one row per language and script. Codes and English names are those of FLORES-200 and Belebele;
`nllb` is the code in the NLLB-200 tokenizer (202 codes: not `arb_Latn`, `min_Arab`). Native names are CLDR's, or common
autonyms if CLDR has none or the wrong script. Each benchmark has its own names of languages in a column.

An ISO 639-1 code belongs to one row, the standard variety: `ar` is `arb_Arab`, `zh` is `zho_Hans`, `no` is `nob_Latn`.
`language_sets.yaml` has named sets of languages. This module imports nothing of sdx.
"""

import csv
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    import langcodes

ENGLISH = "eng_Latn"
DOTTED_I = ("tur", "azj", "crh")
"""ISO 639-3 of the languages in which the capital of i is İ, and the capital of ı is I."""
_SOFT_DOT = re.compile("(?<=[ijį])\u0307")
"""The dot of İ in lower case, which stays a character of its own; Lithuanian writes such a dot under an accent."""


@dataclass(frozen=True)
class Language:
    """A language in one script. A code that the language does not have is an empty string."""

    flores: str
    """FLORES-200 code, the key of the table: `tha_Thai`."""
    iso639_3: str
    """Not unique: `ace_Arab` and `ace_Latn` are both `ace`."""
    iso639_1: str
    """Unique: only the standard variety and script of a language has it."""
    name: str
    """English name."""
    native_name: str
    """The language's own name for itself, in this script."""
    script: str
    """ISO 15924, of the text: FLORES-200's `sat_Beng` is Santali in Ol Chiki, so `Olck`."""
    direction: str
    """`ltr` or `rtl`."""
    spaces: bool
    """Spaces separate words (in Vietnamese: syllables). Whitespace metrics need it."""
    nllb: str
    """Code in the NLLB-200 tokenizer, which turns a code it lacks into <unk> without a word."""
    belebele: str
    """One of 122; FLORES-200 codes and five like them."""
    xnli: str
    """One of 15."""
    xlsum: str
    """One of 43, a configuration name: `portuguese`. XL-Sum's `pidgin` and `serbian_latin` have no row."""
    mkqa: str
    """One of 26. `zh_hk`, Chinese (Hong Kong), is Cantonese here."""
    mgsm: str
    """One of 11."""
    xquad: str
    """One of 12."""
    mmlu: str
    """English and the seven human translations, `mmlu_<code>_llama` in lm-evaluation-harness."""
    nusax: str
    """Nine of 12, ISO 639-3. NusaX's Toba Batak, Madurese and Ngaju (`bbc`, `mad`, `nij`) have no row."""
    americas_nli: str
    """Three of ten: Aymara, Guarani and Quechua. The others have no row."""
    kardes_nlu: str
    """One of five. Kardeş-NLU's Uyghur is in Cyrillic letters; here it is in the row of the Arabic script."""
    aliases: tuple[str, ...]
    """More spellings: macrolanguages of ISO 639-3 (`ara`), `nb`, `zh-hant` and the like."""

    @property
    def dotted_i(self) -> bool:
        """The capital of i is İ, and that of ı is I."""
        return self.iso639_3 in DOTTED_I and self.script == "Latn"

    @property
    def code(self) -> str:
        """The shortest code `language` accepts: ISO 639-1, else ISO 639-3, else FLORES-200."""
        if self.iso639_1:
            return self.iso639_1
        return self.iso639_3 if codes().get(self.iso639_3) is self else self.flores


def casefold(text: str, dotted_i: bool = False) -> str:
    """A text in NFC or NFKC without case, to be normalised again; `dotted_i` as in `Language`."""
    if dotted_i:
        text = text.replace("İ", "i").replace("I", "ı")
    return _SOFT_DOT.sub("", text.casefold())


@cache
def languages() -> tuple[Language, ...]:
    """All rows, sorted by FLORES-200 code."""
    with Path(__file__).with_name("languages.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            Language(**row | {"spaces": row["spaces"] == "yes", "aliases": tuple(row["aliases"].split())})
            for row in csv.DictReader(file)
        )


@cache
def codes() -> dict[str, Language]:
    """Every unambiguous code, in the table's own case -> language. Shared: do not change."""
    table: dict[str, Language] = {}
    for entry in languages():
        table |= dict.fromkeys((entry.flores, *entry.aliases), entry)
        if entry.iso639_1:
            table[entry.iso639_1] = entry
        # Two standards have a code for one language: the row of `zh` is also that of `zho`.
        if entry.iso639_1 or len(_variants(entry.iso639_3)) == 1:
            table[entry.iso639_3] = entry
    return table


def language(code: str) -> Language:
    """The language of an ISO 639-1, ISO 639-3 or FLORES-200 code or an alias, of a BCP 47 tag or a name, in any case.

    A tag means a row only if the row has the tag's script, and the tag has no region or the one that CLDR's likely
    subtags give the language in that script: `zh-TW` is `zho_Hant`, `pt-BR` is `por_Latn`.

    Raises:
        ValueError: the table has no such language, or not in this script or region. The message names the nearest rows.
    """
    spelling = str(code).strip().lower()
    if found := _by_lowercase().get(spelling) or _by_name().get(spelling) or _of_tag(str(code).strip()):
        return found
    problem = f'language "{code}" is not in the table'
    if variants := _variants(spelling):
        raise ValueError(f'language "{code}" has several scripts: write {_or(entry.flores for entry in variants)}')
    if spelling == "false":
        raise ValueError(f'{problem}: YAML reads a bare no as false, write "no" in quotes')
    if near := _suggestions(spelling):
        raise ValueError(f"{problem}; did you mean {_or(f'{entry.code} ({entry.name})' for entry in near)}?")
    raise ValueError(f"{problem}: write an ISO 639-1, ISO 639-3 or FLORES-200 code, like th or tha")


@cache
def sets() -> dict[str, list[str]]:
    """Name -> codes."""
    text = Path(__file__).with_name("language_sets.yaml").read_text(encoding="utf-8")
    return {name: codes.split() for name, codes in yaml.safe_load(text).items()}


def targets(given: object) -> dict[str, str]:
    """Code in the table's spelling -> FLORES code.

    Args:
        given: a language as in `language`, the name of a set, or a list of both.

    Raises:
        ValueError: `given` is something else or empty; the table has no such language.
    """
    found: dict[str, str] = {}
    for name in given if isinstance(given, list | tuple) else [given]:
        if not isinstance(name, str | bool):
            raise ValueError("give a language, lang=th, a list, lang=[th,sw], or a set, lang=stt4")
        for code in sets().get(str(name), [str(name)]):
            entry = language(code)
            found[code if code in codes() else entry.code] = entry.flores
    if not found:
        raise ValueError("names no target language; give one or more, such as lang=th or lang=[th,sw]")
    return found


def _or(choices: Iterable[str]) -> str:
    return " or ".join(choices)


def _of_tag(text: str) -> Language | None:
    """The row of a BCP 47 tag, also with deprecated subtags; None for other texts and for languages without a row.

    Raises:
        ValueError: the table has the language, but not in the script, region or variant of the tag.
    """
    tag = _parsed(text)
    if tag is None or tag.language in (None, text.lower()):
        return None
    standard = _by_lowercase().get(tag.language)
    rows = _variants(standard.iso639_3 if standard else tag.language)
    if not rows:
        return None
    usual = _parsed(tag.language).maximize().script  # type: ignore[union-attr]
    script: str | None = tag.script or (tag.maximize().script if tag.territory else usual)
    of_script = [standard] if standard and script == usual else [row for row in rows if row.script == script]
    if not of_script:
        scripts = _or(f"{row.code} ({row.script})" for row in rows)
        raise ValueError(f'language "{text}": the table does not have it in the script {script}; it has {scripts}')
    if (found := _by_region().get((tag.language, tag.territory))) and found.script == script:
        return found
    extra = [*(tag.variants or ()), *(tag.extensions or ()), *([tag.private] if tag.private else ())]
    likely = _parsed(f"{tag.language}-{script}").maximize().territory  # type: ignore[union-attr]
    if extra or tag.territory not in (None, likely):
        near = dict.fromkeys((*of_script, *_neighbours(of_script[0], tag.territory)))
        variety = f"with {'-'.join(extra)}" if extra else f"for the region {tag.territory}"
        choice = _or(f"{row.code} ({row.name})" for row in near)
        raise ValueError(f'language "{text}": the table does not have it {variety}; write {choice}')
    return of_script[0]


def _parsed(text: str) -> "langcodes.Language | None":
    import langcodes

    try:
        return langcodes.Language.get(text)
    except ValueError:
        return None


@cache
def _by_region() -> dict[tuple[str | None, str | None], Language]:
    """(language, region) -> row that is, in CLDR, the variety of a language in a region: `prs` is `fa-AF`."""
    tags = ((_parsed(entry.iso639_3), entry) for entry in languages())
    return {(tag.language, tag.territory): entry for tag, entry in tags if tag and tag.territory}


def _neighbours(of: Language, territory: str | None) -> list[Language]:
    """Languages of a region that share a word of their names: Yue Chinese for Chinese in Hong Kong."""
    words = set(_name(of).split())
    return [
        entry
        for entry in languages()
        if words & set(_name(entry).split())
        and (tag := _parsed(entry.iso639_3))
        and tag.maximize().territory == territory
    ]


def _name(entry: Language) -> str:
    """The English name in lowercase, without brackets."""
    return entry.name.split(" (")[0].lower()


@cache
def _by_name() -> dict[str, Language]:
    """Names that only one row has: in English, with and without brackets, and its own -> row."""
    table: dict[str, set[Language]] = {}
    for entry in languages():
        for name in {entry.name.lower(), _name(entry), entry.native_name.lower()}:
            table.setdefault(name, set()).add(entry)
    return {name: next(iter(rows)) for name, rows in table.items() if len(rows) == 1}


def _variants(iso639_3: str) -> tuple[Language, ...]:
    return tuple(entry for entry in languages() if entry.iso639_3 == iso639_3)


@cache
def _by_lowercase() -> dict[str, Language]:
    return {spelling.lower(): entry for spelling, entry in codes().items()}


def _suggestions(spelling: str) -> list[Language]:
    """At most three languages with a code or a name close to the spelling, the nearest first."""
    spelled: dict[str, list[Language]] = {}
    # Standard varieties first: "arabic" is a word of ten names, and mostly means `ar`.
    for entry in sorted(languages(), key=lambda entry: not entry.iso639_1):
        names = {_name(entry), entry.native_name.lower()}
        words = {word for name in names for word in name.split()}
        for text in names | words | {entry.code, entry.iso639_3, entry.flores.lower()}:
            spelled.setdefault(text, []).append(entry)
    near = [spelling] if spelling in spelled else difflib.get_close_matches(spelling, spelled, n=3, cutoff=0.7)
    return list(dict.fromkeys(entry for text in near for entry in spelled[text]))[:3]
