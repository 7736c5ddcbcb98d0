"""Holds a composed configuration to its schema: unknown keys, missing keys and values out of range are refused.

Hydra's `+` adds any key, and a type lets nan, -1 and `../` in a name pass. So every dataclass in a composed
configuration is checked before a run directory is made.
"""

import difflib
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import MISSING, Container, DictConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdx import InputError
from sdx.languages import language, targets
from sdx.options.fields import SPEC, Choices, Range, Text
from sdx.process.printable import escaped

NAME_BYTES, LINE_LETTERS = 64, 128
PART_BYTES, PATH_BYTES = 255, 4095
"""Limits of file systems, for each part of a path and for all of it."""
SHOWN_LETTERS = 80
MARKS = "._+=-"
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Characters that no text may have: control characters except tab and line ends, and surrogates."""
SET_BY_HYDRA = ("hydra.overrides", "hydra.runtime")
EXTRA_KEYS = {"": {"hydra"}, "hydra": {"env"}}
"""Keys that Hydra adds to those of a dataclass."""


def check_part(schema: type, names: Collection[str], values: Mapping[str, Any], key: str) -> None:
    """Raises InputError for values that these fields of a dataclass cannot have.

    Args:
        key: where the values were given, an option that takes any values.
    """
    whole = OmegaConf.structured(schema)
    for name, value in values.items():
        if name not in names:
            raise InputError(unknown_key(below(key, str(name)), None, [below(key, one) for one in names]))
        try:
            whole[name] = value
        except OmegaConfBaseException as error:
            raise InputError(f"{_shown(below(key, str(name)), value)}: {str(error).splitlines()[0]}") from None
    check(whole, key)


def check(config: DictConfig, at: str = "") -> None:
    """Raises InputError for the first thing that is wrong with a composed configuration, or with its part at a key."""
    nodes = list(_containers(config, at))
    for key, node in nodes:
        for name in _unknown(key, node):
            unknown = below(key, name)
            known = [leaf for leaf in leaves(config, at) if not f"{leaf}.".startswith(f"{unknown}.")]
            raise InputError(unknown_key(unknown, _given(config, unknown), known))
    for key, node in nodes:
        specs = _specs(node)
        _check_complete(key, node, specs)
        for name, child in _children(node):
            if not specs and isinstance(name, str):
                _check_text(f"a key of {key or 'the configuration'}", name, None)
            _check_value(key, node, name, child, specs.get(name))


def unknown_key(key: str, given: str | None, known: Iterable[str]) -> str:
    """The message for a key that does not exist.

    Args:
        given: how the user wrote it.
        known: the keys that exist.
    """
    known = sorted(known)
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    parent = key.rpartition(".")[0]
    siblings = [k for k in known if k.rpartition(".")[0] == parent] if parent else []
    hint = f"did you mean {' or '.join(near)}?" if near else ""
    listed = f"Keys there: {', '.join(siblings)}" if siblings else ""
    fix = " ".join(filter(None, [hint, listed])) or "python -m sdx --help lists the groups, --cfg job the keys"
    return escaped(f"{given or key}: there is no key {key}; {fix}")


def leaves(node: Any, key: str = "") -> list[str]:
    """The keys of all values."""
    if not isinstance(node, DictConfig) or not isinstance(content := node._value(), dict):
        return [key]
    return [leaf for name, child in content.items() for leaf in leaves(child, below(key, str(name)))]


def _containers(node: Container, key: str) -> Iterator[tuple[str, Container]]:
    """All dataclasses, dicts and lists, from the top down."""
    if key in SET_BY_HYDRA:
        return
    yield key, node
    for name, child in _children(node):
        if isinstance(child, Container):
            yield from _containers(child, below(key, str(name)))


def _children(node: Container) -> Iterable[tuple[Any, Node]]:
    """(name, node) of all values; none if the node is null, missing or an interpolation."""
    content: Any = node._value()
    if isinstance(content, dict):
        return content.items()
    return enumerate(content) if isinstance(content, list) else ()


def _specs(node: Container) -> dict[Any, Any]:
    """Field -> its specification or None; empty if the node is no dataclass."""
    schema: Any = node._metadata.object_type
    return {field.name: field.metadata.get(SPEC) for field in fields(schema)} if is_dataclass(schema) else {}


def _unknown(key: str, node: Container) -> list[str]:
    """Keys that the dataclass lacks; in a dict of dataclasses, entries without a `_target_`: no file composed them."""
    if is_dataclass(node._metadata.object_type):
        known = _specs(node).keys() | EXTRA_KEYS.get(key, set())
        return [name for name, _ in _children(node) if name not in known]
    if is_dataclass(node._metadata.element_type):
        entries = ((name, child) for name, child in _children(node) if isinstance(child, DictConfig))
        return [str(name) for name, child in entries if OmegaConf.is_missing(child, "_target_")]
    return []


def _check_complete(key: str, node: Container, specs: Mapping[str, Any]) -> None:
    if key.startswith("hydra") and key not in ("hydra.launcher", "hydra.sweeper"):
        return
    content = node._value()
    if isinstance(content, dict) and (gone := next((name for name in specs if name not in content), None)):
        raise InputError(f"~{below(key, gone)}: this key cannot be left out; give it another value instead")


def _check_value(parent_key: str, parent: Container, name: Any, node: Node, spec: Any) -> None:
    key, value = below(parent_key, str(name)), node._value()
    if spec is Text.languages:
        _check_languages(key, parent[name])
    elif value is None or value == MISSING:
        return
    elif isinstance(node, Container):
        for inner, child in _children(node):
            if isinstance(spec, Range | Choices):
                _check_value(key, node, inner, child, spec)
            elif spec is Text.name:
                _check_text(f"a key of {key}", str(inner), spec)
    else:
        if isinstance(value, str) and node._is_interpolation():
            if spec is None:  # the values that it refers to are checked, and a resolver may be slow or fail
                return
            key = f"{key}={value} gives {key}"
            try:
                value = parent[name]
            except OmegaConfBaseException:  # reported when the value is used
                return
        if isinstance(spec, Range) and value is not None and value not in spec:
            raise InputError(f"{_shown(key, value)} {spec.wrong(value)}; give {spec}")
        if isinstance(value, str) and not isinstance(spec, Range):
            _check_text(key, value, spec)


def _check_languages(key: str, given: Any) -> None:
    given = OmegaConf.to_container(given) if OmegaConf.is_config(given) else given
    try:
        targets(given)
    except ValueError as error:
        if isinstance(given, list):
            given = f"[{','.join('null' if one is None else str(one) for one in given)}]"
        raise InputError(f"{_shown(key, 'null' if given is None else given)}: {error}") from None


def _check_text(key: str, value: str, spec: Text | Choices | None) -> None:
    if reason := _wrong(value, spec):
        raise InputError(f"{_shown(key, value)}{reason if reason[0] == ':' else f' {reason}'}")


def _wrong(text: str, spec: Text | Choices | None) -> str | None:
    """What is wrong with a text of this kind."""
    if found := CONTROLS.search(text):
        return f"has the character {escaped(found[0])}; leave it out"
    if isinstance(spec, Choices):
        return spec.wrong(text)
    if spec is Text.language:
        try:
            language(text)
        except ValueError as error:
            return f": {error}"
    elif spec is Text.name:
        allowed = all(letter.isalnum() or letter in MARKS or unicodedata.category(letter)[0] == "M" for letter in text)
        if not text or not allowed or text[0] in ".-":
            return f"is not a name; use letters, digits and {MARKS}, the first a letter or a digit"
        if (size := len(text.encode())) > NAME_BYTES:
            return f"has {size} bytes; give a name of {NAME_BYTES} or fewer"
    elif spec:
        if not text.strip() or any(unicodedata.category(letter) == "Cc" for letter in text):
            return f"is empty or has a control character; give {'a path' if spec is Text.path else 'one line'}"
        if spec is Text.line and len(text) > LINE_LETTERS:
            return f"has {len(text)} letters; give {LINE_LETTERS} or fewer"
        longest = max(len(part.encode()) for part in text.split("/"))
        if spec is Text.path and (longest > PART_BYTES or len(text.encode()) >= PATH_BYTES):
            return f"is too long for a file system: {PART_BYTES} bytes for each name in it, {PATH_BYTES} for all"
    return None


def _shown(key: str, value: Any) -> str:
    text = str(value)
    line = f"{key}={text if len(text) <= SHOWN_LETTERS else f'{text[:SHOWN_LETTERS]}...'}"
    return escaped(line.replace("\n", "\\n"))


def _given(config: DictConfig, key: str) -> str | None:
    """The override that gives the key, as the user wrote it."""
    lines = [*config.hydra.overrides.task, *config.hydra.overrides.hydra] if "hydra" in config else []
    return next((line for line in lines if f"{line.lstrip('+~').split('=')[0]}.".startswith(f"{key}.")), None)


def below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
