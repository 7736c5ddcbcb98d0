"""Keys, tokens and passwords, kept out of whatever a run writes, sends or prints.

An option with a secret is refused before anything is written, because options are published: in the report, in the run
directory, on dashboards. Secrets in a library's error or in a text are masked when they are written.
"""

import logging
import os
import re
import sys
import traceback
from collections.abc import Callable
from enum import Enum
from types import TracebackType
from typing import Any
from urllib.parse import unquote

WORDS = {"key", "pat", "pass", "jwt", "credential", "credentials"}
"""Words that make a name the name of a secret: WANDB_API_KEY and GITHUB_PAT, but not keep_groups."""
ENDINGS = ("apikey", "token", "secret", "password", "passwd", "passphrase")
"""Endings of such words: PGPASSWORD and HF_TOKEN, but not max_new_tokens."""
SHORTEST = 8
"""Shortest secret value, in characters: `1` in the environment is no secret."""
REMOVED = "[removed]"
TOKENS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:hf|api_org)_[A-Za-z0-9]{16,}"  # Hugging Face
    r"|gh[opsur]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"  # GitHub, GitLab
    r"|sk-(?=[\w-]*\d)[\w-]{20,}|xox[a-z]-[\w-]{10,}"  # OpenAI, Anthropic; Slack
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{35}"  # Amazon, Google
    r"|wandb_v1_\w{16,}|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{30,}"
    r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}"  # a JSON web token
    r")"
)
"""Older keys of wandb are 40 hexadecimal digits, as commits are, and are recognised by their names only."""
LOGIN = re.compile(r"""(://[^\s/:@?#"'<>,]*:)([^\s/?#"'<>,]+)@""")
"""User and password in a URL; the second group is the password."""
VARIABLE = r"(?<=_env=)[A-Z][A-Z0-9_]*(?!\S)"
"""The name of a variable that holds a secret, as in key_env=OPENAI_API_KEY."""
ASSIGNED = re.compile(rf"(\w+)=(?!{VARIABLE})[^\s${{][^\s]{{{SHORTEST - 1},}}")
"""A value that a shell or a command line sets, and does not take from a variable."""


def is_secret(name: str) -> bool:
    """Whether a value of that name is a secret."""
    words = re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    return any(word in WORDS or word.endswith(ENDINGS) for word in words)


def scrub(text: str) -> str:
    """The text without the secrets of the environment and without what looks like a secret."""
    return _mask()(text)


def scrub_all(value: Any) -> Any:
    """A JSON value, all its texts scrubbed."""
    return _scrubbed(value, _mask(), drop=False)


def clean(value: Any) -> Any:
    """A configuration without keys that name a secret, all other texts scrubbed."""
    return _scrubbed(value, _mask(), drop=True)


class MaskingFormatter(logging.Formatter):
    """Scrubs the messages and tracebacks of a log."""

    def format(self, record: logging.LogRecord) -> str:
        return scrub(super().format(record))


def print_exception(error: BaseException) -> None:
    """Prints the traceback, scrubbed."""
    print(scrub("".join(traceback.format_exception(error))), end="", file=sys.stderr)


def except_hook(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    """For `sys.excepthook`."""
    print_exception(error)


def found_in(text: str) -> str | None:
    """Says which secret a text has without revealing it: `looks like a secret (hf_...)`; none if it has no secret."""
    if token := TOKENS.search(text):
        return f"looks like a secret ({token[0][:3]}...)"
    if LOGIN.search(text):
        return "holds a URL with a password"
    if name := next((name for value, name in _values().items() if value in text), None):
        return f"holds the value of the environment's {name}"
    names = (assigned[1] for assigned in ASSIGNED.finditer(text))
    return next((f"sets {name}, which is named like a secret" for name in names if is_secret(name)), None)


def _values() -> dict[str, str]:
    """Secret values of the environment -> name of the variable."""
    found = {}
    for name, value in os.environ.items():
        value = value.strip()
        if is_secret(name) and not os.path.exists(value):  # the path of a file with a secret is no secret
            found[value] = name
        for login in LOGIN.finditer(value):
            found |= {login[2]: name, unquote(login[2]): name}
    return {value: name for value, name in found.items() if len(value) >= SHORTEST}


def _mask() -> Callable[[str], str]:
    values = sorted(_values(), key=len, reverse=True)
    known = re.compile("|".join(map(re.escape, values))) if values else None

    def mask(text: str) -> str:
        text = known.sub(REMOVED, text) if known else text
        return LOGIN.sub(rf"\1{REMOVED}@", TOKENS.sub(REMOVED, text))

    return mask


def _scrubbed(value: Any, mask: Callable[[str], str], drop: bool) -> Any:
    """The value with all texts masked and, if `drop`, without texts under the name of a secret."""
    if isinstance(value, dict):
        return {
            mask(name) if isinstance(name, str) else name: _scrubbed(inner, mask, drop)
            for name, inner in value.items()
            if not (drop and isinstance(inner, str) and is_secret(str(name)))
        }
    if isinstance(value, (list, tuple)):
        return [_scrubbed(inner, mask, drop) for inner in value]
    return mask(value) if isinstance(value, str) and not isinstance(value, Enum) else value
