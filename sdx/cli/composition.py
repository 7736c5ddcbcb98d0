"""Hydra's composition, made safe and cheap: what it composes is held to the schema, and a cell of a sweep costs a copy.

Hydra takes 0.2 s to compose a configuration. What comes out is the very same, which
`tests/cli/test_composition.py` holds it to.
"""

import copy
import re
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import Container, DictConfig, Node, OmegaConf, open_dict

from sdx import InputError
from sdx.cli import config_files
from sdx.languages import codes, language
from sdx.options import conformity

LANGUAGE = re.compile(r"""[^\s,\[\](){}'"]+""")
STUMBLES = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What Hydra raises where it did not foresee what it is given."""
PARTIAL = "sdx_partial"
"""Of a loader: what it composes is not whole yet."""
OF_A_CELL = ("job", "overrides", "run", "runtime", "sweep")
"""Parts of Hydra's configuration that are set for each cell."""
_load = ConfigLoaderImpl.load_configuration
_compose = ConfigLoaderImpl.load_sweep_config


def spelled(argument: str) -> str:
    """An argument of the command line, the languages of `lang=` in the table's spelling, which Hydra's options have."""

    def code(found: re.Match[str]) -> str:
        try:
            return found[0] if found[0] in codes() else language(found[0]).code
        except ValueError:  # the name of a set or of a function of Hydra's, or an error that is told with the options
            return found[0]

    key, is_lang, value = argument.partition("lang=")
    return f"lang={re.sub(LANGUAGE, code, value)}" if is_lang and not key else argument


def install() -> None:
    """For all compositions of this process."""
    # Hydra copies the store, with every language in it, whenever it composes.
    ConfigStore.__deepcopy__ = lambda store, _: store  # type: ignore[attr-defined]
    config_files.guard()
    ConfigLoaderImpl.load_configuration = _load_configuration  # type: ignore[method-assign, assignment]
    ConfigLoaderImpl.load_sweep_config = _load_sweep_config  # type: ignore[method-assign, assignment]


def _load_configuration(
    loader: ConfigLoaderImpl, config_name: str | None, overrides: list[str], run_mode: RunMode, **more: Any
) -> DictConfig:
    """As Hydra's, held to the schema.

    Raises:
        InputError: a key or a value that the schema does not have, or overrides of a shape that Hydra stumbles over.
    """
    try:
        for override in OverridesParser.create().parse_overrides(overrides):
            _check_shape(override, loader)
        config = _load(loader, config_name, overrides, run_mode, **more)
    except (HydraException, InputError):
        raise
    except STUMBLES as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{' '.join(overrides)} cannot be composed: {reason}; see python -m sdx --help") from error
    if run_mode is RunMode.MULTIRUN:  # its cells have the values that it lacks
        conformity.check(config.hydra, "hydra")
    elif not loader.__dict__.get(PARTIAL):
        conformity.check(config)
    return config


def _check_shape(override: Override, loader: ConfigLoaderImpl) -> None:
    """Raises InputError for a group that is given anything but an option or a list of options."""
    group, value = override.key_or_group, override.value()
    if override.is_sweep_override() or override.is_delete() or not loader.repository.group_exists(group):
        return
    if isinstance(value, dict):  # values rather than an option
        return
    if not all(isinstance(one, str) for one in (value if isinstance(value, list) else [value])):
        raise InputError(f"{override.input_line}: give an option, {group}=a, or a list of options, {group}=[a,b]")


def _load_sweep_config(loader: ConfigLoaderImpl, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
    """As Hydra's: what options make of the configuration is kept; a language and single values are set in a copy.

    Parts that nothing changes are shared by all copies, which are for reading.
    """
    parsed = OverridesParser.create().parse_overrides(sweep_overrides)
    languages = [override for override in parsed if _names_a_language(override)]
    values = [override for override in parsed if _sets_a_value(override, loader)]
    options = [
        line
        for line, override in zip(sweep_overrides, parsed, strict=True)
        if override not in values and override not in languages[:1]
    ]
    if len(languages) > 1:
        return _compose(loader, master_config, sweep_overrides)
    kept: dict[Any, tuple[str, DictConfig, list[tuple[str, Container]]]] = loader.__dict__.setdefault("sdx_kept", {})
    key = (*master_config.hydra.overrides.hydra, master_config.hydra.job.config_name, bool(languages), *options)
    code = str(languages[0].value()) if languages else ""
    if key not in kept:
        whole = _compose_partly(loader, master_config, [*options, *(f"lang={code}" for _ in languages)])
        kept[key] = code, whole, _still(whole)
    first, whole, still = kept[key]
    if code != first and whole.lang.targets != _targets(first):  # something else has a say in the languages
        return _compose(loader, master_config, sweep_overrides)
    touched = {override.key_or_group.partition(".")[0] for override in parsed}
    composed = copy.deepcopy(whole, {id(node): node for name, node in still if name not in touched})
    if code != first:
        with open_dict(composed):
            composed.lang.targets = _targets(code)
            composed.hydra.runtime.choices.lang = code
    if values:
        ConfigLoaderImpl._apply_overrides_to_config(values, composed)
    conformity.check(composed)
    told = [override for override in parsed if not override.is_hydra_override()]
    composed.hydra.overrides.task = [override.input_line for override in told]
    form = composed.hydra.job.config.override_dirname
    composed.hydra.job.override_dirname = get_overrides_dirname(
        told, kv_sep=form.kv_sep, item_sep=form.item_sep, exclude_keys=form.exclude_keys
    )
    OmegaConf.copy_cache(from_config=master_config, to_config=composed)
    return composed


def _compose_partly(loader: ConfigLoaderImpl, master_config: DictConfig, options: list[str]) -> DictConfig:
    """What options make of the configuration; what may be wrong with it, the values to come may mend."""
    loader.__dict__[PARTIAL] = True
    try:
        return _compose(loader, master_config, options)
    finally:
        del loader.__dict__[PARTIAL]


def _still(whole: DictConfig) -> list[tuple[str, Container]]:
    """(first part of its key, part) of what takes nothing from elsewhere: where nobody sets it, all cells share it."""
    parts = [(str(name), node) for name, node in _parts(whole) if name not in ("hydra", "lang")]
    parts += [("", node) for name, node in _parts(whole._get_node("hydra")) if name not in OF_A_CELL]
    return [(name, node) for name, node in parts if not _takes(node)]


def _parts(node: Any) -> list[tuple[Any, Container]]:
    content = node._value()
    return [(name, child) for name, child in content.items() if isinstance(child, Container)]


def _takes(node: Node) -> bool:
    """Whether there is an interpolation in it."""
    content: Any = node._value()
    if isinstance(content, dict | list):
        return any(map(_takes, content.values() if isinstance(content, dict) else content))
    return node._is_interpolation()


def _targets(code: str) -> dict[str, str]:
    return {code: codes()[code].flores}


def _names_a_language(override: Override) -> bool:
    """Whether it is `lang=` one of the languages of the table, whose options no file says more of."""
    return override.input_line == f"lang={override.value()}" and override.value() in codes()


def _sets_a_value(override: Override, loader: ConfigLoaderImpl) -> bool:
    """Whether it has no part in which files are composed."""
    return (
        not override.is_hydra_override()
        and override.package is None
        and not loader.repository.group_exists(override.key_or_group)
    )
