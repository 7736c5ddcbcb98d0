"""Holds a composed configuration to its schema: keys that it does not know, keys that are gone, values out of range.

Hydra's `+` adds any key, and a type lets nan, -1 and `../` in a name pass. So each configuration is checked when it has
been composed, before a run directory is made: every dataclass in it, whoever chose it.
"""

import difflib
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from omegaconf import MISSING, Container, DictConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdx import InputError
from sdx.languages import language, targets
from sdx.options.fields import SPEC, Choices, Range, Text
from sdx.process.printable import escaped

NAME_BYTES, LINE_LETTERS = 64, 128
PART_BYTES, PATH_BYTES = 255, 4095
"""What file systems take."""
SHOWN_LETTERS = 80
MARKS = "._+=-"
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""What no text of a configuration has: control characters but tab and the ends of lines, and halves of characters."""
OF_HYDRA = ("hydra.overrides", "hydra.runtime")
"""What Hydra says of itself."""
BESIDE = {"": {"hydra"}, "hydra": {"env"}}
"""Keys that Hydra composes beside those of a dataclass."""


def check_part(schema: type, names: Collection[str], values: Mapping[str, Any], key: str) -> None:
    """Raises InputError for what these fields of a dataclass cannot be, found at a key that takes any values."""
    whole = OmegaConf.structured(schema)
    for name, value in values.items():
        if name not in names:
            raise InputError(unknown_key(_below(key, str(name)), None, [_below(key, one) for one in names]))
        try:
            whole[name] = value
        except OmegaConfBaseException as error:
            raise InputError(f"{_shown(_below(key, str(name)), value)}: {str(error).splitlines()[0]}") from None
    check(whole, key)


def check(config: DictConfig, at: str = "") -> None:
    """Raises InputError for the first thing that is wrong with what Hydra composed, with its own part or without."""
    found = list(_containers(config, at))
    for key, node in found:
        for name in _unknown(key, node):
            unknown = _below(key, name)
            known = [leaf for leaf in leaves(config, at) if leaf != unknown and not leaf.startswith(f"{unknown}.")]
            raise InputError(unknown_key(unknown, _given(config, unknown), known))
    for key, node in found:
        specs = _specs(node)
        _check_there(key, node, specs)
        for name, child in _children(node):
            if not specs and isinstance(name, str):
                _check_text(f"a key of {key or 'the configuration'}", name, None)
            _check_value(key, node, name, child, specs.get(name))


def missing(config: DictConfig) -> list[str]:
    """The keys that have no value yet."""
    nodes = ((_below(key, str(name)), node) for key, its in _containers(config, "") for name, node in _children(its))
    return sorted(key for key, node in nodes if node._is_missing())


def unknown_key(key: str, given: str | None, known: Iterable[str]) -> str:
    """The message for a key that is not there.

    Args:
        given: how the user wrote it.
        known: the keys that are there.
    """
    known = sorted(known)
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    parent = key.rpartition(".")[0]
    siblings = [k for k in known if k.rpartition(".")[0] == parent] if parent else []
    hint = f"did you mean {' or '.join(near)}?" if near else ""
    listed = f"Keys there: {', '.join(siblings)}" if siblings else ""
    fix = " ".join(filter(None, [hint, listed])) or "python -m sdx --help lists the groups, --cfg job the keys"
    return escaped(f"{given or key}: there is no key {key}; {fix}")


def leaves(node: Any, prefix: str = "") -> list[str]:
    """The keys of all values."""
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing() or node._is_interpolation():
        return [prefix]
    return [leaf for name in node for leaf in leaves(node._get_node(name), _below(prefix, str(name)))]


def _containers(node: Container, key: str) -> Iterator[tuple[str, Container]]:
    """All dataclasses, dicts and lists, from the top down."""
    if key in OF_HYDRA:
        return
    yield key, node
    for name, child in _children(node):
        if isinstance(child, Container):
            yield from _containers(child, _below(key, str(name)))


def _children(node: Container) -> Iterable[tuple[Any, Node]]:
    """(name, node) of all in it; nothing where it is null, missing or an interpolation."""
    content: Any = node._value()
    if isinstance(content, dict):
        return content.items()
    return enumerate(content) if isinstance(content, list) else ()


def _specs(node: Container) -> Mapping[Any, Any]:
    """What each field of its dataclass may be; empty where it is of none."""
    return _specs_of(node._metadata.object_type)  # type: ignore[arg-type]


@cache
def _specs_of(schema: Any) -> dict[str, Any]:
    return {field.name: field.metadata.get(SPEC) for field in fields(schema)} if is_dataclass(schema) else {}


def _unknown(key: str, node: Container) -> list[str]:
    """Keys that the node's dataclass does not have; of a dict of dataclasses, entries that nothing was composed for."""
    if is_dataclass(node._metadata.object_type):
        known = _specs(node).keys() | BESIDE.get(key, set())
        return [name for name, _ in _children(node) if name not in known]
    if is_dataclass(node._metadata.element_type):
        entries = ((name, child) for name, child in _children(node) if isinstance(child, DictConfig))
        return [str(name) for name, child in entries if OmegaConf.is_missing(child, "_target_")]
    return []


