"""SDRRL: self-distillation from resource-rich languages (Zhang et al., arXiv 2402.12204, section 3).

The LLM theta answers instructions in the resource-rich language L itself; instructions and answers are translated into
the target language T; fine-tuning theta on the pairs teaches it to say in T what it can say in L. No gold answers are
used. Code-switched instructions and a small external parallel corpus tie the languages together.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.config import Config, MethodConfig
from sdx.data import dictionaries
from sdx.data.code_switching import code_switch_rows
from sdx.data.mixture import weigh
from sdx.data.translation_instructions import complete_rows, translate_rows
from sdx.languages import Language
from sdx.methods.base import Directions, Method, Run, corpus_texts, directed, pairs, texts
from sdx.options import fields
from sdx.store.estimate import ROWS
from sdx.store.files import rows_in
from sdx.store.step import Step


class AnswerLanguageHint(str, Enum):
    """Which prompts name the language of the answer: none, those of `tl` and `lt`, or those of all questions."""

    none = "none"
    cross = "cross"
    all = "all"


@dataclass
class Subsets(Directions):
    """Weight of each kind of pair; the answers y are a, the model's own."""

    cs: float = fields.number(1.0, at_least=0, at_most=1000)
    """x_L with some words in T -> a_L; needs a `dictionary`. That the answer is in L: ours."""
    translate: float = fields.number(1.0, at_least=0, at_most=1000)
    """p_L -> p_T and p_T -> p_L, asked for as a translation; needs a `parallel` corpus."""
    complete: float = fields.number(1.0, at_least=0, at_most=1000)
    """The beginning of p_T, in half of the rows after p_L -> its rest; needs a `parallel` corpus."""


@dataclass
class CodeSwitching:
    """How much of the instructions is code-switched. The paper names neither figures nor a tool: ours."""

    sentence_ratio: float = fields.number(0.5, at_least=0, at_most=1)
    """Share of the instructions that get a code-switched version."""
    word_ratio: float = fields.number(0.3, at_least=0, at_most=1)
    """Share of an instruction's words that are replaced, of those in the dictionary."""


@dataclass
class SDRRLConfig(MethodConfig):
    subsets: Subsets = field(default_factory=Subsets)
    """The kinds of pairs (section 3)."""
    code_switching: CodeSwitching = field(default_factory=CodeSwitching)
    """For the subset `cs`."""
    answer_language_hint: AnswerLanguageHint = AnswerLanguageHint.cross
    """"Answer in Thai." on a line of its own. `cross` is ours: without it `tl` teaches to answer Thai in English."""


class SDRRL(Method[SDRRLConfig]):
    version = 2
    samples = True

    def check(self, run: Run) -> None:
        weights = asdict(self.options.subsets)
        if not any(self._uses(run, name) for name in weights):
            raise InputError(
                "method.subsets leaves nothing to train on; give at least one subset a weight above 0 (cs needs a "
                "dictionary, translate and complete a parallel corpus)"
            )
        if self._uses(run, "tl", "lt", "tt"):
            run.check_translator()

    def compared_with(self, config: Config) -> list[str]:
        return ["method=translate_sft"]

    def model(self, run: Run) -> Step:
        answers = run.answers()  # a_L = theta(x_L)
        inputs = {"x_L": run.corpus}
        if self._uses(run, "ll", "tl", "lt", "tt", "cs"):
            inputs["a_L"] = run.good_answers(answers)
        for target in run.targets:
            if self._uses(run, "tl", "tt"):  # x_T = MT(x_L)
                inputs[f"x_{target.code}"] = run.translation(run.corpus, "train.jsonl", "instruction", target)
            if self._uses(run, "lt", "tt"):  # a_T = MT(a_L)
                inputs[f"a_{target.code}"] = run.translation(answers, "rows.jsonl", "text", target)
            if self._uses(run, "cs"):
                inputs[f"words_{target.code}"] = run.dictionary(target)
            if self._uses(run, "translate", "complete"):
                inputs[f"p_{target.code}"] = run.parallel(run.source, target)
        options = {
            "subsets": asdict(self.options.subsets),
            "code_switching": asdict(self.options.code_switching),
            "answer_language_hint": self.options.answer_language_hint.value,
            "languages": [run.source.flores, *(target.flores for target in run.targets)],
        }
        return run.training(run.mix(partial(self.pairs, run), inputs, options, self.version))

    def pairs(self, run: Run, inputs: Mapping[str, Path], seed: int) -> Iterator[dict[str, Any]]:
        """All subsets in all target languages. A subset leaves out questions that lack one of its sides."""
        source = run.source
        x = corpus_texts(inputs["x_L"], "instruction", source)
        a = texts(inputs.get("a_L"), source, run.config.backbone.name)
        x_t, a_t = {}, {}
        for t in run.targets:
            mt = run.translator.for_pair(source.flores, t.flores).name
            x_t[t], a_t[t] = (texts(inputs.get(f"{side}_{t.code}"), t, mt) for side in "xa")
        subsets: dict[str, Callable[[Language], Iterable[dict[str, Any]]]] = {
            "tl": lambda t: pairs("tl", x_t[t], a),
            "lt": lambda t: pairs("lt", x, a_t[t], within=a),
            "tt": lambda t: pairs("tt", x_t[t], a_t[t], within=a),
            "cs": lambda t: self._code_switched(pairs("cs", x, a, t.code), inputs[f"words_{t.code}"], t, seed),
            "translate": lambda t: translate_rows(rows_in(inputs[f"p_{t.code}"] / ROWS), source, t),
            "complete": lambda t: complete_rows(rows_in(inputs[f"p_{t.code}"] / ROWS), source, t),
        }
        weights = asdict(self.options.subsets)
        yield from map(self._hinted, weigh(pairs("ll", x, a), weights["ll"], seed))
        for name, rows in subsets.items():
            for t in run.targets if self._uses(run, name) else ():
                yield from map(self._hinted, weigh(rows(t), weights[name], seed))

    def _uses(self, run: Run, *subsets: str) -> bool:
        """Whether one of the subsets has a weight and its data."""
        there = {"cs": run.has_dictionary, "translate": run.has_parallel, "complete": run.has_parallel}
        return any(getattr(self.options.subsets, name) > 0 and there.get(name, True) for name in subsets)

    def _code_switched(
        self, rows: Iterable[dict[str, Any]], dictionary: Path, target: Language, seed: int
    ) -> Iterable[dict[str, Any]]:
        ratios, words = self.options.code_switching, dictionaries.load(dictionary / ROWS)
        return code_switch_rows(rows, "prompt", words, ratios.sentence_ratio, ratios.word_ratio, str(seed), target)

    def _hinted(self, row: dict[str, Any]) -> dict[str, Any]:
        hinted = {
            AnswerLanguageHint.none: (),
            AnswerLanguageHint.cross: ("tl", "lt"),
            AnswerLanguageHint.all: ("ll", "tl", "lt", "tt", "cs"),
        }
        return directed(row) if row["subset"] in hinted[self.options.answer_language_hint] else row


SCHEMAS = {"sdrrl": SDRRLConfig}
