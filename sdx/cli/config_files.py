"""The YAML files that Hydra reads: an unreadable one, such as a user's own, gives one line that says where."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf.errors import OmegaConfBaseException

from sdx import InputError

PACKAGE = Path(__file__).parents[1]
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
MOST_VALUES = 100_000
"""In a file, with aliases expanded: a few lines of aliases may stand for billions of values."""


def guard() -> None:
    """Checks all files that this process reads."""
    file_source: Any = SourcesRegistry.instance().resolve("file")  # an import would give another copy of this class
    load: Callable[[ConfigSource, str], ConfigResult] = file_source.load_config

    def load_config(source: ConfigSource, config_path: str) -> ConfigResult:
        path = Path(os.path.realpath(os.path.join(source.path, source._normalize_file_name(config_path))))
        if not path.is_file():
            return load(source, config_path)
        try:
            text = path.read_text(encoding="utf-8")
            if "&" in text and _size(yaml.compose(text, Loader=yaml.SafeLoader), {}) > MOST_VALUES:  # may have aliases
                raise InputError(f"{path} has more than {MOST_VALUES} values, aliases included; write fewer")
            return load(source, config_path)
        except InputError:
            raise
        except yaml.MarkedYAMLError as error:
            raise InputError(f"{path}{_place(error)}: {_reason(error)}") from None
        except RecursionError:
            raise InputError(f"{path} has more levels than can be read; write it flatter") from None
        except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path} cannot be read: {reason}; write it as YAML in UTF-8") from None

    file_source.load_config = load_config


def _size(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Number of values of a node, keys included."""
    if node is None:
        return 0
    if id(node) not in known:
        known[id(node)] = MOST_VALUES + 1  # for a node that contains itself
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


def _place(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _reason(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "it cannot be read"
    if "'\\t'" in problem:
        return "a tab; indent with spaces"
    if "could not determine a constructor" in problem:
        return f"{problem}; a configuration has only plain values, leave the tag out"
    return f"{problem}; check the line, and quote texts with special characters"
