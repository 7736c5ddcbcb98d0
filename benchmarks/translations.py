"""What self-translation costs with the examples computed once and with each sentence, in one process."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import wait_for_device
from sdx.config import Precision, TemplateKind
from sdx.generation.base import Stop
from sdx.generation.hf import HFGenerator
from sdx.offline.assets import AssetStep
from sdx.translation.base import TranslationContext
from sdx.translation.self_translation import SelfTranslation

REUSED, PLAIN = "examples once", "with each sentence"
WARM_UP = 4
"""Texts translated before the clock runs."""


class Counted(HFGenerator):
    """Counts what the model is given and what it writes.

    Args:
        reuse: keeps the states of a shared beginning.
    """

    def __init__(self, batch_size: int, precision: Precision, reuse: bool) -> None:
        super().__init__(batch_size, precision)
        self.reuse = reuse
        self.restart()

    def restart(self) -> None:
        """Forgets the counts and the states of the examples: each run computes them again."""
        self.sentences = self.written = self.prefill = 0
        if self._source:
            self._ready().prefix = None

    def _note(self, _model: Any, _positional: Any, named: dict[str, Any]) -> None:
        """Counts the tokens of each forward pass but those of a single token a row, padding included."""
        if named["input_ids"].shape[1] > 1:
            self.prefill += named["input_ids"].numel()

    def _answers(
        self, prompts: list[list[int]], stop: Stop, limits: Sequence[int], beginning: list[int], *rest: Any
    ) -> list[list[int]]:
        counting = self._ready().model.register_forward_pre_hook(self._note, with_kwargs=True)
        answers = super()._answers(prompts, stop, limits, beginning if self.reuse else [], *rest)
        counting.remove()
        self.sentences += len(prompts)
        self.written += sum(map(len, answers))
        return answers


def measure(
    place: str, texts: list[str], pair: tuple[str, str], precision: str, batch_size: int, shots: int, rounds: int
) -> dict[str, Any]:
    """Both ways in turns, with the same model.

    Args:
        place: holds `model/` and `demonstrations.jsonl`.
        pair: FLORES codes.

    Returns:
        `runs`: for each way and round `way`, `seconds`, `sentences` asked of the model, which is more than once for
        one that lost a number, `written` tokens, `prefill` tokens computed, padding included; `equal`: share of the
        texts whose two translations are the same; `repeatable`: whether all rounds of one way wrote the same; `device`.
    """
    import torch

    translators, model = {}, AssetStep("smollm2_135m")
    for way in (REUSED, PLAIN):
        generator = Counted(batch_size, Precision(precision), way == REUSED)
        translator = SelfTranslation(shots, None, "\n\n")
        translator.attach(
            TranslationContext(model, TemplateKind.auto, generator, lambda *_: model, None)  # `prepare` has both
        )
        translator.prepare({"translator": Path(place), "demonstrations": Path(place)})
        translator.translate(texts[:WARM_UP], *pair)
        translators[way] = translator, generator
    runs, outputs = [], {way: [] for way in translators}
    for number in range(1, rounds + 1):
        for way, (translator, generator) in translators.items():
            generator.restart()
            wait_for_device()
            began = time.perf_counter()
            translated = translator.translate(texts, *pair)
            wait_for_device()
            seconds = time.perf_counter() - began
            outputs[way].append(translated)
            counts = {name: getattr(generator, name) for name in ("sentences", "written", "prefill")}
            runs.append({"way": way, "round": number, "seconds": seconds, **counts})
    return {
        "runs": runs,
        "equal": sum(map(str.__eq__, outputs[REUSED][0], outputs[PLAIN][0])) / len(texts),
        "repeatable": all(outputs[way][0] == again for way in outputs for again in outputs[way]),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
    }
