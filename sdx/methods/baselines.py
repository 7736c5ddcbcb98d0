"""The baselines, from the same corpus, translations and trainer as the methods they are compared with."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sdx.config import Config, MethodConfig
from sdx.data.mixture import pair
from sdx.methods.base import Method, Run, texts
from sdx.store.files import read_rows
from sdx.store.step import Step


@dataclass
class UntouchedConfig(MethodConfig):
    """No options."""


@dataclass
class SFTConfig(MethodConfig):
    """No options."""


@dataclass
class TranslateSFTConfig(MethodConfig):
    """No options."""


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
        return run.training(run.mix(partial(self.pairs, run), {"corpus": run.corpus}, {}, self.version))

    def pairs(self, run: Run, inputs: Mapping[str, Path], seed: int) -> list[dict[str, Any]]:
        return [
            pair(
                row["id"],
                "gold",
                (row["instruction"], run.source, "corpus"),
                (row["answer"], run.source, "corpus"),
            )
            for row in read_rows(inputs["corpus"] / "train.jsonl")
        ]


class TranslateSFT(Method[TranslateSFTConfig]):
    """`translate_sft`, T-SFT: MT(x_L) -> MT(y_L)."""

    version = 1

    def check(self, run: Run) -> None:
        run.check_translator()

    def model(self, run: Run) -> Step:
        inputs = {}
        for target in run.targets:
            x_t = run.translation(run.corpus, "train.jsonl", "instruction", target)
            y_t = run.translation(run.corpus, "train.jsonl", "answer", target)
            inputs[f"x_{target.code}"] = run.good_translations(x_t, target)
            inputs[f"y_{target.code}"] = run.good_translations(y_t, target)
        return run.training(run.mix(partial(self.pairs, run), inputs, {}, self.version))

    def pairs(self, run: Run, inputs: Mapping[str, Path], seed: int) -> list[dict[str, Any]]:
        rows = []
        for target in run.targets:
            mt = run.translator.for_pair(run.source.flores, target.flores).name
            x, y = (texts(inputs[f"{side}_{target.code}"]) for side in "xy")
            rows += [pair(id_, "gold", (x[id_], target, mt), (y[id_], target, mt)) for id_ in x if id_ in y]
        return rows


SCHEMAS = {"none": UntouchedConfig, "sft": SFTConfig, "translate_sft": TranslateSFTConfig}
