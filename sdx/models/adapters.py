"""Merges given adapters, such as LLM2Vec's, into a backbone."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.models.hub import FILES, SAFETENSORS, DirectoryStep, HubModel, HubModelStep, ModelStep, local
from sdx.models.loading import pretrained
from sdx.store.files import read_json, write_json
from sdx.store.step import Step, Workspace, runtime

HUB_COMMIT = re.compile(r"(?P<hub_id>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
WEIGHT = re.compile(r"\.(lora_\w+|modules_to_save)\b.*$|\.(weight|bias)$")
"""Follows the name of a module in the name of a weight."""


def check(adapters: Sequence[str]) -> None:
    """Raises InputError for an adapter that cannot be merged. Loads nothing and asks no network."""
    for adapter in adapters:
        if HUB_COMMIT.fullmatch(adapter):
            continue
        directory, where = local(adapter), f"backbone.adapters=[{adapter}]"
        if not directory.is_dir():
            raise InputError(
                f"{where} is no directory; give one, or owner/name@ and the 40 digits of a commit on the hub"
            )
        for name in (CONFIG, WEIGHTS):
            if not (directory / name).is_file():
                raise InputError(f"{where} has no {name}; give a directory that PEFT's save_pretrained wrote")


def merged_step(base: Step, adapters: Sequence[str], about: str) -> Step:
    """`base` with the adapters merged; `base` itself if there are none."""
    if not adapters:
        return base
    steps = {f"adapter_{number}": _adapter_step(adapter) for number, adapter in enumerate(adapters, 1)}
    return MergedModel(base, steps, name="backbone", about=about, given=adapters)


@dataclass(frozen=True, eq=False)
class MergedModel(ModelStep):
    """Publishes the model of `base` with the adapters merged."""

    base: Step
    adapters: Mapping[str, Step]
    given: Sequence[str] = runtime()
    """The adapters as the user named them."""

    @property
    def config(self) -> Mapping[str, Any]:
        return {"adapters": len(self.adapters)}

    def run(self, work: Workspace) -> None:
        adapters = [work.inputs[name] / "model" for name in self.adapters]
        _merge(work.inputs["base"] / "model", adapters, work.dir / "model")
        source = read_json(work.inputs["base"] / "source.json")
        given = [adapter if HUB_COMMIT.fullmatch(adapter) else str(local(adapter)) for adapter in self.given]
        write_json(work.dir / "source.json", {**source, "adapters": given})


def _adapter_step(adapter: str) -> Step:
    if found := HUB_COMMIT.fullmatch(adapter):
        hub_id, revision = found["hub_id"], found["revision"]
        offline = "offline, give a local copy's directory in backbone.adapters"
        source = HubModel("backbone.adapters", hub_id, revision, offline, (SAFETENSORS,), CONFIG)
        return HubModelStep(source, name="adapter", about=Path(hub_id).name)
    return DirectoryStep(local(adapter), name="adapter")


def _merge(base: Path, adapters: Sequence[Path], out: Path) -> None:
    """Merges in the base's own dtype, in memory: 16 GB for 8 billion parameters."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = pretrained(AutoModelForCausalLM, base, dtype="auto")
    for adapter in adapters:
        try:
            PeftModel.from_pretrained(_adapted(model, adapter), adapter).merge_and_unload()
        except InputError:
            raise
        except Exception as error:  # PEFT has no class for files that are broken or of another model
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
    """The part that the adapter was trained on: the causal LM, or the model below its head, as with LLM2Vec.

    PEFT itself only warns of a weight whose module it does not find.

    Raises:
        InputError: neither part has all modules of the adapter.
    """
    from safetensors import safe_open

    with safe_open(adapter / WEIGHTS, "pt") as weights:
        # PEFT puts `base_model.model.` in front of the names in the model that it adapts.
        names = {WEIGHT.sub("", name.removeprefix("base_model.model.")) for name in weights.keys()}  # noqa: SIM118
    for candidate in (model, model.base_model):
        missing = sorted(names - {name for name, _ in candidate.named_modules()})
        if not missing:
            return candidate
    raise InputError(
        f"backbone.adapters: {adapter.resolve()} has weights for {missing[0]}, which the backbone does not have; give "
        "the adapters of this backbone"
    )
