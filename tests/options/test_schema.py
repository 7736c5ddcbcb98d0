"""Every key of every dataclass is checked: numbers, names and paths have limits, and unknown keys are refused."""

import math
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf, open_dict

from sdx import InputError
from sdx.cli import main
from sdx.config import Config
from sdx.options import schema
from sdx.options.fields import SPEC, Range, Text
from tests.kit.composing import checked

main.register()
COMPOSITIONS = {
    "mt_stack by Optuna": (
        "method=mt_stack",
        "hydra/launcher=slurm",
        "hydra/sweeper=optuna",
        "task=[xnli,mkqa,flores,lm_eval]",
        "task.lm_eval.names=[belebele_tha_Thai]",
    ),
    "sdrrl with NLLB": ("method=sdrrl", "translator=nllb_600m", "translator@mt=self", "corpus=alpaca"),
    "an endpoint, and an LLM that translates": ("generator=server", "translator=hy_mt2_7b"),
    "vLLM": ("generator=vllm",),
    **{name: (f"method={name}",) for name in main.options("method")},
}
"""Together they have every dataclass of a run's configuration."""
CONTROLS = ("a\0b", "a\x1bb", "a\nb", "\ud800")
NO_NAMES = ("", ".", "..", "-x", "a/b", "../../x", "a b", "x" * 300, "\u202ex", *CONTROLS)
NO_PATHS = ("", " ", "/x/" + "y" * 300, "/x" * 4000, *CONTROLS)
Place = tuple[str, str]
"""A composition, and a key in it."""


composed = cache(checked)


def schemas() -> set[type]:
    """All dataclasses of sdx that are registered with Hydra, and those inside them."""
    store = ConfigStore.instance().repo
    found: set[type] = set()

    def visit(schema: Any) -> None:
        if is_dataclass(schema) and schema not in found:
            found.add(schema)
            for hint in typing.get_type_hints(schema).values():
                for part in (hint, *typing.get_args(hint)):
                    visit(part)

    def walk(tree: Any) -> None:
        for value in tree.values():
            walk(value) if isinstance(value, dict) else visit(OmegaConf.get_type(value.node))

    walk(store)
    visit(Config)
    return {schema for schema in found if schema.__module__.startswith("sdx.")}


def nodes(node: Any, key: str = "") -> Iterator[tuple[str, DictConfig]]:
    """The dataclasses of sdx in a composition."""
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing() or node._is_interpolation():
        return
    schema = OmegaConf.get_type(node)
    if is_dataclass(schema) and schema.__module__.startswith("sdx."):
        yield key, node
    for name in node:
        yield from nodes(node._get_node(name), f"{key}.{name}" if key else str(name))


def keys(*kinds: Any) -> list[Place]:
    """One place for each field of each dataclass that has such a specification."""
    found: dict[tuple[type, str], Place] = {}
    for name, overrides in COMPOSITIONS.items():
        for key, node in nodes(composed(*overrides)):
            schema = OmegaConf.get_type(node)
            for field in fields(schema):
                spec = field.metadata.get(SPEC)
                if isinstance(spec, kinds) and typing.get_origin(typing.get_type_hints(schema)[field.name]) is not dict:
                    found.setdefault((schema, field.name), (name, f"{key}.{field.name}" if key else field.name))
    return list(found.values())


def refused(place: Place, value: Any) -> str | None:
    """What `schema.check` says when the key has the value."""
    config = composed(*COMPOSITIONS[place[0]])
    at, _, name = place[1].rpartition(".")
    parent = OmegaConf.select(config, at) if at else config
    node = parent._get_node(name)
    before = node._value()
    node._val = value  # even values that OmegaConf itself would refuse
    try:
        schema.check(parent, at)
    except InputError as error:
        return str(error)
    finally:
        node._val = before
    return None


def is_a_number(hint: Any) -> bool:
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, UnionType, dict, list) else (hint,)
    return any(part in (int, float) for part in parts)


def test_every_number_has_a_range_and_every_default_is_in_it():
    without, outside = [], []
    for one in schemas():
        hints = typing.get_type_hints(one)
        for field in fields(one):
            spec = field.metadata.get(SPEC)
            if is_a_number(hints[field.name]) and not isinstance(spec, Range):
                without.append(f"{one.__name__}.{field.name}")
            elif isinstance(spec, Range) and isinstance(field.default, int | float) and field.default not in spec:
                outside.append(f"{one.__name__}.{field.name}")
    assert without == []
    assert outside == []


