"""Finished runs read back from their results.json, and short names for them: what differs among them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sdx.config import NEUTRAL_KEYS, TrainConfig
from sdx.store.files import read_json
from sdx.store.run_dir import RESULTS, directories

VALUE_LETTERS = 36
"""Longest value in a name."""
INHERITED = {
    f"train.{field.name}": field.default.strip("${}")
    for field in fields(TrainConfig)
    if isinstance(field.default, str) and field.default.startswith("${")
}
"""Key -> the key whose value it takes by default."""
DIRECTORY = "in"
"""The part of a name that tells two runs of the same configuration apart."""
Column = tuple[str, str, str, str]
"""Task, language, metric, and origin of the items."""
Part = tuple[str, str]
"""A key, as on the command line, and its value."""


def column_of(score: Mapping[str, Any]) -> Column:
    return score["task"], score["language"], score["metric"], score["origin"]


@dataclass(frozen=True)
class FinishedRun:
    directory: Path
    config: Mapping[str, Any]
    scores: Sequence[Mapping[str, Any]]
    """As `sdx.evaluation.scores.Score`."""


def read_runs(paths: Sequence[Path]) -> tuple[list[FinishedRun], list[str]]:
    """The finished runs in and below the directories, each once, and a warning for each that cannot be read."""
    found: dict[Path, FinishedRun] = {}
    warnings: list[str] = []
    for path in paths:
        if not path.is_dir():
            warnings.append(f"{path} is not a directory")
        for directory in sorted(directories(path), key=str):
            try:
                found.setdefault(directory.resolve(), _read(directory))
            except FileNotFoundError:
                warnings.append(f"{directory} has no {RESULTS}: that run has not finished")
            except OSError as error:
                warnings.append(f"{directory / RESULTS} cannot be read: {error.strerror}")
            except (ValueError, TypeError, KeyError, AttributeError):
                warnings.append(f"{directory / RESULTS} is damaged or of another version; start that run again")
    return list(found.values()), warnings


def _read(directory: Path) -> FinishedRun:
    results = read_json(directory / RESULTS)
    config, scores = results["config"], results["scores"]
    _check(list, scores)
    for score in scores:
        score.setdefault("system", "")  # an older sdx knew none
        _check(str, *(score[name] for name in ("task", "language", "metric", "origin", "system")))
        for estimate in (score["before"], *filter(None, (score["after"], score["difference"]))):
            _check((int, float), *(estimate[name] for name in ("value", "low", "high", "n")))
    _check(str, config["method"]["name"], config["backbone"]["name"])
    config["seed"]
    flat(config)
    return FinishedRun(directory, config, scores)


def _check(kind: type | tuple[type, ...], *values: Any) -> None:
    if not all(isinstance(value, kind) for value in values):
        raise TypeError("of another type")


def label(parts: Sequence[Part]) -> str:
    """`sdrrl seed=2`: the method's name, then what else tells the run from the others."""
    return " ".join(value if key == "method" else f"{key}={value}" for key, value in parts)


def name_parts(runs: Sequence[FinishedRun]) -> list[tuple[Part, ...]]:
    """For each run its method and the keys in which it differs from the others.

    A group that differs is named by its option. Its other keys follow only if runs with that option differ in them.
    """
    configs = [flat(run.config) for run in runs]
    names: list[list[Part]] = [[("method", config["method"])] for config in configs]
    for key in dict.fromkeys(key for config in configs for key in config if key != "method"):
        if key in INHERITED and all(config.get(key) == config.get(INHERITED[key]) for config in configs):
            continue
        group = key.partition(".")[0]
        shortened = _shortened({config[key] for config in configs if key in config})
        for config, parts in zip(configs, names, strict=True):
            others = [other for other in configs if group == key or other.get(group) == config.get(group)]
            if key in config and len({other.get(key) for other in others}) > 1:
                parts.append((key, shortened[config[key]]))
    texts = [label(parts) for parts in names]
    for run, parts, text in zip(runs, names, texts, strict=True):
        if texts.count(text) > 1:
            parts.append((DIRECTORY, str(run.directory)))
    return [tuple(parts) for parts in names]


def flat(config: Mapping[str, Any]) -> dict[str, str]:
    """Key -> value of all that decides a result, written as on the command line: `backbone`, `lang`, `task`, `seed`."""
    found = {"method": str(config["method"]["name"])}

    def visit(key: str, value: Any) -> None:
        if not isinstance(value, Mapping):
            found[key] = _written(value)
            return
        for name, inner in value.items():
            if name != "_target_":
                visit(key if name == "name" and "." not in key else f"{key}.{name}", inner)

    for group, value in config.items():
        if group == "lang":
            found |= {"lang": _written(list(value["targets"])), "source": str(value["source"])}
        elif group not in NEUTRAL_KEYS:
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
    """Value -> the last part of a path, or the beginning of a long list, unless two values would look alike."""
    short = {value: Path(value).name or value for value in values}
    short = {
        value: text if len(text) <= VALUE_LETTERS else f"{text[:VALUE_LETTERS]}.." for value, text in short.items()
    }
    return short if len(set(short.values())) == len(values) else {value: value for value in values}
