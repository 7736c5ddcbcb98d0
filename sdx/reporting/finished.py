"""Finished runs read back from their results.json, and short names for them: what differs among them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sdx.config import TrainConfig
from sdx.store.files import read_json
from sdx.store.run_dir import RESULTS, directories

UNSEEN = ("cache_dir", "runs_dir", "tracking", "plan", "stages")
"""Parts of a configuration that decide no result."""
VALUE_LETTERS = 36
"""Of a value in a name."""
INHERITED = {
    f"train.{field.name}": field.default.strip("${}")
    for field in fields(TrainConfig)
    if isinstance(field.default, str) and field.default.startswith("${")
}
"""Keys that take the value of another one where they are not given: they tell no more than that one."""
Column = tuple[str, str, str, str]
"""Task, language, metric, and whose items they are: scores of other items stand in another column."""


def column_of(score: Mapping[str, Any]) -> Column:
    return score["task"], score["language"], score["metric"], score["origin"]


@dataclass(frozen=True)
class Finished:
    """What a finished run left."""

    directory: Path
    config: Mapping[str, Any]
    scores: Sequence[Mapping[str, Any]]
    """As `sdx.evaluation.scores.Score`."""

    @property
    def backbone(self) -> str:
        return str(self.config["backbone"]["name"])


def find(paths: Sequence[Path]) -> tuple[list[Finished], list[str]]:
    """The finished runs in and below the directories, each once, and a warning for each that cannot be read."""
    found: dict[Path, Finished] = {}
    warnings: list[str] = []
    for path in paths:
        if not path.is_dir():
            warnings.append(f"{path} is no directory")
        for directory in sorted(directories(path), key=str):
            try:
                found.setdefault(directory.resolve(), read(directory))
            except FileNotFoundError:
                warnings.append(f"{directory} has no {RESULTS}: that run has not finished")
            except OSError as error:
                warnings.append(f"{directory / RESULTS} cannot be read: {error.strerror}")
            except (ValueError, TypeError, KeyError, AttributeError):
                warnings.append(f"{directory / RESULTS} is damaged or of another version; start that run again")
    return list(found.values()), warnings


def read(directory: Path) -> Finished:
    """A run's results.

    Raises:
        FileNotFoundError: it has not finished.
        OSError, ValueError, TypeError, KeyError, AttributeError: the file cannot be read or is no report of a run.
    """
    results = read_json(directory / RESULTS)
    config, scores = results["config"], results["scores"]
    for score in scores:
        score.setdefault("system", "")  # an older sdx knew none
        texts = [score[name] for name in ("task", "language", "metric", "origin", "system")]
        estimates = [score["before"], *(score[name] for name in ("after", "difference") if score[name] is not None)]
        figures = [estimate[name] for estimate in estimates for name in ("value", "low", "high", "n")]
        _check(texts, str)
        _check(figures, (int, float))
    _check([config[group]["name"] for group in ("method", "backbone")], str)
    _check([scores], list)
    config["seed"]
    leaves(config)
    return Finished(directory, config, scores)


def _check(values: Sequence[Any], kind: type | tuple[type, ...]) -> None:
    if not all(isinstance(value, kind) for value in values):
        raise TypeError("of another type")


Part = tuple[str, str]
"""A key, as on the command line, and its value."""


def label(parts: Sequence[Part]) -> str:
    """`sdrrl seed=2`: the method's name, then what else tells the run from the others."""
    return " ".join(value if key == "method" else f"{key}={value}" for key, value in parts)


def distinct(runs: Sequence[Finished]) -> list[tuple[Part, ...]]:
    """For each run its method and the keys in which it differs from the others.

    A group that differs is named by its option; its other keys only where runs with that option differ in them.
    """
    tables = [leaves(run.config) for run in runs]
    keys = list(dict.fromkeys(["method", *(key for one in tables for key in one)]))
    named: list[list[Part]] = [[("method", one["method"])] for one in tables]
    for key in keys[1:]:
        if key in INHERITED and all(one.get(key) == one.get(INHERITED[key]) for one in tables):
            continue
        group = key.partition(".")[0]
        shorter = _shortened({one[key] for one in tables if key in one})
        for one, parts in zip(tables, named, strict=True):
            alike = tables if group == key else [other for other in tables if other.get(group) == one.get(group)]
            if key in one and len({other.get(key) for other in alike}) > 1:
                parts.append((key, shorter[one[key]]))
    texts = [label(parts) for parts in named]
    for run, parts, text in zip(runs, named, texts, strict=True):
        if texts.count(text) > 1:  # the same configuration in two places
            parts.append(("in", str(run.directory)))
    return [tuple(parts) for parts in named]


def leaves(config: Mapping[str, Any]) -> dict[str, str]:
    """Key -> value of all that decides a result, written as on the command line: `backbone`, `lang`, `task`, `seed`."""
    found = {"method": str(config["method"]["name"])}

    def visit(key: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                if name != "_target_":
                    visit(key if name == "name" and "." not in key else f"{key}.{name}", inner)
        else:
            found[key] = _written(value)

    for group, value in config.items():
        if group in UNSEEN:
            continue
        if group == "lang":
            found |= {"lang": _written(list(value["targets"])), "source": str(value["source"])}
            continue
        if group == "task":
            found["task"] = _written(list(value))
        visit(group, value)
    return found


def _written(value: Any) -> str:
    if isinstance(value, list):
        texts = [_written(one) for one in value]
        return texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _shortened(values: set[str]) -> dict[str, str]:
    """Paths by their last part and long lists by their beginning, where that tells them apart."""
    short = {value: Path(value).name or value for value in values}
    short = {
        value: text if len(text) <= VALUE_LETTERS else f"{text[:VALUE_LETTERS]}.." for value, text in short.items()
    }
    return short if len(set(short.values())) == len(values) else {value: value for value in values}
