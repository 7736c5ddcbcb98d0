"""What is wrong with a command line, in one line that names the key, the value and the fix."""

import difflib
import re
from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from sdx import InputError
from sdx.cli.config_files import CONF
from sdx.options import schema
from sdx.options.checks import UNFORESEEN, not_composable

NO_KEY = ("ConfigAttributeError", "ConfigKeyError")
IN_A_FILE = re.compile(r"In '([^']+)': (\w+) raised while composing config:\n(.*)\n\s*full_key: ?(.*)")
"""Hydra's message for a file that does not fit the schema."""


def explain(error: Exception, arguments: Sequence[str]) -> str:
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _unknown_option(error.missing_cfg_file, error.options or [])
    if isinstance(error, OverrideParseException):
        first = str(error).splitlines()[0]
        return f"{error.override}: {first}; quote brackets, braces and commas twice: \"key='a{{b}}'\""
    inner: BaseException | None = error
    while inner is not None:  # Hydra wraps errors of a launcher or a sweeper
        if isinstance(inner, InputError):
            return str(inner)
        inner = inner.__cause__
    method = [argument for argument in arguments if argument.startswith("method=")]
    cause = error.__cause__ if isinstance(error, ConfigCompositionException) and error.__cause__ else error
    given: str | None
    if in_file := IN_A_FILE.match(str(error)):
        file, kind, reason, key = in_file.groups()
        given = f"{key or 'all'} in {file}"
    elif isinstance(cause, OmegaConfBaseException) and cause.full_key:
        kind, reason, key = type(cause).__name__, str(cause).splitlines()[0], cause.full_key
        given = next((a for a in arguments if a.lstrip("+~").split("=")[0] == key), None)
        if "is not a subclass of" in reason:  # a value in place of a dataclass, at a key that may not exist
            parent = re.match(r"Error merging override \+*([^=]+)=", str(error))
            if parent and not any(f"{one}.".startswith(f"{parent[1]}.") for one in _known(method)):
                kind, key, given = NO_KEY[0], parent[1], None
    elif isinstance(error, UNFORESEEN):
        return _not_an_option(arguments) or str(not_composable([*arguments], error))
    else:
        return " ".join(str(error).split())
    if kind in NO_KEY:
        return schema.unknown_key(key, given, _known(method))
    return f"{given or key}: {reason}; see sdx/config.py for the type of {key or 'each key'}"


def _not_an_option(arguments: Sequence[str]) -> str | None:
    """Which argument gives a group something else than an option or a list of options."""
    for override in OverridesParser.create().parse_overrides([one for one in arguments if not one.startswith("-")]):
        group, value = override.key_or_group, override.value()
        values = value if isinstance(value, list) else [value]
        is_group = group == "experiments" or (CONF / group).is_dir()
        if is_group and not all(isinstance(one, str) for one in values):
            return f"{override.input_line}: give an option, {group}=a, or a list of options, {group}=[a,b]"
    return None


def _unknown_option(missing: str, options: Sequence[str]) -> str:
    group, _, value = missing.rpartition("/")
    choices = [option for option in options if not option.startswith("schema")]
    near = difflib.get_close_matches(value, choices, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{group}={value} is unknown; {hint}Choose from: {', '.join(choices)}"


def _known(method: list[str]) -> list[str]:
    """All keys of the default configuration, with that method if it exists."""
    try:
        return schema.leaves(default_config(method))
    except (HydraException, InputError):
        return schema.leaves(default_config([]))


def default_config(overrides: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=overrides)