def test_the_compositions_have_every_dataclass():
    there = {OmegaConf.get_type(node) for it in COMPOSITIONS.values() for _, node in nodes(composed(*it))}
    assert {schema.__name__ for schema in schemas() - there} == {
        *("MethodConfig", "TranslatorConfig"),  # base classes
    }


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**20, -1, True, "many"], ids=str)
def test_no_number_is_taken_that_makes_no_sense(value: Any):
    """-1 and infinity mean nothing anywhere."""
    places = keys(Range)
    assert len(places) > 70
    for place in places:
        said = refused(place, value)
        assert said, place
        assert said.startswith(f"{place[1]}={value} "), said
        assert "; give " in said
        assert "\n" not in said


def test_zero_and_bounds_are_as_the_range_says():
    for place in keys(Range):
        at, _, name = place[1].rpartition(".")
        node = OmegaConf.select(composed(*COMPOSITIONS[place[0]]), at) if at else composed(*COMPOSITIONS[place[0]])
        spec = next(field for field in fields(OmegaConf.get_type(node)) if field.name == name).metadata[SPEC]
        for value in (0, spec.low, spec.high):
            assert (refused(place, value) is None) == (value in spec), (place, value)


@pytest.mark.parametrize("value", NO_NAMES, ids=repr)
def test_names_stay_names(value: str):
    places = [place for place in keys(Text) if place[1].endswith((".name", ".benchmark", ".study"))]
    assert len(places) > 12
    for place in places:
        said = refused(place, value)
        assert said, place
        assert said.startswith(f"{place[1]}=")
        assert said.isprintable()


@pytest.mark.parametrize("name", ["smollm2_135m", "qwen2.5-7b+lora", "हिन्दी", "7b", "_x"])
def test_names_that_are_names(name: str):
    assert refused(("sdrrl with NLLB", "backbone.name"), name) is None


@pytest.mark.parametrize("value", NO_PATHS, ids=repr)
def test_paths_can_be_paths(value: str):
    places = [place for place in keys(Text) if place[1].endswith(("path", "_dir", "storage", "demonstrations"))]
    assert len(places) > 8
    for place in places:
        said = refused(place, value)
        assert said, place
        assert said.isprintable()


def test_no_text_has_characters_that_no_text_has():
    """Also those that are neither a name nor a path."""
    for key in ("encoder.prefix", "text.column", "tracking.project", "task.xnli.prompt", "hydra.job.name"):
        for value in ("a\0", "a\x1b[2J", "\ud800"):
            said = refused(("mt_stack by Optuna", key), value)
            assert said
            assert said.startswith(f"{key}=")


def test_a_key_that_is_a_name():
    config = composed(*COMPOSITIONS["self_translate_train"])
    with open_dict(config):
        config.task["../../x"] = config.task.arc_easy
    try:
        with pytest.raises(InputError, match=r"a key of task=\.\./\.\./x is not a name"):
            schema.check(config)
    finally:
        with open_dict(config):
            del config.task["../../x"]


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_no_dataclass_takes_another_key(name: str):
    config = composed(*COMPOSITIONS[name])
    schema.check(config)
    for key, node in list(nodes(config)):
        with open_dict(node):
            node["nonsense"] = 1
        try:
            with pytest.raises(InputError) as caught:
                schema.check(config)
        finally:
            with open_dict(node):
                node.pop("nonsense")
        where = f"{key}.nonsense" if key else "nonsense"
        assert str(caught.value).startswith(f"{where}: there is no key {where}; ")


def test_a_value_is_blamed_where_it_was_given():
    with pytest.raises(InputError, match=r"^scale\.batch_size=0 is too small"):
        composed("scale.batch_size=0")
    with pytest.raises(InputError, match=r"^backbone\.learning_rate=nan is not a number; give more than 0 to 1$"):
        composed("backbone.learning_rate=nan")
    with pytest.raises(InputError, match=r"^train\.batch_size=\$\{seed\} gives train\.batch_size=0 is too small"):
        composed("seed=0", "train.batch_size=${seed}")
    for override, message in (
        ("filters.answers=[emty]", r"answers\.0=emty is unknown; did you mean empty\? Choose from: empty, truncated"),
        ("filters.answers=[copied]", r"answers\.0=copied is unknown; Choose from"),
        ("filters.tasks=[final_numbers]", r"tasks\.0=final_numbers is unknown; did you mean final_number\?"),
        ("filters.translations=[empty,refusal]", r"translations\.1=refusal is unknown; Choose from: empty"),
    ):
        with pytest.raises(InputError, match=rf"^filters\.{message}"):
            composed(override)
    with pytest.raises(InputError, match=r"^train\.max_grad_norm=nan is not a number"):
        composed("train.max_grad_norm=nan")
