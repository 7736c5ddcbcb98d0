"""A step: a unit of work with a content-addressed output directory."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


@dataclass
class Workspace:
    """Where a step works: its own directory, its inputs' directories, and what it counts for the manifest."""

    dir: Path
    inputs: Mapping[str, Path]
    counts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Step:
    """A unit of work with a content-addressed output directory.

    Args:
        name: kind of step; the first part of its path.
        run: writes the output into `Workspace.dir`. Called again after an interruption with what is there.
        config: everything that decides the output beside the inputs; must be JSON.
        inputs: steps whose outputs `run` reads.
        version: of the code of `run`; raise it when the same config must give another output.
        collective: every rank runs it (training); otherwise rank 0 does and the others wait.
        hub: what `run` fetches from the hub; in no key.
        path: the user's file that `run` copies; in no key.
        check: raises InputError for what it brings from outside, before the run begins.
    """

    name: str
    run: Callable[[Workspace], None]
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, "Step"] = field(default_factory=dict)
    version: int = 1
    collective: bool = False
    hub: object | None = None
    path: Path | None = None
    check: Callable[[], None] = lambda: None

    @property
    def identity(self) -> dict[str, Any]:
        """What the key is the hash of."""
        inputs = {name: step.key for name, step in self.inputs.items()}
        return {"name": self.name, "version": self.version, "config": self.config, "inputs": inputs}

    @cached_property
    def key(self) -> str:
        canonical = json.dumps(self.identity, sort_keys=True, ensure_ascii=False)
        return sha256(canonical.encode()).hexdigest()[:16]
