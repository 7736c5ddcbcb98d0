"""A marker in place of an answer inside its context, which translators copy, and the answer put back in its place.

Translators keep `{{...}}` (see `sdx.text.protect`), so a translated answer always occurs in the translated context,
wherever the marker moves to. The marker is ours.
"""

import re

MARKER = re.compile(r"\{\{answer\d{0,9}\}\}")


def mark(text: str, start: int, answer: str) -> str | None:
    """`text` with a marker in place of the answer that begins at character `start`; None if the answer is not there.

    The marker is `{{answer}}`; a text that has that already gets `{{answer2}}`, and so on: see `marker`.
    """
    end = start + len(answer)
    if start < 0 or not answer or text[start:end] != answer:
        return None
    rest = text[:start] + "\n" + text[end:]  # a marker cannot arise across the seam
    last = marker(rest)
    return text[:start] + f"{{{{answer{_number(last) + 1 if last else ''}}}}}" + text[end:]


def marker(text: str) -> str | None:
    """The marker that `mark` put into a text: of all that look like a marker, that with the highest number."""
    return max((found[0] for found in MARKER.finditer(text)), key=_number, default=None)


def unmark(text: str, answer: str) -> str:
    """`text` with the answer in place of its marker, if it has one."""
    name = marker(text)
    return text.replace(name, answer) if name else text


def _number(name: str) -> int:
    return int(name.strip("{answer}") or 1)
