"""Adapters that somebody else trained, merged into a backbone once: LLM2Vec's, for instance."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.models.hub import FILES, SAFETENSORS, directory_step, hub_step, local
from sdx.models.loading import pretrained
from sdx.process.quiet import quiet
from sdx.store.files import read_json, write_json
from sdx.store.step import PlainStep, Step, Workspace

ON_HUB = re.compile(r"(?P<hub_id>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OFFLINE = "offline, give a local copy's directory in backbone.adapters"
WRAPPED = "base_model.model."
"""What PEFT puts in front of the names of the model that it was given."""
PART = re.compile(r"\.(lora_\w+|modules_to_save)\b.*$|\.(weight|bias)$")
"""What stands behind the name of a module."""


def check(adapters: Sequence[str]) -> None:
    """Raises InputError for one that cannot be merged. Loads nothing and asks no network."""
    for adapter in adapters:
        if ON_HUB.fullmatch(adapter):
            continue
        directory, where = local(adapter), f"backbone.adapters=[{adapter}]"
        if not directory.is_dir():
            raise InputError(
                f"{where} is no directory; give one, or owner/name@ and the 40 digits of a commit on the hub"
            )
        for name in (CONFIG, WEIGHTS):
            if not (directory / name).is_file():
                raise InputError(f"{where} has no {name}; give a directory that PEFT's save_pretrained wrote")


def merged_step(base: Step, adapters: Sequence[str]) -> Step:
    """Publishes what `base` does, with the adapters merged; `base` itself where there are none."""
    if not adapters:
        return base
    names = [f"adapter_{number}" for number in range(1, len(adapters) + 1)]
    inputs = dict(zip(names, map(_adapter_step, adapters), strict=True))

    def run(work: Workspace) -> None:
        _merge(work.inputs["base"] / "model", [work.inputs[name] / "model" for name in names], work.dir / "model")
        source = read_json(work.inputs["base"] / "source.json")
        given = [adapter if ON_HUB.fullmatch(adapter) else str(local(adapter)) for adapter in adapters]
        write_json(work.dir / "source.json", {**source, "adapters": given})

    return PlainStep("backbone", run, {"adapters": len(adapters)}, {"base": base, **inputs})


def _adapter_step(adapter: str) -> Step:
    if found := ON_HUB.fullmatch(adapter):
        step = hub_step("backbone.adapters", found["hub_id"], found["revision"], (SAFETENSORS,), OFFLINE, config=CONFIG)
    else:
        step = directory_step("backbone.adapters", local(adapter))
    return PlainStep("adapter", step.run, step.config, step.inputs, hub=step.hub, check=step.check)


def _merge(base: Path, adapters: Sequence[Path], out: Path) -> None:
    """In the base's own dtype and in memory: 16 GB for 8 billion parameters."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    quiet()
    model = pretrained(AutoModelForCausalLM, base, dtype="auto")
    for adapter in adapters:
        try:
            PeftModel.from_pretrained(_adapted(model, adapter), adapter).merge_and_unload()
        except InputError:
            raise
        except Exception as error:  # PEFT has no class for files that are torn or of another model
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise InputError(
                f"backbone.adapters: {adapter.resolve()} does not fit the backbone ({reason}); copy it again, or give "
                "the adapters of this backbone"
            ) from error
    model.save_pretrained(out)
    for file in (file for pattern in FILES for file in base.glob(pattern)):
        if not (out / file.name).exists() and not file.name.endswith(".index.json"):
            shutil.copy(file, out / file.name)


def _adapted(model: Any, adapter: Path) -> Any:
    """What the adapter was trained on: the causal LM, or the model below its head, as LLM2Vec's are.

    PEFT itself leaves out a weight whose module it does not find, with a warning.

    Raises:
        InputError: neither has all its modules.
    """
    from safetensors import safe_open

    with safe_open(adapter / WEIGHTS, "pt") as weights:
        names = {PART.sub("", name.removeprefix(WRAPPED)) for name in weights.keys()}  # noqa: SIM118
    missing = sorted(names)
    for candidate in (model, model.base_model):
        missing = sorted(names - {name for name, _ in candidate.named_modules()})
        if not missing:
            return candidate
    raise InputError(
        f"backbone.adapters: {adapter.resolve()} has weights for {missing[0]}, which the backbone does not have; give "
        "the adapters of this backbone"
    )
