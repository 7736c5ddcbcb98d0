"""Apertium: rule-based translation by the `apertium` command and the language data that are installed with it.

It translates thousands of sentences a second on a CPU, mostly between close languages (Spanish and Catalan, Swedish and
Danish). Debian has a package for each pair, such as apertium-eng-spa; see wiki.apertium.org.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import regex

from sdx import InputError
from sdx.languages import codes, language
from sdx.store.files import write_json
from sdx.store.step import Step, Workspace
from sdx.text import segment
from sdx.translation.base import Translator

INSTALL = "install apertium and the data of the pair, on Debian for instance apt-get install apertium-eng-spa"
NO_COMMAND = f"needs a command that is not installed: {INSTALL}"


@dataclass(frozen=True, eq=False)
class ApertiumData(Step):
    """Publishes which data of a pair are installed."""

    name = "translator"
    brings_model = True

    mode: str
    sha256: str

    def run(self, work: Workspace) -> None:
        write_json(work.dir / "source.json", dict(self.config))


class Apertium(Translator):
    """Deterministic. A word's inflection may depend on the sentence before, because one process takes all sentences."""

    name = "apertium"
    is_remembered = False
    core_tokens_per_s = 12_000.0
    """1,200 sentences a second on two cores."""

    @cached_property
    def version(self) -> str:
        """Of the engine; the rules and dictionaries of a pair count through `needs`."""
        return f"{_run(['-V']).strip()}, segments {segment.VERSION}"

    def why_unsupported(self, source: str, target: str) -> str | None:
        if shutil.which("apertium") is None:
            return NO_COMMAND
        if _mode(source, target):
            return None
        names = " to ".join(f"{entry.name} ({entry.iso639_3})" for entry in (language(source), language(target)))
        installed = ", ".join(sorted(_modes())) or "none"
        return f"has no data for {names}, only {installed}; {INSTALL}, or give another translator or lang"

    def needs(self, source: str, target: str) -> Mapping[str, Step]:
        mode = self._checked_mode(source, target)
        return {"translator": ApertiumData(mode.stem, _digest(mode))}

    def translate_sentences(self, sentences: list[str], source: str, target: str) -> list[str]:
        return _translate(sentences, self._checked_mode(source, target))

    def _checked_mode(self, source: str, target: str) -> Path:
        self.check(source, target)
        mode = _mode(source, target)
        assert mode
        return mode


def _translate(sentences: list[str], mode: Path) -> list[str]:
    """The engine's output for each sentence. A blank line ends a segment, U+FFFF the whole input."""
    text = "\n\n".join(" ".join(sentence.replace("\uffff", " ").split()) for sentence in sentences)
    # -u: unknown words stay as they are, without a mark.
    outputs = _run(["-d", str(mode.parent.parent), "-u", mode.stem], text).split("\n\n")
    if len(outputs) != len(sentences):
        raise InputError(f"apertium {mode.stem} returned {len(outputs)} segments of {len(sentences)}; {INSTALL}")
    return [_cased(output.strip(), sentence) for output, sentence in zip(outputs, sentences, strict=True)]


def _cased(output: str, sentence: str) -> str:
    """`output` with a small first letter if the source has one: Apertium begins every segment with a capital."""
    if sentence[:1].islower() and output[:1].isupper() and not output[1:2].isupper():
        return output[0].lower() + output[1:]
    return output


def _run(arguments: list[str], text: str = "") -> str:
    # The command looks for a UTF-8 locale itself and sets LC_CTYPE, which LC_ALL would override.
    environment = {name: value for name, value in os.environ.items() if name != "LC_ALL"}
    command = ["apertium", *arguments]
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, env=environment)
    except FileNotFoundError:
        raise InputError(f"translator=apertium {NO_COMMAND}") from None
    if done.returncode:
        errors = done.stderr.decode(errors="replace").strip().splitlines()
        reason = errors[-1] if errors else f"exit status {done.returncode}"
        raise InputError(f"{' '.join(command)} failed ({reason}); {INSTALL}")
    return done.stdout.decode(errors="replace")


def _modes() -> dict[str, Path]:
    """Name -> file of each installed direction, from where the command itself looks."""
    command = Path(shutil.which("apertium") or "apertium").resolve()
    data = Path(os.environ.get("APERTIUM_DATADIR") or command.parent.parent / "share" / "apertium")
    return {mode.stem: mode for mode in (data / "modes").glob("*.mode")}


def _mode(source: str, target: str) -> Path | None:
    """`eng-spa.mode` for English to Spanish; older pairs are named by two letters, `en-es.mode`."""
    modes = _modes()
    names = (f"{s}-{t}" for s in _codes(source) for t in _codes(target))
    return next((modes[name] for name in names if name in modes), None)


def _codes(flores: str) -> list[str]:
    """The codes that mean only this language, three letters before two."""
    found = (code for code, entry in codes().items() if entry is language(flores))
    return sorted(found, key=lambda code: (len(code) != 3, code))


def _digest(mode: Path) -> str:
    """Hash over a mode's pipeline and the files that it names."""
    digest = sha256(pipeline := mode.read_bytes())
    for name in regex.findall(r"'([^']+)'", pipeline.decode()):
        if (file := mode.parent / name).is_file():  # `name` itself if that is absolute
            digest.update(file.read_bytes())
    return digest.hexdigest()
