"""A step: a unit of work with a content-addressed output directory. It knows its own facts."""

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
    """A field of a step that decides nothing of its output, such as a batch size or a label: it is in no key."""
    return field(metadata={RUNTIME: True}, kw_only=True, **options)


def optional() -> Any:
    """A field of a step that is in its key only if it is given: without it, the key is that of a step that lacks it."""
    return field(metadata={OPTIONAL: True}, kw_only=True, default=None)


@dataclass
class Workspace:
    """Where a step works: its own directory, its inputs' directories, and what it counts for the manifest."""

    dir: Path
    inputs: Mapping[str, Path]
    counts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Step(ABC):
    """A unit of work with a content-addressed output directory.

    A subclass is a frozen dataclass (with `eq=False`) whose fields are its key: a field that is a step, or a mapping of
    names to steps, is an input; others are configuration, but for those of `runtime()` and those of `optional()` that
    are not given. A subclass whose key has another form overrides `config` or `inputs`. A field that stands for a
    property of this class, such as `about`, needs a default: without one, the property itself would be its default.
    """

    name: ClassVar[str]
    """Kind of step; the first part of its path."""
    version: ClassVar[int] = 1
    """Of the code of `run`; raise it when the same fields must give another output."""
    collective: ClassVar[bool] = False
    """Every rank runs it (training); otherwise rank 0 does and the others wait."""
    is_data: ClassVar[bool] = True
    """Whether `stages=prepare` makes it; false for what trains a model or puts questions to one."""
    trains: ClassVar[bool] = False
    """Whether it needs all memory for a model of its own; what is published is an improved model."""
    reads: ClassVar[bool] = False
    """Whether it brings in data or reads them, if all its inputs do. A run makes such steps before it computes
    anything, so that what is wrong with a file shows at once."""
    read_in_plan: ClassVar[bool] = False
    """Whether a plan makes it, and throws it away, where it is made of files of this machine."""
    brings_model: ClassVar[bool] = False
    """Whether it brings in a model, which a run does before it computes anything."""
    text_fields: ClassVar[tuple[str, ...] | None] = None
    """Fields of its rows whose tokens count as its own, all for an empty tuple; none for a step without texts."""

    @abstractmethod
    def run(self, work: Workspace) -> None:
        """Writes the output into `work.dir`. Called again after an interruption with what is there."""

    @property
    def config(self) -> Mapping[str, Any]:
        """What decides the output beside the inputs, as JSON."""
        return {name: _plain(value) for name, value in self._fields() if not _is_input(value)}

    @property
    def inputs(self) -> Mapping[str, "Step"]:
        """The steps whose outputs `run` reads, by the name that their directories have in the workspace."""
        found: dict[str, Step] = {}
        for name, value in self._fields():
            if isinstance(value, Step):
                found[name] = value
            elif _is_input(value):
                found |= value
        return found

    @property
    def about(self) -> str:
        """A few words; with its name and its language they tell the steps of a run apart."""
        return ""

    def about_field(self, file: str, field: str) -> str:
        """What a field of the rows in a file of its output is, for the `about` of the step that reads it."""
        return self.result.partition(",")[0] or self.name

    @property
    def result(self) -> str:
        """What it publishes, for the `about` of the step that chooses among it."""
        return self.about

    @property
    def language(self) -> Language | None:
        """Of the texts that it publishes; none where there are none, or several."""
        return None

    @property
    def purpose_language(self) -> Language | None:
        """The language that it is there for: another one where a text is translated into L for a test."""
        return self.language

    @property
    def moment(self) -> str:
        """When its model answers: before training or after."""
        return "after" if self.trains else "before"

    @property
    def summary(self) -> str:
        """`about` and the language, for a line of text."""
        language = self.purpose_language
        return ", ".join(filter(None, (self.about, language.code if language else "")))

    @property
    def hub(self) -> HubSource | None:
        """What it fetches from the hub."""
        return None

    @property
    def downloads(self) -> bool:
        """Whether it fetches something, from the hub or elsewhere."""
        return self.hub is not None

    @property
    def path(self) -> Path | None:
        """The user's file that it copies, or the model's directory that it links to."""
        return None

    def check(self) -> None:
        """Raises InputError for what it brings from outside, before the run begins."""

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
        """What the key is the hash of."""
        inputs = {name: step.key for name, step in self.inputs.items()}
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