def _check_there(key: str, node: Container, specs: Mapping[str, Any]) -> None:
    if key.startswith("hydra") and key not in ("hydra.launcher", "hydra.sweeper"):
        return
    there = node._value()
    if isinstance(there, dict) and (gone := next((name for name in specs if name not in there), None)):
        raise InputError(f"~{_below(key, gone)}: this key cannot be left out; give it another value instead")


def _check_value(key: str, parent: Container, name: Any, node: Node, spec: Any) -> None:
    value: Any = node._value()
    if spec is Text.languages:
        _check_languages(_below(key, str(name)), parent[name])
        return
    if value is None or value == MISSING:
        return
    if isinstance(node, Container):
        for one, child in _children(node):
            if isinstance(spec, Range | Choices):
                _check_value(_below(key, str(name)), node, one, child, spec)
            elif spec is Text.name:
                _check_text(f"a key of {_below(key, str(name))}", str(one), spec)
        return
    key = told = _below(key, str(name))
    if isinstance(value, str) and node._is_interpolation():
        if spec is None:  # it is made of what is checked itself, and a resolver may cost or fail
            return
        told = f"{key}={value} gives {key}"
        try:
            value = parent[name]
        except OmegaConfBaseException:  # told where it is used
            return
    if isinstance(spec, Range):
        if value is not None and value not in spec:
            raise InputError(f"{_shown(told, value)} {spec.wrong(value)}; give {spec}")
    elif isinstance(value, str):
        _check_text(told, value, spec)


def _check_languages(key: str, given: Any) -> None:
    given = OmegaConf.to_container(given) if OmegaConf.is_config(given) else given
    try:
        targets(given)
    except ValueError as error:
        each = given if isinstance(given, list) else [given]
        text = ",".join("null" if one is None else str(one) for one in each)
        raise InputError(f"{_shown(key, text if given is not each else f'[{text}]')}: {error}") from None


def _check_text(key: str, value: str, spec: Text | Choices | None) -> None:
    wrong = spec.wrong if isinstance(spec, Choices) else _WRONG[spec]
    if reason := _ill_formed(value) or wrong(value):
        raise InputError(f"{_shown(key, value)}{reason if reason[0] == ':' else f' {reason}'}")


def _ill_formed(text: str) -> str | None:
    if found := CONTROLS.search(text):
        return f"has the character {escaped(found[0])}; leave it out"
    return None


def _wrong_name(text: str) -> str | None:
    allowed = all(letter.isalnum() or letter in MARKS or unicodedata.category(letter)[0] == "M" for letter in text)
    if not text or not allowed or text[0] in ".-":
        return f"is no name; use letters, digits and {MARKS}, the first a letter or a digit"
    if (size := len(text.encode())) > NAME_BYTES:
        return f"is a name of {size} bytes; give one of {NAME_BYTES} or fewer"
    return None


def _wrong_path(text: str) -> str | None:
    if not text.strip():
        return "is empty; give a path"
    if any(unicodedata.category(letter) == "Cc" for letter in text):
        return "has a control character in it; leave it out"
    sizes = [len(part.encode()) for part in text.split("/")]
    if max(sizes) > PART_BYTES or sum(sizes) + len(sizes) > PATH_BYTES:
        return f"is longer than a file system takes: {PART_BYTES} bytes for each name in it, {PATH_BYTES} for all"
    return None


def _wrong_line(text: str) -> str | None:
    if not text.strip() or any(unicodedata.category(letter) == "Cc" for letter in text):
        return "is empty or has a control character in it; give one line"
    if len(text) > LINE_LETTERS:
        return f"has {len(text)} letters; give {LINE_LETTERS} or fewer"
    return None


def _wrong_language(text: str) -> str | None:
    try:
        language(text)
    except ValueError as error:
        return f": {error}"
    return None


_WRONG = {
    None: lambda _: None,
    Text.name: _wrong_name,
    Text.path: _wrong_path,
    Text.line: _wrong_line,
    Text.language: _wrong_language,
}


def _shown(key: str, value: Any) -> str:
    text = str(value)
    line = f"{key}={text if len(text) <= SHOWN_LETTERS else f'{text[:SHOWN_LETTERS]}...'}"
    return escaped(line.replace("\n", "\\n"))


def _given(config: DictConfig, key: str) -> str | None:
    """The override that gives the key, as the user wrote it."""
    lines = [*config.hydra.overrides.task, *config.hydra.overrides.hydra] if "hydra" in config else []
    return next((line for line in lines if f"{line.lstrip('+~').split('=')[0]}.".startswith(f"{key}.")), None)


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
