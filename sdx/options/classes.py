"""The class that a `_target_` of the configuration names."""

import importlib
from typing import Any

from sdx import InputError


def import_class(path: str) -> Any:
    """Limited to sdx: a configuration is data, not a program.

    Raises:
        InputError: there is no such class.
    """
    module, _, name = path.rpartition(".")
    if not module.startswith("sdx."):
        raise InputError(f"_target_={path} is not in sdx; name a class as sdx.module.Class")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise InputError(f"_target_={path} does not exist; see the YAML files of that group in conf/") from None
