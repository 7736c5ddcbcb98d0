"""A step made of a function, for tests; what is told of a step by its class is told of this one by its name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdx.languages import Language, codes
from sdx.languages import language as language_of
from sdx.store.step import Step, Workspace


class PlainStep(Step):
    """A step made of a function."""

    def __init__(
        self,
        name: str,
        function: Callable[[Workspace], None],
        config: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Step] | None = None,
        version: int = 1,
        collective: bool = False,
        hub: object | None = None,
        path: Path | None = None,
        check: Callable[[], None] = lambda: None,
        about: str = "",
    ) -> None:
        given = {"name": name, "version": version, "collective": collective, "check": check, "run": function}
        own = {"about": about, "config": config or {}, "inputs": inputs or {}, "hub": hub, "path": path}
        self.__dict__.update(given, _own=own)

    def run(self, work: Workspace) -> None:
        raise AssertionError("the function stands in its place")

    @property
    def config(self) -> Mapping[str, Any]:
        return self.__dict__["_own"]["config"]  # type: ignore[no-any-return]

    @property
    def inputs(self) -> Mapping[str, Step]:
        return self.__dict__["_own"]["inputs"]  # type: ignore[no-any-return]

    @property
    def hub(self) -> object | None:
        return self.__dict__["_own"]["hub"]  # type: ignore[no-any-return]

    @property
    def path(self) -> Path | None:
        return self.__dict__["_own"]["path"]  # type: ignore[no-any-return]

    # Facts by name, for the steps that have no class of their own yet.

    @property
    def trains(self) -> bool:  # type: ignore[override]
        return self.name in ("train", "stack")

    @property
    def is_data(self) -> bool:  # type: ignore[override]
        return self.name not in ("score", "train", "stack", "vectors", "classify")

    @property
    def reads(self) -> bool:  # type: ignore[override]
        return self.name in ("asset", "dictionary", "file", "pairs") or self.read_in_plan

    @property
    def read_in_plan(self) -> bool:  # type: ignore[override]
        return self.name in ("corpus", "training", "texts", "parallel", "items", "read")

    @property
    def brings_model(self) -> bool:  # type: ignore[override]
        return self.name in ("adapter", "backbone", "encoder", "translator")

    @property
    def about(self) -> str:
        if given := self.__dict__["_own"]["about"]:
            return str(given)
        items, source = self.inputs.get("items"), self.inputs.get("source")
        if self.name == "read":
            return f"{items.about}, translated" if items else str(self.config["task"])
        if self.name in ("score", "prompts"):
            return f"{items.about if items else ''}, {'after' if self.inputs['model'].trains else 'before'}"
        if self.name == "filter":
            return next((inner.result for inner in self.inputs.values()), "")
        given = self.config.get("task") or Path(self.config.get("hub_id") or self.config.get("name") or "").name
        return str(given) or next((one.about for one in (items, source) if one), "")

    def about_field(self, file: str, field: str) -> str:
        if self.name == "training":
            return f"{self.config['task']} {field}"
        if self.name == "read":
            return f"{self.about.partition(',')[0]} items"
        return super().about_field(file, field)

    @property
    def result(self) -> str:
        return "own answers" if self.name == "generate" else self.about

    @property
    def language(self) -> Language | None:
        pair = self.config.get("languages") or [None]  # of a parallel corpus
        for code in (*(self.config.get(name) for name in ("target", "answered", "language")), pair[-1]):
            if isinstance(code, str) and code in codes():
                return language_of(code)
        if self.name in ("adapter", "backbone", "train", "mix", "translator", "asset", "file", "pairs"):
            return None
        inputs = {"texts": self.inputs["texts"]} if "texts" in self.inputs else self.inputs
        return next(filter(None, (inner.language for inner in inputs.values())), None)

    @property
    def purpose_language(self) -> Language | None:
        if self.name in ("read", "classify") and "items" in self.inputs:
            return self.inputs["items"].purpose_language
        return self.language
