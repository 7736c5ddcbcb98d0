"""CIT: cross-lingual instruction tuning (Li et al. 2023, arXiv 2311.08089), as a baseline of SDRRL.

The gold answers of an instruction corpus take the place of the LLM's own answers in SDRRL. Instruction and answer are
in one language or in two; if in two, the instruction names the language of the answer.

    what                                                          whose
    x_T -> y_L and x_L -> y_T, the answer's language named        the paper's (second-hand: it was not read in full)
    x_L -> y_L and x_T -> y_T beside them                         the paper's (second-hand)
    equal weights of the four kinds                               ours
    the wording, "Answer in Thai.", on a line of its own          ours, that of SDRRL
    instructions and answers in T are machine-translated          ours: of a corpus that has L alone
    filters of translations                                       ours, those of SDRRL
    the contrastive half of the paper (AFP)                       not here; see `mid_align` for another one
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.config import MethodConfig
from sdx.data.mixture import weigh
from sdx.methods.base import Directions, Method, Run, Text, corpus_texts, directed, pairs, texts
from sdx.store.step import Step


@dataclass
class CITConfig(MethodConfig):
    subsets: Directions = field(default_factory=Directions)
    """The answers y are the corpus's gold answers."""


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
                inputs[f"x_{target.code}"] = run.translation(run.corpus, "train.jsonl", "instruction", target)
            if self._uses("lt", "tt"):  # y_T = MT(y_L)
                inputs[f"y_{target.code}"] = run.translation(run.corpus, "train.jsonl", "answer", target)
        languages = [run.source.flores, *(target.flores for target in run.targets)]
        options = {"subsets": asdict(self.options.subsets), "languages": languages}
        return run.training(run.mix(partial(self.pairs, run), inputs, options, self.version))

    def pairs(self, run: Run, inputs: Mapping[str, Path], seed: int) -> Iterator[dict[str, Any]]:
        """All subsets in all target languages. A subset leaves out questions that lack one of its sides."""
        source = run.source
        x, y = (corpus_texts(inputs["x_L"], name, source) for name in ("instruction", "answer"))
        x_t, y_t = list[Mapping[str, Text]](), list[Mapping[str, Text]]()
        for target in run.targets:
            mt = run.translator.for_pair(source.flores, target.flores).name
            for side, translated in ("x", x_t), ("y", y_t):
                translated.append(texts(inputs.get(f"{side}_{target.code}"), target, mt))
        subsets = {
            "ll": [(x, y)],
            "tl": [(asked, y) for asked in x_t],
            "lt": [(x, answered) for answered in y_t],
            "tt": zip(x_t, y_t, strict=True),
        }
        for name, sides in subsets.items():
            for asked, answered in sides:
                rows = weigh(pairs(name, asked, answered), getattr(self.options.subsets, name), seed)
                yield from rows if name in ("ll", "tt") else map(directed, rows)

    def _uses(self, *subsets: str) -> bool:
        return any(getattr(self.options.subsets, name) > 0 for name in subsets)


SCHEMAS = {"cit": CITConfig}
