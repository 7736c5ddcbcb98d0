"""Any task of lm-evaluation-harness, by its name: its prompts, its metrics, its items.

The harness takes half a minute to list its 14,000 files. Here only the files that define a name are parsed, and errors
show before the harness or a dataset is loaded.
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
from sdx.tasks.base import Mode, Task
from sdx.tasks.sizes import items_of

KEY = "task.lm_eval"
NAMES = re.compile(r"^(?:task|group):[ \t]*['\"]?([\w.+-]+)", re.MULTILINE)
TAGS = re.compile(r"^tag:[ \t]*(.*(?:\n[ \t]*-.*)*)", re.MULTILINE)
FLORES = re.compile(r"(?<![a-z])([a-z]{3})_([A-Za-z][a-z]{3})(?![a-z])")
FUNCTION = "!function "
READERS = ("arrow", "csv", "json", "pandas", "parquet", "text", "xml")
"""Of the library `datasets`, for local files."""
FIX = f"leave it out, or give a copy as a task of your own with {KEY}.include_path=..."


@dataclass
class LMEvalConfig(TaskConfig):
    """Tasks of lm-evaluation-harness, each with a row in the tables."""

    names: list[str] = field(default_factory=list)
    """Of its tasks, groups and tags. The score of a group is over the items of all its tasks."""
    include_path: str | None = fields.path()
    """Directory with tasks of your own, as the harness' option of that name; they come before its own."""
    num_fewshot: int | None = fields.number(None, at_least=0, at_most=1000)
    """Solved examples before each question; null: as many as the task itself says."""


SCHEMAS = {"lm_eval": LMEvalConfig}


class LMEval(Task):
    """The tasks that are named.

    Raises:
        InputError: one of them does not exist or cannot work here.
    """

    name = "lm_eval"
    mode = Mode.rank

    def __init__(self, shots: int, names: list[str], include_path: str | None, num_fewshot: int | None) -> None:
        super().__init__(shots)
        if shots:
            raise InputError(f"{KEY}.shots={shots}: give the examples of the harness' tasks as {KEY}.num_fewshot")
        if not names:
            raise InputError(f"{KEY}.names=[] names no task; give some, as in {KEY}.names=[belebele_tha_Thai]")
        own = Path(include_path).expanduser() if include_path else None
        if own and not own.is_dir():
            raise InputError(f"{KEY}.include_path={include_path} is no directory; give one with tasks as YAML files")
        self.tasks = [HarnessTask(name, own, num_fewshot) for name in dict.fromkeys(names)]


