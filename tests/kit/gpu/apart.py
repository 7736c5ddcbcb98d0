"""What these tests run in a process of its own, by `benchmarks.child.call`; arguments and results are JSON."""

import os
from pathlib import Path
from typing import Any

PROMPTS = [
    "How many legs does a dog have?",
    "a",
    "The quick brown fox jumps over the lazy dog. " * 16,
    "ประเทศไทย ภาษาไทย",
    "Which gas do plants take in? " * 4,
]
"""Of very different lengths: the shorter ones are mostly padding."""


def answers(model_dir: str, precision: str, max_new_tokens: int) -> dict[str, Any]:
    """`HFGenerator.complete` of `PROMPTS` where PyTorch prefers cuDNN's attention, as it does by itself on Hopper.

    Returns:
        Of `batch`, all prompts at once, and `alone`, one after the other: `answers`; `finite`: whether all logits were;
        `first`: those of each answer's first token, `[prompts, vocabulary]`.
    """
    os.environ["TORCH_CUDNN_SDPA_PREFERRED"] = "1"  # read at the first attention
    from sdx.config import Precision, TemplateKind
    from sdx.generation.hf import HFGenerator

    generator = HFGenerator(len(PROMPTS), Precision(precision))
    generator.load(Path(model_dir), TemplateKind.auto)
    steps: list[Any] = []
    generator._ready().model.register_forward_hook(lambda _model, _inputs, output: steps.append(output.logits[:, -1]))
    result = {}
    for way, batches in {"batch": [PROMPTS], "alone": [[prompt] for prompt in PROMPTS]}.items():
        texts, first, finite = [], [], True
        for batch in batches:
            steps.clear()
            texts += [completion.text for completion in generator.complete(batch, max_new_tokens)]
            finite = finite and all(bool(logits.isfinite().all()) for logits in steps)
            first += steps[0].float().tolist()
        result[way] = {"answers": texts, "finite": finite, "first": first}
    return result


def scores(model_dir: str, items: str, work_dir: str, hide_gpus: bool) -> dict[str, Any]:
    """`Score` of a suite in fp32.

    Args:
        items: file of them.
        hide_gpus: scores on the CPU.
    """
    if hide_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    from sdx.store.files import read_rows
    from tests.kit.prompts import Quiz
    from tests.kit.scoring import score

    suite = Quiz("suite", shots=1), read_rows(Path(items))
    return {"results": score(Path(model_dir), *suite, Path(work_dir))}
