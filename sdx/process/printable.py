"""Foreign texts made safe to show: on a terminal, in Markdown, in a message."""

import re

_UNSAFE = re.compile(
    "\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control characters, which move a cursor or start a command
    "\u202a-\u202e\u2066-\u2069"  # changes of direction, which make a text read as another
    "\u2028\u2029"  # two more line separators
    "\ud800-\udfff]"  # halves of characters, which no encoding can write
)


def escaped(text: str) -> str:
    r"""The text with what a terminal obeys written out, as `\x1b` or `\u202e`.

    Keeps line ends, tabs, and the joiners and marks that Persian, Hebrew and the scripts of India need.
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