class HarnessTask(Task):
    """A task of the harness, or a group of tasks. `own` is a directory of the user with more."""

    mode = Mode.rank

    def __init__(self, name: str, own: Path | None, num_fewshot: int | None) -> None:
        super().__init__(0)
        self.name, self.own, self.num_fewshot = name, own, num_fewshot
        files = {**_cached_index(tasks_dir()), **(_index(own) if own else {})}
        if name not in files:
            near = get_close_matches(name, files, n=5)
            raise InputError(
                f"{KEY}.names={name} is no task of lm-eval {version('lm_eval')}"
                + (f" and none of {KEY}.include_path={own}" if own else "")
                + (f"; there are {', '.join(near)}" if near else "; `lm_eval ls tasks` lists them")
            )
        self.files = list(_definition_files(name, files))
        contents = [yaml_of(path) for path in self.files]
        self.definitions = [content for content in contents if not isinstance(content.get("task"), list)]
        """Without those of groups."""
        named = f"{KEY}.names={name}"
        for path, content in zip(self.files, contents, strict=True):
            if content.get("unsafe_code"):
                raise InputError(f"{named} runs the code that a model writes, which sdx does not; leave it out")
            if missing := [module for module in sorted(_imports(content)) if not _is_installed(module)]:
                fix = f"pip install {missing[0].partition('.')[0]}"
                if missing[0].startswith("transformers."):
                    fix = f"leave it out: transformers {version('transformers')} has no such module any more"
                needs = f"{named} of lm-eval {version('lm_eval')} needs {missing[0]}"
                raise InputError(f"{needs}, which is not here; {fix}")
            if absent := [file for file in _local_files(content) if not file.exists()]:
                raise InputError(f"{named}: {path} reads {absent[0]}, and there is no such file; mend its data_files")

    @property
    def directories(self) -> list[str]:
        """Where the harness has to look for the definition."""
        return [str(path) for path in dict.fromkeys(file.parent for file in self.files)]

    @property
    def description(self) -> Mapping[str, Any]:
        shots = {} if self.num_fewshot is None else {"num_fewshot": self.num_fewshot}
        return {"lm_eval": version("lm_eval"), **shots, **({"files": self._digest} if self.own else {})}

    @cached_property
    def _digest(self) -> str:
        """Of the definition and its local data, which may change while the harness' version stays the same."""
        sources = [path for folder in self.directories for path in sorted(Path(folder).glob("*.py"))]
        data = [file for definition in self.definitions for file in _local_files(definition)]
        existing = [path for path in (*self.files, *sources, *data) if path.is_file()]
        return sha256(b"".join(sha256(path.read_bytes()).digest() for path in existing)).hexdigest()[:16]

    def language(self, source: Language) -> Language:
        """The language in the task's name, or the one that all definitions agree on; L if there is none."""
        parts = [(part.get("metadata"), part.get("task"), part.get("dataset_name")) for part in self.definitions]
        found = {_language_in(*part) for part in parts}
        return _language_in(None, self.name) or (found.pop() if len(found) == 1 else None) or source

    @property
    def datasets(self) -> list[str]:
        """On the hub."""
        paths = (one.get("dataset_path") for one in self.definitions)
        return [path for path in dict.fromkeys(paths) if path and path not in READERS and not Path(path).exists()]

    def load(self) -> dict[str, Any]:
        """The result of `TaskManager.load`, with the data. Raises InputError if the task cannot be loaded."""
        with one_line_errors(self.name):
            from lm_eval.tasks import TaskManager

            found = TaskManager(include_defaults=False, include_path=self.directories).load([self.name])
            for task in found["tasks"].values():
                if self.num_fewshot is not None:
                    task.set_config("num_fewshot", self.num_fewshot)
                task.set_fewshot_seed(1234)  # the harness' own
        return dict(found)


@dataclass(frozen=True, eq=False)
class HarnessItems(Step):
    """Publishes `rows.jsonl`, the id of each item; the harness reads the items themselves from the dataset."""

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
        sources = (HubDataset(KEY, name, "main", FIX, self.task.name) for name in self.task.datasets)
        return next((source for source in sources if not source.cached()), None)

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
                    f"({', '.join(task.aggregation())}), so there is no interval; leave it out"
                )
            count = len(task.eval_docs)
            rows += [{"id": f"{name}/{number}"} for number in range(min(count, self.limit or count))]
        write_rows(work.dir / "rows.jsonl", rows)
        work.counts.update(items=len(rows))


@dataclass(frozen=True)
class HubDataset(HubSource):
    """The dataset of a task, at the commit that the hub has."""

    task: str = ""

    @property
    def where(self) -> str:
        return f"{KEY}.names={self.task}: {self.hub_id}"

    def cached(self) -> bool:
        from huggingface_hub import constants

        prepared = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME, "datasets"))
        downloaded = Path(constants.HF_HUB_CACHE, f"datasets--{self.hub_id.replace('/', '--')}", "snapshots")
        return downloaded.is_dir() or (prepared / self.hub_id.replace("/", "___")).is_dir()

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
def one_line_errors(name: str) -> Iterator[None]:
    """Turns any error of the code of a task or of its dataset into an InputError of one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "")
        raise InputError(
            f"{KEY}.names={name}: the harness cannot run it ({type(error).__name__}: {reason}); {FIX}"
        ) from error


def tasks_dir() -> Path:
    """The directory of the harness' own tasks."""
    spec = find_spec("lm_eval")
    assert spec
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "tasks"


