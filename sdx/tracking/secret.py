"""Keys and tokens kept out of what is logged."""

import os
import re
from typing import Any

NAMES = {"key", "apikey", "token", "secret", "password", "passwd", "credential", "credentials"}
"""Words that make a name a secret's: HF_TOKEN and WANDB_API_KEY, but not max_new_tokens."""
SHORTEST = 8
"""Letters of a secret value at least: `1` in the environment is none."""
REMOVED = "[removed]"


def is_secret(name: str) -> bool:
    """Whether a value of that name is a secret."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return not NAMES.isdisjoint(re.split(r"[^a-z]+", words))


def scrub(text: str) -> str:
    """The text without the values of the environment's secrets."""
    for name, value in os.environ.items():
        if is_secret(name) and len(value) >= SHORTEST:
            text = text.replace(value, REMOVED)
    return text


def clean(value: Any) -> Any:
    """A configuration without secrets: keys that name one are dropped, values that contain one are blanked."""
    if isinstance(value, dict):
        return {name: clean(inner) for name, inner in value.items() if not is_secret(str(name))}
    if isinstance(value, (list, tuple)):
        return [clean(inner) for inner in value]
    return scrub(value) if isinstance(value, str) else value
