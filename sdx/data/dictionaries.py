"""Bilingual dictionaries for code-switching: packaged ones, the user's, or word pairs from the parallel corpus."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.config import DictionaryConfig
from sdx.data.dictionary_formats import Pairs, dictionary_rows, read_cldr, read_muse
from sdx.data.word_pairs import word_pairs
from sdx.languages import Language
from sdx.offline.assets import AssetStep
from sdx.options.source import check_exclusive
from sdx.sources.files import LocalFile, check_per_target, local_file
from sdx.store.estimate import ROWS, WORD, Estimate, Plan, Rows
from sdx.store.files import read_rows, write_rows
from sdx.store.step import Step, Workspace, optional, runtime

Dictionary = Mapping[str, Sequence[str]]
"""Folded word of L (see `dictionary_formats.fold`) -> its translations into T, the best first."""
CLDR = """
    af ak am ar as az ba be bg bn bs ca cs cy da de el es et eu fa fi fo fr ga gd gl gu ha he hi hr hu hy id ig
    is it ja jv ka kk km kn ko ky lb lo lt lv mi mk ml mn mr ms mt my ne nl nn no nso om or pa pl ps pt qu ro ru
    rw sc sd shn si sk sl so sq sr sv sw ta te tg th ti tk tl tn tr ug uk ur uz vi wo xh yo yue zh zho_Hant zu
"""
"""Codes of our languages with 200 words or more in CLDR."""
ALTERNATIVES = "choose another dictionary=..., or dictionary=muse dictionary.path=FILE, or dictionary=none"


def check(config: DictionaryConfig, source: Language, targets: Sequence[Language], has_parallel: bool) -> None:
    """Raises InputError for options that name no usable dictionary. Reads the user's file and fetches nothing."""
    check_exclusive({f"dictionary.{key}": getattr(config, key) for key in ("asset", "path", "from_parallel")})
    if config.from_parallel and not has_parallel:
        raise InputError(
            "dictionary.from_parallel=true has no parallel corpus to take words from; "
            "add parallel=offline, choose another dictionary=... or give dictionary=none"
        )
    if config.asset:
        _check_packaged(config.asset, source, targets)
    if config.path is not None:
        check_per_target("dictionary", [config.path], targets)
        for target in targets:
            file = _user_file(config.path, source, target)
            if not list(read_muse(file.source, file.where)):
                raise InputError(f"{file.where} has no entries; each line is a word and its translation")


def dictionary_step(config: DictionaryConfig, parallel: Step | None, source: Language, target: Language) -> Step | None:
    """The dictionary of a pair of languages; None if `config` names none.

    Args:
        config: as `check` passed it.
        parallel: the step that publishes the sentence pairs; only dictionary=parallel needs it.
    """
    step = partial(DictionaryStep, source, target, origin=config.name)
    if config.asset:
        return step({"asset": AssetStep(config.asset)})
    if config.path is not None:
        file = _user_file(config.path, source, target)
        return step({}, sha256=file.sha256, file=file)
    if config.from_parallel:
        assert parallel, "check demands a parallel corpus"
        return step({"parallel": parallel})
    return None


@dataclass(frozen=True, eq=False)
class DictionaryStep(Step):
    """Publishes `rows.jsonl`: `id`, a folded word; `translations`, best first; `origin`."""

    name = "dictionary"
    version = 2
    reads = True

    source: Language
    target: Language
    sources: Mapping[str, Step]
    """A package or sentence pairs; empty for a file."""
    sha256: str | None = optional()
    """Of the user's file."""
    origin: str = runtime()
    file: LocalFile | None = runtime(default=None)

    @property
    def config(self) -> Mapping[str, Any]:
        return {**super().config, "name": self.origin}

    @property
    def about(self) -> str:
        return self.origin

    @property
    def language(self) -> Language:
        return self.target

    def estimate(self, plan: Plan) -> Estimate:
        """Of unknown size; it has the word that texts in stand-ins are made of."""
        return Estimate(files={ROWS: Rows(1, fixed={"id": WORD, "translations": [f"{WORD}s"]})})

    def run(self, work: Workspace) -> None:
        rows = dictionary_rows(self._pairs(work.inputs), self.origin)
        if not rows:
            raise InputError(f"dictionary={self.origin} has no word to use; {ALTERNATIVES}")
        write_rows(work.dir / "rows.jsonl", rows)
        work.counts.update(words=len(rows))

    def _pairs(self, inputs: Mapping[str, Path]) -> Pairs:
        if "asset" in inputs:
            return read_cldr(inputs["asset"], self.target)
        if "parallel" in inputs:
            return word_pairs(read_rows(inputs["parallel"] / "rows.jsonl"), self.source, self.target)
        assert self.file
        pairs = list(read_muse(self.file.source, self.file.where))
        self.file.check_unchanged(self.file.source)
        return pairs


def load(path: Path) -> Dictionary:
    """The dictionary in a step's `rows.jsonl`."""
    return {row["id"]: row["translations"] for row in read_rows(path)}


def _check_packaged(asset: str, source: Language, targets: Sequence[Language]) -> None:
    if asset != "cldr":
        raise InputError(f"dictionary.asset={asset} is not packaged: there is cldr; {ALTERNATIVES}")
    if source.code != "en":
        raise InputError(
            f"dictionary.asset={asset} translates from English only, not from {source.name} (source="
            f"{source.code}); choose dictionary=parallel, or dictionary=muse dictionary.path=FILE, or dictionary=none"
        )
    if lacking := [f"{target.name} ({target.code})" for target in targets if target.code not in CLDR.split()]:
        has = " ".join(CLDR.split())
        raise InputError(f"dictionary.asset={asset} lacks {' and '.join(lacking)}: it has {has}; {ALTERNATIVES}")


def _user_file(template: str, source: Language, target: Language) -> LocalFile:
    return local_file("dictionary.path", template, {"source": source.code, "target": target.code})
