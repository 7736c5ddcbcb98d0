"""Makes Hydra's composition cheap for sweeps: a cell costs a copy where Hydra composes its whole configuration anew.

Hydra takes 0.2 s for one, and composes each cell of a sweep twice: to check the sweep and to launch it. What comes out
is the very same, which `tests/test_composition.py` holds it to.
"""

import copy
import re
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from sdx.languages import codes, language

LANGUAGE = re.compile(r"""[^\s,\[\](){}'"]+""")
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


def quicken() -> None:
    """For all compositions of this process."""
    # Hydra copies the store, with every language in it, whenever it composes.
    ConfigStore.__deepcopy__ = lambda store, _: store  # type: ignore[attr-defined]
    ConfigLoaderImpl.load_sweep_config = _load_sweep_config  # type: ignore[method-assign, assignment]


def _load_sweep_config(loader: ConfigLoaderImpl, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
    """As Hydra's: what options make of the configuration is kept; a language and single values are set in a copy."""
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
    kept: dict[Any, tuple[str, DictConfig]] = loader.__dict__.setdefault("sdx_kept", {})
    key = (*master_config.hydra.overrides.hydra, master_config.hydra.job.config_name, bool(languages), *options)
    code = str(languages[0].value()) if languages else ""
    if key not in kept:
        kept[key] = code, _compose(loader, master_config, [*options, *(f"lang={code}" for _ in languages)])
    first, whole = kept[key]
    if code != first and whole.lang.targets != _targets(first):  # something else has a say in the languages
        return _compose(loader, master_config, sweep_overrides)
    composed = copy.deepcopy(whole)
    if code != first:
        with open_dict(composed):
            composed.lang.targets = _targets(code)
            composed.hydra.runtime.choices.lang = code
    if values:
        ConfigLoaderImpl._apply_overrides_to_config(values, composed)
    told = [override for override in parsed if not override.is_hydra_override()]
    composed.hydra.overrides.task = [override.input_line for override in told]
    form = composed.hydra.job.config.override_dirname
    composed.hydra.job.override_dirname = get_overrides_dirname(
        told, kv_sep=form.kv_sep, item_sep=form.item_sep, exclude_keys=form.exclude_keys
    )
    OmegaConf.copy_cache(from_config=master_config, to_config=composed)
    return composed


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
