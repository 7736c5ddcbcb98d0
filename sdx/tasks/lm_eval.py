"""Any task of lm-evaluation-harness, by its name: its prompts, its metrics, its items.

The harness takes half a minute to list its 14,000 files. Here only those are parsed that a name leads to, and what is
wrong shows before the harness or a dataset is loaded.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, cached_property
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.config import TaskConfig
from sdx.languages import Language, codes
from sdx.options import fields
from sdx.sources.hub import ANSWER_S
from sdx.store.estimate import ROWS, Estimate, Plan, Rows
from sdx.store.files import write_rows
from sdx.store.hub_source import HubSource
from sdx.store.step import Step, Workspace
from sdx.tasks.base import Item, Task, Who
from sdx.tasks.sizes import items_of

KEY = "task.lm_eval"
NAMED = re.compile(r"^(?:task|group):[ \t]*['\"]?([\w.+-]+)", re.MULTILINE)
TAGGED = re.compile(r"^tag:[ \t]*(.*(?:\n[ \t]*-.*)*)", re.MULTILINE)
FLORES = re.compile(r"(?<![a-z])([a-z]{3})_([A-Za-z][a-z]{3})(?![a-z])")
FUNCTION = "!function "
READERS = ("arrow", "csv", "json", "pandas", "parquet", "text", "xml")
"""Of the library `datasets`, for local files."""


@dataclass
class LMEvalConfig(TaskConfig):
    """Tasks of lm-evaluation-harness, each with a row in the tables."""

    names: list[str] = field(default_factory=list)
    """Of its tasks, groups and tags. The items of a group are taken together."""
    include_path: str | None = fields.path()
    """Directory with tasks of your own, as the harness' option of that name; they come before its own."""
    num_fewshot: int | None = fields.number(None, at_least=0, at_most=1000)
    """Solved examples before each question; null: as many as the task itself says."""


SCHEMAS = {"lm_eval": LMEvalConfig}


class LMEval(Task):
    """The tasks that are named.

    Raises:
        InputError: one is not there or cannot work here.
    """

    name = "lm_eval"
    who = Who.rank

    def __init__(self, shots: int, names: list[str], include_path: str | None, num_fewshot: int | None) -> None:
        super().__init__(shots)
        if shots:
            raise InputError(f"{KEY}.shots={shots}: give the examples of the harness' tasks as {KEY}.num_fewshot")
        if not names:
            raise InputError(f"{KEY}.names=[] names no task; give some, as in {KEY}.names=[belebele_tha_Thai]")
        own = Path(include_path).expanduser() if include_path else None
        if own and not own.is_dir():
            raise InputError(f"{KEY}.include_path={include_path} is no directory; give one with tasks as YAML files")
        self.each = [HarnessTask(name, own, num_fewshot) for name in dict.fromkeys(names)]

    def read(self, directories: Mapping[str, Path], asked: Language, answered: Language) -> list[Item]:
        raise AssertionError("its tasks are asked")


