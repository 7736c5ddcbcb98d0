"""SDRRL: self-distillation from resource-rich languages (Zhang et al., arXiv 2402.12204, section 3).

The LLM theta answers instructions in the resource-rich language L itself; its answers and the instructions are
translated into the target language T; theta is fine-tuned on the pairs, so that what it can say in L it can say in T.
No gold answer is used.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from sdx.artifacts import Step, read_rows
from sdx.config import InputError, MethodConfig
from sdx.data.filters import FILTERS
from sdx.data.mixture import pair, weigh, with_language_hint
from sdx.languages import Language, language
from sdx.methods.base import Cell, Method


class AnswerLanguageHint(str, Enum):
    """Which prompts say in which language to answer: none, those of `tl` and `lt`, or all."""

    none = "none"
    cross = "cross"
    all = "all"


@dataclass
class Subsets:
    """Weight of each kind of pair: 0 leaves it out, 0.5 takes a random half, 2 takes all twice. Equal: ours."""

    ll: float = 1.0
    """x_L -> a_L"""
    tl: float = 1.0
    """x_T -> a_L"""
    lt: float = 1.0
    """x_L -> a_T"""
    tt: float = 1.0
    """x_T -> a_T"""


@dataclass
class SDRRLConfig(MethodConfig):
    subsets: Subsets = field(default_factory=Subsets)
    """The four kinds of pairs (section 3)."""
    answer_language_hint: AnswerLanguageHint = AnswerLanguageHint.cross
    """"Answer in Thai." on a line of its own. `cross` is ours: without it `tl` teaches to answer Thai in English."""
    filters: list[str] = field(default_factory=lambda: list(FILTERS))
    """Reasons to drop an own answer, see `sdx.data.filters`; `[]` keeps all. Ours."""


class SDRRL(Method[SDRRLConfig]):
    version = 1

    def check(self, cell: Cell) -> None:
        weights = asdict(self.options.subsets)
        for name, weight in weights.items():
            if weight < 0:
                raise InputError(f"method.subsets.{name}={weight} is negative; a weight is 0 or more")
        if not any(weights.values()):
            raise InputError("method.subsets has weight 0 everywhere; give at least one subset a weight above 0")
        if unknown := set(self.options.filters) - set(FILTERS):
            raise InputError(f"method.filters has {', '.join(sorted(unknown))}; choose from {', '.join(FILTERS)}")
        cell.check_translator()

    def model(self, cell: Cell) -> Step:
        answers = cell.answers(self.options.filters)  # a_L = theta(x_L)
        inputs = {"x_L": cell.corpus, "a_L": answers}
        for target in cell.targets:
            inputs[f"x_{target.code}"] = cell.translation(cell.corpus, "train.jsonl", "instruction", target)
            inputs[f"a_{target.code}"] = cell.translation(answers, "rows.jsonl", "text", target)
        options = {
            "subsets": asdict(self.options.subsets),
            "answer_language_hint": self.options.answer_language_hint.value,
            "languages": [cell.source.flores, *(target.flores for target in cell.targets)],
        }
        return cell.training(cell.mix(partial(self.pairs, cell), inputs, options, self.version))

    def pairs(self, cell: Cell, inputs: Mapping[str, Path], seed: int) -> list[dict[str, Any]]:
        """The mix: for each answered instruction, the pairs of all subsets in all target languages."""
        theta, mt = cell.config.backbone.name, cell.translator.name
        source = cell.source
        x = {row["id"]: (row["instruction"], source, "corpus") for row in read_rows(inputs["x_L"] / "train.jsonl")}
        a = {row["id"]: (row["text"], source, theta) for row in read_rows(inputs["a_L"] / "rows.jsonl")}
        rows: dict[str, list[dict[str, Any]]] = {"ll": [pair(id_, "ll", x[id_], a[id_]) for id_ in a]}
        for target in cell.targets:
            x_t = _texts(inputs[f"x_{target.code}"], target, mt)
            a_t = _texts(inputs[f"a_{target.code}"], target, mt)
            rows.setdefault("tl", []).extend(pair(id_, "tl", x_t[id_], a[id_]) for id_ in a)
            rows.setdefault("lt", []).extend(pair(id_, "lt", x[id_], a_t[id_]) for id_ in a)
            rows.setdefault("tt", []).extend(pair(id_, "tt", x_t[id_], a_t[id_]) for id_ in a)
        weights = asdict(self.options.subsets)
        return [self._hinted(row) for name in rows for row in weigh(rows[name], weights[name], seed)]

    def _hinted(self, row: dict[str, Any]) -> dict[str, Any]:
        hint = self.options.answer_language_hint
        crosses = row["prompt_language"] != row["response_language"]
        if hint is AnswerLanguageHint.all or (hint is AnswerLanguageHint.cross and crosses):
            return {**row, "prompt": with_language_hint(row["prompt"], language(row["response_language"]))}
        return row


def _texts(directory: Path, target: Language, translator: str) -> dict[str, tuple[str, Language, str]]:
    return {row["id"]: (row["text"], target, translator) for row in read_rows(directory / "rows.jsonl")}


SCHEMAS = {"sdrrl": SDRRLConfig}