def yaml_of(path: Path) -> dict[str, Any]:
    """A file of the harness merged with the files that it includes; a Python function is `FUNCTION`, the path of its
    file without the suffix, a dot and its name.

    Raises:
        InputError: the file cannot be read.
    """
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Knows `!function`, the harness' tag for Python."""

    def function(loader: Any, _: str, node: Any) -> str:
        return f"{FUNCTION}{path.parent / loader.construct_scalar(node)}"

    Loader.add_multi_constructor("!function", function)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} is no YAML file that can be read ({type(error).__name__}); mend it") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} describes no task; mend it")
    included = content.pop("include", None) or []
    merged: dict[str, Any] = {}
    for name in [included] if isinstance(included, str) else included:
        merged |= yaml_of(path.parent / name)
    return merged | content


def _index(root: Path) -> dict[str, list[Path]]:
    """Task, group or tag -> its files; the first file of a task."""
    named: dict[str, list[Path]] = {}
    tagged: dict[str, list[Path]] = {}
    for path in sorted(root.glob("**/*.yaml")):
        text = path.read_text(encoding="utf-8", errors="replace")
        for name in NAMES.findall(text):
            named.setdefault(name, [path])
        for name in re.findall(r"[\w.+-]*\w[\w.+-]*", " ".join(TAGS.findall(text))):
            tagged.setdefault(name, []).append(path)
    return tagged | named


_cached_index = cache(_index)


def _definition_files(name: str, files: Mapping[str, list[Path]]) -> Iterator[Path]:
    """The files of a task, or of all tasks in a group."""
    for path in files.get(name, ()):
        yield path
        members = yaml_of(path).get("task")
        for member in members if isinstance(members, list) else ():
            inner = member if isinstance(member, str) else member.get("task") or member.get("group")
            if isinstance(inner, str) and inner != name:
                yield from _definition_files(inner, files)


def _local_files(definition: Mapping[str, Any]) -> list[Path]:
    """The files of this machine that a task reads."""
    if definition.get("dataset_path") not in READERS:
        return []
    given = (definition.get("dataset_kwargs") or {}).get("data_files") or ()
    splits = given.values() if isinstance(given, dict) else [given]
    files = [file for split in splits for file in ([split] if isinstance(split, str) else split)]
    return [Path(file).expanduser() for file in files if "://" not in file and "*" not in file]


def _language_in(metadata: Any, *names: Any) -> Language | None:
    """The language in a task's metadata, or in one of its names: a FLORES code (the last of several, because a
    translation ends in its target), or a code at the end."""
    given = metadata.get("language") if isinstance(metadata, dict) else None
    texts = [name for name in names if isinstance(name, str)]
    flores = [f"{code}_{script.title()}" for text in texts for code, script in reversed(FLORES.findall(text))]
    last = [re.split(r"[_.-]", text)[-1] for text in texts]
    return next((codes()[code] for code in (given, *flores, *last) if code in codes()), None)


def _imports(definition: Mapping[str, Any]) -> set[str]:
    """Modules that the Python files of a definition import when they are loaded."""
    functions = [value for value in definition.values() if isinstance(value, str) and value.startswith(FUNCTION)]
    sources = {Path(f"{function.removeprefix(FUNCTION).rpartition('.')[0]}.py") for function in functions}
    nodes = [node for path in sources if path.is_file() for node in ast.parse(path.read_text("utf-8")).body]
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }


def _is_installed(module: str) -> bool:
    """Whether a module can be imported, without importing it."""
    root, *inner = module.split(".")
    spec = find_spec(root)
    if not spec or not inner or not spec.submodule_search_locations:
        return spec is not None
    path = Path(next(iter(spec.submodule_search_locations)), *inner)
    return path.is_dir() or any(path.parent.glob(f"{path.name}.*"))
