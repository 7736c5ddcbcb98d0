"""Keys, tokens and passwords, kept out of whatever a run writes, sends or prints.

An option that holds one is refused before anything is written, for options are published: in the report, in the run's
directory, on dashboards. What a run meets on its way, in a library's error or in a text, is masked where it is written.
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
"""Words that make a name a secret's: WANDB_API_KEY and GITHUB_PAT, but not keep_groups."""
ENDINGS = ("apikey", "token", "secret", "password", "passwd", "passphrase")
"""Of a word: PGPASSWORD and HF_TOKEN, but not max_new_tokens."""
SHORTEST = 8
"""Letters of a secret value at least: `1` in the environment is none."""
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
"""What tokens look like. Keys of wandb are 40 hexadecimal digits, as commits are: they are known by their names."""
LOGIN = re.compile(r"""(://[^\s/:@?#"'<>,]*:)([^\s/?#"'<>,]+)@""")
"""Of a URL, with the password as the second group."""
ASSIGNED = re.compile(rf"(\w+)=[^\s${{][^\s]{{{SHORTEST - 1},}}")
"""What a shell, or a command line, is told to set, and not to take from elsewhere."""
SHOWN = 3
"""Letters of a secret that a message may have."""


def is_secret(name: str) -> bool:
    """Whether a value of that name is a secret."""
    words = re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    return any(word in WORDS or word.endswith(ENDINGS) for word in words)


def scrub(text: str) -> str:
    """The text without secrets: values of the environment, and what looks like one."""
    return _mask()(text)


def scrub_all(value: Any) -> Any:
    """What may become JSON, all its texts without secrets."""
    return _scrubbed(value, _mask())


def clean(value: Any) -> Any:
    """A configuration without secrets: keys that name one are dropped, values that contain one are blanked."""
    return scrub_all(_unnamed(value))


class MaskingFormatter(logging.Formatter):
    """Of a log: its messages and tracebacks have no secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return scrub(super().format(record))


def print_exception(error: BaseException) -> None:
    """The traceback, without secrets."""
    print(scrub("".join(traceback.format_exception(error))), end="", file=sys.stderr)


def except_hook(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    """For `sys.excepthook`."""
    print_exception(error)


def found_in(text: str) -> str | None:
    """What secret is in a text, in words that do not give it away: `looks like a secret (hf_...)`; none without one."""
    if token := TOKENS.search(text):
        return f"looks like a secret ({token[0][:SHOWN]}...)"
    if LOGIN.search(text):
        return "holds a URL with a password"
    if name := next((name for value, name in _values().items() if value in text), None):
        return f"holds the value of the environment's {name}"
    names = (assigned[1] for assigned in ASSIGNED.finditer(text))
    return next((f"sets {name}, which is named like a secret" for name in names if is_secret(name)), None)


def _values() -> dict[str, str]:
    """The secrets of the environment, each with its variable's name."""
    found = {}
    for name, value in os.environ.items():
        value = value.strip()
        if is_secret(name) and not os.path.exists(value):  # a file with the secret in it is none
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


def _scrubbed(value: Any, mask: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {mask(name) if isinstance(name, str) else name: _scrubbed(inner, mask) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_scrubbed(inner, mask) for inner in value]
    return mask(value) if isinstance(value, str) and not isinstance(value, Enum) else value


def _unnamed(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _unnamed(inner)
            for name, inner in value.items()
            if not (is_secret(str(name)) and isinstance(inner, str))
        }
    return [_unnamed(inner) for inner in value] if isinstance(value, (list, tuple)) else value
