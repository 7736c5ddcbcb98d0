"""The models that a stack is made of: their names in its config, and where their files are."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdx.artifacts import Store, read_json
from sdx.config import BackboneConfig, EncoderConfig, InputError
from sdx.models.assets import packages
from sdx.models.backbone import backbone_step
from sdx.models.encoder import encoder_step


@dataclass(frozen=True)
class Part:
    """An encoder or an LLM: exactly one of `asset` (with `packages`), `hub_id` (with `revision`) and `path`."""

    asset: str | None = None
    hub_id: str | None = None
    revision: str | None = None
    path: str | None = None
    packages: Sequence[str] = ()
    """Of an asset, with their versions."""
    adapters: Sequence[str] = ()
    """Of an LLM: what is merged into it, as in `BackboneConfig`."""
    prefix: str = ""
    """Of an encoder: what is put before every text."""

    @classmethod
    def of(cls, step_dir: Path, prefix: str = "") -> "Part":
        """What the step of a backbone or an encoder published."""
        source = read_json(step_dir / "source.json")
        named = {key: source.get(key) for key in ("asset", "hub_id", "revision", "path")}
        return cls(**named, packages=source.get("packages", ()), adapters=source.get("adapters", ()), prefix=prefix)

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "Part":
        """From the config of a stack."""
        return cls(**config)

    def written(self) -> dict[str, Any]:
        """For the config of a stack."""
        return {name: value for name, value in asdict(self).items() if value}


def directory(kind: str, part: Part, given: Mapping[str, Path] | None) -> Path:
    """The part's files, fetched into the artifact cache where they are not there.

    Args:
        kind: "encoder" or "llm".
        given: directories by kind that are taken instead.

    Raises:
        InputError: they cannot be had.
    """
    if given and kind in given:
        return given[kind]
    asset, hub_id, revision, path = part.asset, part.hub_id, part.revision, part.path
    if asset and part.packages and list(part.packages) != (here := packages(asset)):
        raise InputError(
            f"the stack was trained on {asset} of {' '.join(part.packages)}, and this sdx has {' '.join(here)}; take "
            "the sdx that trained it, or give parts={...}"
        )
    if kind == "encoder":
        step = encoder_step(EncoderConfig(kind, asset, hub_id, revision, path))
    else:
        step = backbone_step(BackboneConfig(kind, asset, hub_id, revision, path, list(part.adapters)))
    return Store.shared().realise(step) / "model"
