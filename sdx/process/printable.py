"""Texts that others wrote, as they can be shown: on a terminal, in Markdown, in a message."""

import re

_OBEYED = re.compile(
    "\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control characters, which move a cursor or start a command
    "\u202a-\u202e\u2066-\u2069"  # what turns the direction of a text, and lets it read otherwise than it is
    "\u2028\u2029"  # two more ends of a line
    "\ud800-\udfff]"  # halves of a character, which nothing can write
)


def escaped(text: str) -> str:
    r"""The text with what a terminal obeys written out, as `\x1b` or `\u202e`.

    Ends of lines and tabs stay, and so do the joiners and marks that Persian, Hebrew and the scripts of India need.
    """
    return _OBEYED.sub(lambda found: _written(ord(found[0])), text)


def _written(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