class HarnessTask(Task):
    """A task of the harness, or a group of them.

    Args:
        own: a directory of the user with more tasks.
    """

    who = Who.rank

    def __init__(self, name: str, own: Path | None, num_fewshot: int | None) -> None:
        super().__init__(0)
        self.name, self.own, self.num_fewshot = name, own, num_fewshot
        files = {**_shipped(), **(_index(own) if own else {})}
        if name not in files:
            near = get_close_matches(name, files, n=5)
            raise InputError(
                f"{KEY}.names={name} is no task of lm-eval {version('lm_eval')}"
                + (f" and none of {KEY}.include_path={own}" if own else "")
                + (f"; there are {', '.join(near)}" if near else "; `lm_eval ls tasks` lists them")
            )
        self.files = list(_behind(name, files))
        """Of its definition."""
        read = [yaml_of(path) for path in self.files]
        self.definitions = [one for one in read if not isinstance(one.get("task"), list)]
        """Without those of groups."""
        for path, one in zip(self.files, read, strict=True):
            self._check(path, one)

    def _check(self, path: Path, definition: Mapping[str, Any]) -> None:
        named = f"{KEY}.names={self.name}"
        if definition.get("unsafe_code"):
            raise InputError(f"{named} runs the code that a model writes, which sdx does not; leave it out")
        for module in sorted(_imports(definition)):
            if not _is_installed(module):
                fix = f"pip install {module.partition('.')[0]}"
                if module.startswith("transformers."):
                    fix = f"leave it out, for transformers {version('transformers')} has no such module any more"
                raise InputError(f"{named} of lm-eval {version('lm_eval')} needs {module}, which is not here; {fix}")
        for file in _local_files(definition):
            if not Path(file).expanduser().exists():
                raise InputError(f"{named}: {path} reads {file}, and there is no such file; mend its data_files")

    @property
    def directories(self) -> list[str]:
        """Where the harness is to look for it."""
        return [str(path) for path in dict.fromkeys(file.parent for file in self.files)]

    @property
    def description(self) -> Mapping[str, Any]:
        shots = {} if self.num_fewshot is None else {"num_fewshot": self.num_fewshot}
        return {"lm_eval": version("lm_eval"), **shots, **({"files": self._digest} if self.own else {})}

    @cached_property
    def _digest(self) -> str:
        """Of the definition and its local data, which the harness' version does not tell."""
        sources = [path for folder in self.directories for path in sorted(Path(folder).glob("*.py"))]
        data = [Path(file).expanduser() for one in self.definitions for file in _local_files(one)]
        given = [path for path in (*self.files, *sources, *data) if path.is_file()]
        return sha256(b"".join(sha256(path.read_bytes()).digest() for path in given)).hexdigest()[:16]

    def spoken(self, source: Language) -> Language:
        """Its language, as its name tells it, or what all in it tell by metadata, name or dataset; L if they do not."""
        found = {_told(one.get("metadata"), one.get("task"), one.get("dataset_name")) for one in self.definitions}
        return _told(None, self.name) or (found.pop() if len(found) == 1 else None) or source

    @property
    def datasets(self) -> list[str]:
        """On the hub."""
        paths = (one.get("dataset_path") for one in self.definitions)
        return [path for path in dict.fromkeys(paths) if path and path not in READERS and not Path(path).exists()]

    def read(self, directories: Mapping[str, Path], asked: Language, answered: Language) -> list[Item]:
        raise AssertionError("the harness reads them")

    def load(self) -> dict[str, Any]:
        """As `TaskManager.load` gives it, with its data.

        Raises:
            InputError: it cannot be loaded.
        """
        with refusing(self.name):
            from lm_eval.tasks import TaskManager

            found = TaskManager(include_defaults=False, include_path=self.directories).load([self.name])
            for task in found["tasks"].values():
                if self.num_fewshot is not None:
                    task.set_config("num_fewshot", self.num_fewshot)
                task.set_fewshot_seed(FEWSHOT_SEED)
        return dict(found)


FEWSHOT_SEED = 1234
"""The harness' own."""


@dataclass(frozen=True, eq=False)
class HarnessItems(Step):
    """Publishes `rows.jsonl`, the id of each item; what the harness asks comes from its definition and the dataset."""

    task: HarnessTask
    asked: Language
    limit: int
    """Of each task of a group; 0: all."""

    name = "items"
    reads = True

    @property
    def config(self) -> Mapping[str, Any]:
        task = self.task
        return {"task": task.name, "language": self.asked.flores, "limit": self.limit, **task.description}

    @property
    def about(self) -> str:
        return self.task.name

    @property
    def language(self) -> Language:
        return self.asked

    @property
    def hub(self) -> HubDataset | None:
        found = [HubDataset(KEY, name, "main", INSTEAD, self.task.name) for name in self.task.datasets]
        return next((source for source in found if not source.cached()), None)

    def estimate(self, plan: Plan) -> Estimate:
        count, english = items_of(self.task.name, self.asked)
        rows = Rows(min(count, self.limit or count), {"texts": plan.tokens(english, self.asked)})
        return Estimate(rows.count, rows.total, {ROWS: rows})

    def run(self, work: Workspace) -> None:
        rows = []
        for name, task in self.task.load()["tasks"].items():
            if not any(map(is_mean, task.aggregation().values())):
                raise InputError(
                    f"{KEY}.names={self.task.name}: {name} has no metric that is a mean over its items "
                    f"({', '.join(task.aggregation())}), so that there is no interval; leave it out"
                )
            count = len(task.eval_docs)
            rows += [{"id": f"{name}/{number}"} for number in range(min(count, self.limit or count))]
        write_rows(work.dir / "rows.jsonl", rows)
        work.counts.update(items=len(rows))


INSTEAD = f"leave it out, or give a copy as a task of your own with {KEY}.include_path=..."


@dataclass(frozen=True)
class HubDataset(HubSource):
    """The dataset of a task, at the commit that the hub has."""

    task: str = ""

    @property
    def where(self) -> str:
        return f"{KEY}.names={self.task}: {self.hub_id}"

    def cached(self) -> bool:
        from huggingface_hub import constants

        prepared = os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME, "datasets")
        places = Path(constants.HF_HUB_CACHE, f"datasets--{self.hub_id.replace('/', '--')}", "snapshots")
        return any(path.is_dir() for path in (places, Path(prepared, self.hub_id.replace("/", "___"))))

    def probe(self) -> None:
        from huggingface_hub import HfApi

        HfApi().dataset_info(self.hub_id, timeout=ANSWER_S)

    def missing_reason(self) -> str:
        return f"is not there; {self.alternative}"


