"""CIT: cross-lingual instruction tuning (Li et al. 2023, arXiv 2311.08089), as a baseline of SDRRL.

The gold answers of an instruction corpus take the place of the LLM's own answers in SDRRL: instruction and answer are
in one language or in two, and where they are in two the instruction names the language of the answer.

    what                                                          whose
    x_T -> y_L and x_L -> y_T, the answer's language named        the paper's (second-hand: it was not read in full)
    x_L -> y_L and x_T -> y_T beside them                         the same
    equal weights of the four kinds                               ours
    the wording, "Answer in Thai.", on a line of its own          ours, that of SDRRL
    instructions and answers in T are machine-translated          ours: of a corpus that has L alone
    filters of translations                                       ours, those of SDRRL
    the contrastive half of the paper (AFP)                       not here; see `mid_align` for another one
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.config import MethodConfig
from sdx.data.mixture import weigh, with_language_hint
from sdx.languages import language
from sdx.methods.base import Method, Run, corpus_texts, pairs, texts
from sdx.options import fields
from sdx.store.step import Step


@dataclass
class GoldSubsets:
    """Weight of each kind of pair: 0 leaves it out, 0.5 takes a random half, 2 takes all twice. Equal: ours."""

    ll: float = fields.number(1.0, at_least=0, at_most=1000)
    """x_L -> y_L"""
    tl: float = fields.number(1.0, at_least=0, at_most=1000)
    """x_T -> y_L"""
    lt: float = fields.number(1.0, at_least=0, at_most=1000)
    """x_L -> y_T"""
    tt: float = fields.number(1.0, at_least=0, at_most=1000)
    """x_T -> y_T"""


@dataclass
class CITConfig(MethodConfig):
    subsets: GoldSubsets = field(default_factory=GoldSubsets)
    """The kinds of pairs."""


class CIT(Method[CITConfig]):
    version = 1

    def check(self, run: Run) -> None:
        if not self._uses("ll", "tl", "lt", "tt"):
            raise InputError("method.subsets leaves nothing to train on; give at least one subset a weight above 0")
        if self._uses("tl", "lt", "tt"):
            run.check_translator()

    def model(self, run: Run) -> Step:
        inputs = {"x_L": run.corpus, "y_L": run.corpus}
        for target in run.targets:
            if self._uses("tl", "tt"):  # x_T = MT(x_L)
                x_t = run.translation(run.corpus, "train.jsonl", "instruction", target)
                inputs[f"x_{target.code}"] = run.good_translations(x_t, target)
            if self._uses("lt", "tt"):  # y_T = MT(y_L)
                y_t = run.translation(run.corpus, "train.jsonl", "answer", target)
                inputs[f"y_{target.code}"] = run.good_translations(y_t, target)
        languages = [run.source.flores, *(target.flores for target in run.targets)]
        options = {"subsets": asdict(self.options.subsets), "languages": languages}
        return run.training(run.mix(partial(self.pairs, run), inputs, options, self.version))

    def pairs(self, run: Run, inputs: Mapping[str, Path], seed: int) -> list[dict[str, Any]]:
        """The mix: all subsets in all target languages. A question is left out of those of which it lacks a side."""
        source = run.source
        x, y = (corpus_texts(inputs["x_L"], name, source) for name in ("instruction", "answer"))
        rows = {"ll": pairs("ll", x, y), "tl": [], "lt": [], "tt": []}
        for target in run.targets:
            mt = run.translator.for_pair(source.flores, target.flores).name
            x_t, y_t = (texts(inputs.get(f"{side}_{target.code}"), target, mt) for side in "xy")
            rows["tl"] += pairs("tl", x_t, y)
            rows["lt"] += pairs("lt", x, y_t)
            rows["tt"] += pairs("tt", x_t, y_t)
        weights = asdict(self.options.subsets)
        return [_directed(row) for name in rows for row in weigh(rows[name], weights[name], seed)]

    def _uses(self, *subsets: str) -> bool:
        return any(getattr(self.options.subsets, name) > 0 for name in subsets)


def _directed(row: dict[str, Any]) -> dict[str, Any]:
    """The row, with the language of the answer in the prompt where the prompt is in another one."""
    if row["prompt_language"] == row["response_language"]:
        return row
    return {**row, "prompt": with_language_hint(row["prompt"], language(row["response_language"]))}


SCHEMAS = {"cit": CITConfig}
