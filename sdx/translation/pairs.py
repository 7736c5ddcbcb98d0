"""Which languages a translation model's directory translates, and the tokens that name them to it.

NLLB-200, M2M-100, mBART-50   a code before the source, and one that the translation begins with
Marian (OPUS-MT)              one pair, or several targets: a token `>>fra<<` before the source
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sdx import InputError
from sdx.languages import Language, codes
from sdx.models.language_codes import added_tokens, language_code, language_codes
from sdx.store.files import read_json

KINDS = ("m2m_100", "mbart", "marian")
"""Types of models. NLLB-200 is an M2M-100."""
MBART_50 = "MBart50Tokenizer"
TARGET = re.compile(">>(.+)<<")
NAME = re.compile(r"opus-mt-(?:tc-\w+-)?([^-]+)-([^-]+)")
"""Of a directory that holds OPUS-MT: source and target."""


@dataclass(frozen=True)
class Frame:
    """The tokens that name the languages of a pair."""

    before: str | None
    """The first of a source."""
    prefix: str | None
    """What a translation begins with."""


def check_kind(model_dir: Path, what: str) -> None:
    """Raises InputError if the model in a directory, called `what`, is of a type that cannot be told its languages."""
    config = read_json(model_dir / "config.json")
    if (kind := config.get("model_type")) not in KINDS:
        raise InputError(
            f"{what} holds a model of type {kind}; translator=path takes NLLB-200 and M2M-100 (m2m_100), mBART-50 "
            "(mbart) and OPUS-MT (marian)"
        )
    if kind == "mbart" and config.get("tokenizer_class") != MBART_50:
        raise InputError(
            f"{what} holds an mBART whose config.json does not have tokenizer_class={MBART_50}; only mBART-50 has the "
            "language's code before the text"
        )


def frame(model_dir: Path, what: str, source: Language, target: Language) -> Frame | str:
    """The tokens for a pair, or why the model in a directory, called `what`, cannot translate it.

    Raises InputError if the directory's files cannot be read.
    """
    if read_json(model_dir / "config.json").get("model_type") == "marian":
        return _marian(model_dir, what, source, target)
    known = language_codes(model_dir, added_tokens(model_dir)) or set()
    found = {side: language_code(known, side) for side in (source, target)}
    if missing := [side for side, code in found.items() if not code]:
        return why_not(missing, what)
    return Frame(found[source], found[target])


def why_not(missing: Iterable[Language], what: str) -> str:
    names = " and ".join(f"{entry.name} ({entry.flores})" for entry in missing)
    return f"cannot translate {names}: {what} has no code for it; give another translator or lang"


def _marian(model_dir: Path, what: str, source: Language, target: Language) -> Frame | str:
    vocabulary = model_dir / "vocab.json"
    tokens = read_json(vocabulary) if vocabulary.is_file() else added_tokens(model_dir)
    targets = {found[1]: token for token in tokens if (found := TARGET.fullmatch(token))}
    named = [code for code in targets if codes().get(code) is target]
    given, only = _pair(model_dir)
    if not (only or targets):
        fix = 'add "source_lang" and "target_lang" to its tokenizer_config.json'
        return f"does not know which languages {what} translates; {fix}"
    others = ", ".join(sorted({*targets, only} - {""}))
    if not named and codes().get(only) is not target:
        return f"cannot translate into {target.name} ({target.flores}): {what} translates into {others}"
    # A group of languages, such as `mul` or `ROMANCE`, does not say which it has.
    if given in codes() and codes()[given] is not source:
        return f"cannot translate from {source.name} ({source.flores}): {what} translates from {given}"
    return Frame(targets[min(named, key=len)] if named else None, None)


def _pair(model_dir: Path) -> tuple[str, str]:
    """Codes of source and target, or of groups of languages, by the tokenizer's settings or the directory's name."""
    settings = model_dir / "tokenizer_config.json"
    content = read_json(settings) if settings.is_file() else {}
    named = NAME.search(model_dir.resolve().name)
    source, target = named.groups() if named else ("", "")
    return str(content.get("source_lang") or source), str(content.get("target_lang") or target)