def is_mean(aggregation: Any) -> bool:
    """Whether a metric of a task is the mean of its items."""
    from lm_eval.api.registry import get_aggregation

    return bool(aggregation is get_aggregation("mean"))


@contextmanager
def refusing(name: str) -> Iterator[None]:
    """Whatever the code of a task or of its dataset raises, in one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        said = next(iter(str(error).strip().splitlines()), "")
        raise InputError(
            f"{KEY}.names={name}: the harness cannot run it ({type(error).__name__}: {said}); {INSTEAD}"
        ) from error


def tasks_dir() -> Path:
    """Where the harness has its own tasks."""
    spec = find_spec("lm_eval")
    assert spec
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "tasks"


def yaml_of(path: Path) -> dict[str, Any]:
    """A file of the harness with what it includes; a Python function is `FUNCTION` and its file without the ending,
    a dot and its name.

    Raises:
        InputError: it cannot be read.
    """
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Reads past `!function`, the harness' tag for Python."""

    def named(loader: Any, _: str, node: Any) -> str:
        return f"{FUNCTION}{path.parent / loader.construct_scalar(node)}"

    Loader.add_multi_constructor("!function", named)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} is no YAML file that can be read ({type(error).__name__}); mend it") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} describes no task; mend it")
    included = content.pop("include", None) or []
    merged: dict[str, Any] = {}
    for one in [included] if isinstance(included, str) else included:
        merged |= yaml_of(path.parent / one)
    return merged | content


@cache
def _shipped() -> dict[str, list[Path]]:
    return _index(tasks_dir())


def _index(root: Path) -> dict[str, list[Path]]:
    """Task, group or tag -> its files, of a task the first."""
    found: dict[str, list[Path]] = {}
    tagged: dict[str, list[Path]] = {}
    for path in sorted(root.glob("**/*.yaml")):
        text = path.read_text(encoding="utf-8", errors="replace")
        for name in NAMED.findall(text):
            found.setdefault(name, [path])
        for tags in TAGGED.findall(text):
            for name in re.findall(r"[\w.+-]*\w[\w.+-]*", tags):
                tagged.setdefault(name, []).append(path)
    return {**tagged, **found}


def _behind(name: str, files: Mapping[str, list[Path]]) -> Iterator[Path]:
    """The files of a task, or of all that is in a group."""
    for path in files.get(name, ()):
        yield path
        members = yaml_of(path).get("task")
        for member in members if isinstance(members, list) else ():
            inner = member if isinstance(member, str) else member.get("task") or member.get("group")
            if isinstance(inner, str) and inner != name:
                yield from _behind(inner, files)


def _local_files(definition: Mapping[str, Any]) -> list[str]:
    """What a task reads from this machine."""
    given = (definition.get("dataset_kwargs") or {}).get("data_files") or ()
    if definition.get("dataset_path") not in READERS:
        return []
    each = given.values() if isinstance(given, dict) else [given]
    files = [file for one in each for file in ([one] if isinstance(one, str) else one)]
    return [file for file in files if "://" not in file and "*" not in file]


def _told(metadata: Any, *names: Any) -> Language | None:
    """The language that a task's own metadata or one of its names has in it: as FLORES writes it,
    of a translation the last one, or at the end."""
    given = metadata.get("language") if isinstance(metadata, dict) else None
    texts = [name for name in names if isinstance(name, str)]
    full = [f"{code}_{script.title()}" for text in texts for code, script in reversed(FLORES.findall(text))]
    last = [re.split(r"[_.-]", text)[-1] for text in texts]
    return next((codes()[code] for code in (given, *full, *last) if code in codes()), None)


def _imports(definition: Mapping[str, Any]) -> set[str]:
    """Modules that the Python files of a definition import when they are loaded."""
    functions = [value for value in definition.values() if isinstance(value, str) and value.startswith(FUNCTION)]
    found: set[str] = set()
    for name in {function.removeprefix(FUNCTION).rpartition(".")[0] for function in functions}:
        source = Path(f"{name}.py")
        if not source.is_file():
            continue
        for node in ast.parse(source.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
    return found


def _is_installed(module: str) -> bool:
    """Whether a module is there; nothing is imported."""
    root, *inner = module.split(".")
    try:
        spec = find_spec(root)
    except (ImportError, ValueError):
        spec = None
    if not spec or not inner or not spec.submodule_search_locations:
        return spec is not None
    place = Path(next(iter(spec.submodule_search_locations)), *inner)
    return place.is_dir() or any(place.parent.glob(f"{place.name}.*"))
