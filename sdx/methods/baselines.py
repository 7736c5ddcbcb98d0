"""The baselines, from the same corpus, translations and trainer as the methods they are compared with."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sdx.config import Config, MethodConfig
from sdx.methods.base import Method, Run, corpus_texts, pairs, texts
from sdx.store.step import Step


@dataclass
class UntouchedConfig(MethodConfig):
    pass


@dataclass
class SFTConfig(MethodConfig):
    pass


@dataclass
class TranslateSFTConfig(MethodConfig):
    pass


class Untouched(Method[UntouchedConfig]):
    """`none`: the backbone as it is."""

    def validates(self, config: Config) -> bool:
        return False

    def model(self, run: Run) -> Step:
        return run.backbone


class SFT(Method[SFTConfig]):
    """`sft`: x_L -> gold y_L."""

    version = 1

    def model(self, run: Run) -> Step:
        return run.training(run.mix(partial(gold, run), {"corpus": run.corpus}, {}, self.version))


def gold(run: Run, inputs: Mapping[str, Path], seed: int) -> Iterator[dict[str, Any]]:
    """The training rows x_L -> gold y_L."""
    x, y = (corpus_texts(inputs["corpus"], name, run.source) for name in ("instruction", "answer"))
    return pairs("gold", x, y)


class TranslateSFT(Method[TranslateSFTConfig]):
    """`translate_sft`, T-SFT: MT(x_L) -> MT(y_L)."""

    version = 1

    def check(self, run: Run) -> None:
        run.check_translator()

    def model(self, run: Run) -> Step:
        inputs = {}
        for target in run.targets:
            inputs[f"x_{target.code}"] = run.translation(run.corpus, "train.jsonl", "instruction", target)
            inputs[f"y_{target.code}"] = run.translation(run.corpus, "train.jsonl", "answer", target)
        return run.training(run.mix(partial(self.pairs, run), inputs, {}, self.version))

    def pairs(self, run: Run, inputs: Mapping[str, Path], seed: int) -> Iterator[dict[str, Any]]:
        for target in run.targets:
            mt = run.translator.for_pair(run.source.flores, target.flores).name
            x, y = (texts(inputs[f"{side}_{target.code}"], target, mt) for side in "xy")
            yield from pairs("gold", x, y)


SCHEMAS = {"none": UntouchedConfig, "sft": SFTConfig, "translate_sft": TranslateSFTConfig}
