"""Sentence pairs as training rows: instructions to translate in both directions, and to complete a translation.

SDRRL uses the parallel corpus in both ways (arXiv 2402.12204); the wordings and the cutting are ours. The instructions
are in English whatever the languages, as in the corpora that models are tuned on. A hash of a row's id chooses its
wording and its cut, so the same corpus always gives the same rows.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import regex

from sdx.data.mixture import draw, pair
from sdx.languages import Language

TRANSLATIONS = (
    'How do you say "{text}" in {target}?',
    'What is "{text}" in {target}?',
    'Translate "{text}" from {source} into {target}.',
    'What would "{text}" be in {target}? Give only the translation.',
    'The {source} text "{text}" should appear in {target}. How does it read?',
    'I need "{text}" in {target}, please.',
    'Someone wrote "{text}" in {source}. Say the same thing in {target}.',
    "Translate from {source} into {target}: {text}",
    "{source} to {target}: {text}",
    "Say this in {target}: {text}",
    "Please translate this {source} text into {target}: {text}",
    "Give the {target} for the following {source}: {text}",
    "Translate the following text into {target}.\n\n{text}",
    "Here is something in {source}. Write it in {target}.\n\n{text}",
    "Render this passage in natural {target}:\n{text}",
    "You are a translator from {source} into {target}. Translate this:\n\n{text}",
    "Below is a text in {source}. What does it say in {target}?\n\n{text}",
    "{text}\n\nTranslate the text above into {target}.",
    "{text}\n\nHow would a speaker of {target} put this?",
    "Put the {source} below into {target}, without comments.\n\n{text}",
    "{source}: {text}\n{target}:",
)
"""{source} and {target} are names of languages, {text} is in the source language."""

BEGINNINGS = (
    'A {target} text begins "{prefix}" How does it go on?',
    'Finish this {target} text: "{prefix}"',
    'Write only the rest of this text in {target}: "{prefix}"',
    "Complete this {target} text: {prefix}",
    "Continue in {target}: {prefix}",
    "Continue this text in {target} from where it breaks off.\n\n{prefix}",
    "The following {target} text was cut off. Write what is missing.\n\n{prefix}",
    "Here is the beginning of a text in {target}. Finish it.\n\n{prefix}",
    "What comes next in this {target} text?\n{prefix}",
    "Write the second part of this {target} text. Do not repeat the first.\n\n{prefix}",
)
"""{prefix} is the beginning of a text in the target language."""

HALF_TRANSLATIONS = (
    "Finish the translation from {source} into {target}.\n\n{source}: {text}\n{target}: {prefix}",
    "Here is a text in {source} and the beginning of its translation into {target}. Write the rest of the translation."
    "\n\n{text}\n\n{prefix}",
    "A translator into {target} stopped halfway. Go on where the translation breaks off.\n\n{source} text: {text}\n"
    "Translation so far: {prefix}",
    "{source}:\n{text}\n\n{target}, still to be finished:\n{prefix}",
    "Original in {source}: {text}\nTranslation into {target}, incomplete: {prefix}\nWrite only what is missing.",
    "Complete the {target} so that it says the same as the {source}.\n\n{text}\n\n{prefix}",
    "The {source} text below has been translated into {target} in part. Translate what remains.\n\n{text}\n\n{prefix}",
    "Continue the {target} translation.\n\n{text}\n---\n{prefix}",
)
"""{text} in the source language, {prefix} the beginning of its translation."""

EARLIEST, LATEST = 0.3, 0.7
"""Where a text may be cut, as shares of its characters."""
MIN_WORDS, MIN_CHARACTERS = 4, 16
"""Shorter texts are not cut; characters count where spaces do not separate words."""
LEADING_VOWELS = frozenset("เแโใไເແໂໃໄ")
"""Thai and Lao vowels that are written before a consonant and spoken after it."""
VIRAMA = 9
"""Canonical combining class of the signs that bind the next consonant, such as Khmer's coeng."""
CLUSTER = regex.compile(r"\X")
SPACE = regex.compile(r"\s+")


def translate_rows(rows: Iterable[dict[str, Any]], source: Language, target: Language) -> Iterator[dict[str, Any]]:
    """Two training rows of the subset `translate` for each pair: from the source language and into it.

    Args:
        rows: `rows.jsonl` of `sdx.data.parallel`: id, source, target, origin.
    """
    for row in rows:
        sides = (row["source"], source), (row["target"], target)
        for (text, start), (translation, end) in (sides, sides[::-1]):
            wording = _choose(TRANSLATIONS, text, f"{row['id']}/{start.flores}")
            prompt = wording.format(source=start.name, target=end.name, text=text), start, row["origin"]
            yield pair(row["id"], "translate", prompt, (translation, end, row["origin"]))


def complete_rows(rows: Iterable[dict[str, Any]], source: Language, target: Language) -> Iterator[dict[str, Any]]:
    """A training row of the subset `complete` for each pair whose target can be cut: its beginning -> its rest.

    In half of the rows, by a hash of the id, the source precedes the beginning. Beginning and rest join to the text,
    character for character.
    """
    for row in rows:
        if not (at := cut(row["target"], target, row["id"])):
            continue
        prefix, rest = row["target"][:at], row["target"][at:]
        names = {"source": source.name, "target": target.name, "text": row["source"], "prefix": prefix}
        if draw(f"{row['id']}/with source") < 0.5:
            wording, language = _choose(HALF_TRANSLATIONS, prefix, row["id"]), source
        else:
            wording, language = _choose(BEGINNINGS, prefix, row["id"]), target
        prompt = (wording.format(**names), language, row["origin"])
        yield pair(row["id"], "complete", prompt, (rest, target, row["origin"]))


def cut(text: str, language: Language, key: str) -> int | None:
    """How many characters precede the cut of a text; None if no cut is good.

    The cut is between words, and the space belongs to the first part; in a script without spaces it is between
    syllables, as far as the characters show them. A hash of `key` chooses among the cuts between 30 % and 70 % of the
    text.
    """
    if len(text.split()) < MIN_WORDS if language.spaces else len(text) < MIN_CHARACTERS:
        return None
    first = max(len(text) * EARLIEST, len(text) - len(text.lstrip()) + 1)
    last = min(len(text) * LATEST, len(text.rstrip()) - 1)
    pattern, divides = (SPACE, _between_words) if language.spaces else (CLUSTER, _between_syllables)
    ends = (match.end() for match in pattern.finditer(text))
    allowed = [at for at in ends if first <= at <= last and divides(text, at)]
    return allowed[int(draw(f"{key}/cut") * len(allowed))] if allowed else None


def _between_words(text: str, at: int) -> bool:
    """Whether no mark combines with the space before it."""
    return bool(CLUSTER.match(text, at - 1).end() == at)


def _between_syllables(text: str, at: int) -> bool:
    """Whether the cut is not within a foreign word or a number, or between clusters that belong together."""
    before, after = text[at - 1], text[at]
    if before.isascii() and after.isascii() and before.isalnum() and after.isalnum():
        return False
    return before not in LEADING_VOWELS and unicodedata.combining(before) != VIRAMA and not after.isspace()


def _choose(wordings: Sequence[str], text: str, key: str) -> str:
    """A wording by hash; a text with quotes or several lines does not go between quotation marks."""
    if '"' in text or "\n" in text:
        wordings = [wording for wording in wordings if '"' not in wording]
    return wordings[int(draw(f"{key}/wording") * len(wordings))]
