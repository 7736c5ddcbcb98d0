"""A step: a unit of work with a content-addressed output directory."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from enum import Enum
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from sdx.languages import Language
from sdx.store.estimate import Estimate, Plan
from sdx.store.hub_source import HubSource

RUNTIME, OPTIONAL = "runtime", "optional"


def runtime(**options: Any) -> Any:
    """A field that does not affect the step's output, such as a batch size or a label, and is not part of its key."""
    return field(metadata={RUNTIME: True}, kw_only=True, **options)


def optional() -> Any:
    """A field that is part of the step's key only if it is not None: adding one keeps the keys of existing steps."""
    return field(metadata={OPTIONAL: True}, kw_only=True, default=None)


@dataclass
class Workspace:
    """Where a step works: its own directory, its inputs' directories, and counts for the manifest."""

    dir: Path
    inputs: Mapping[str, Path]
    counts: dict[str, Any] = field(default_factory=dict)
    cache_dir: Path | None = None
    """The cache directory of the store."""
    workers: int = 1
    """Processes that made the output, for the manifest."""
    by_ray: bool = False
    """Whether a Ray cluster processes the rows of a row step."""


@dataclass(frozen=True, eq=False)
class Step(ABC):
    """A unit of work with a content-addressed output directory.

    A subclass is a frozen dataclass (with `eq=False`) whose fields make its key: a step, or a mapping of names to
    steps, is an input; any other field is configuration, except `runtime()` fields and `optional()` fields that are
    None. A subclass whose key has another form overrides `config` or `inputs`. A field that replaces a property of this
    class, such as `about`, needs a default: otherwise the property itself would be the default.
    """

    name: ClassVar[str]
    """Kind of step; the first part of its path."""
    version: ClassVar[int] = 1
    """Version of `run`; raise it when the same fields must give another output."""
    collective: ClassVar[bool] = False
    """Whether every rank runs the step (training); otherwise rank 0 runs it and the others wait or help."""
    shared: ClassVar[bool] = False
    """Whether the other ranks do a part of the step in `help`."""
    is_data: ClassVar[bool] = True
    """Whether `stages=prepare` makes the step; false if it trains or evaluates a model."""
    trains: ClassVar[bool] = False
    """Whether the step publishes an improved model; it then needs all memory for its own model."""
    reads: ClassVar[bool] = False
    """Whether the step imports or reads data. A run makes such steps, if all their inputs are such, before it computes
    anything: a bad file then shows at once."""
    read_in_plan: ClassVar[bool] = False
    """Whether a plan makes the step, and discards it, if it is made from files of this machine."""
    brings_model: ClassVar[bool] = False
    """Whether the step imports a model. A run makes such steps before it computes anything."""
    text_fields: ClassVar[tuple[str, ...] | None] = None
    """Fields of the rows whose tokens count as the step's own; empty: all; None: no texts."""

    @abstractmethod
    def run(self, work: Workspace) -> None:
        """Writes the output into `work.dir`, which after an interruption holds what the last call left."""

    def help(self, work: Workspace) -> None:
        """Does a part of what another process does in `run` at the same time, and returns when no part is left."""

    @property
    def config(self) -> Mapping[str, Any]:
        """All that decides the output beside the inputs, as JSON."""
        return {name: _plain(value) for name, value in self._fields() if not _is_input(value)}

    @property
    def inputs(self) -> Mapping[str, "Step"]:
        """The steps whose outputs `run` reads, by their names in the workspace."""
        found: dict[str, Step] = {}
        for name, value in self._fields():
            if isinstance(value, Step):
                found[name] = value
            elif _is_input(value):
                found |= value
        return {**found, **self.derived}

    @property
    def derived(self) -> Mapping[str, "Step"]:
        """Inputs that are made of the other inputs and the configuration alone: the key does not name them."""
        return {}

    @property
    def about(self) -> str:
        """A few words that, with name and language, tell the steps of a run apart."""
        return ""

    def about_field(self, file: str, field: str) -> str:
        """What a field of the rows in a published file is, for the `about` of the step that reads it."""
        return self.result.partition(",")[0] or self.name

    @property
    def result(self) -> str:
        """What the step publishes, for the `about` of a step that filters it."""
        return self.about

    @property
    def language(self) -> Language | None:
        """Language of the published texts; None without texts or with several languages."""
        return None

    @property
    def purpose_language(self) -> Language | None:
        """The language that the step serves; not `language` if it translates test items into L."""
        return self.language

    @property
    def moment(self) -> str:
        """Whether the step's model answers before or after training."""
        return "after" if self.trains else "before"

    @property
    def summary(self) -> str:
        """`about` and the language, for a line of text."""
        language = self.purpose_language
        return ", ".join(filter(None, (self.about, language.code if language else "")))

    @property
    def hub(self) -> HubSource | None:
        """What the step downloads from the hub."""
        return None

    @property
    def downloads(self) -> bool:
        """Whether the step downloads something, from the hub or elsewhere."""
        return self.hub is not None

    @property
    def path(self) -> Path | None:
        """The user's file that the step copies, or the model's directory that it links to."""
        return None

    def check(self) -> None:
        """Raises InputError if what the step imports cannot be used; called before the run begins."""

    def estimate(self, plan: Plan) -> Estimate:
        """What making it would publish and cost: the rows of the first input that has any, and no work, unless a
        subclass knows better. Not asked for a cached step with texts, whose output is measured."""
        given = next((found for inner in self.inputs.values() if (found := plan.of(inner)).files), Estimate())
        return Estimate(given.rows, files=given.files, bound=given.bound)

    def _fields(self) -> Iterator[tuple[str, Any]]:
        for one in fields(self):
            value = getattr(self, one.name)
            if RUNTIME not in one.metadata and not (OPTIONAL in one.metadata and value is None):
                yield one.name, value

    @property
    def identity(self) -> dict[str, Any]:
        """What the key hashes."""
        inputs = {name: step.key for name, step in self.inputs.items() if name not in self.derived}
        return {"name": self.name, "version": self.version, "config": self.config, "inputs": inputs}

    @cached_property
    def key(self) -> str:
        canonical = json.dumps(self.identity, sort_keys=True, ensure_ascii=False)
        return sha256(canonical.encode()).hexdigest()[:16]


def _is_input(value: Any) -> bool:
    """Whether a field names steps. An empty mapping names none, and is no configuration."""
    return isinstance(value, Step) or (
        isinstance(value, Mapping) and all(isinstance(one, Step) for one in value.values())
    )


def _plain(value: Any) -> Any:
    """A field as JSON: a language by its FLORES code, an option by its name, options as an object."""
    if isinstance(value, Language):
        return value.flores
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.value if isinstance(value, Enum) else value
