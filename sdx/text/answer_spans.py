"""The place of an answer inside its context: a marker that translators copy, and the answer put back in its place.

Translators keep `{{...}}` as it is (see `sdx.text.protect`), so that a translated answer occurs in the
translated context by construction, wherever the span moves to. The marker is ours.
"""

import re

MARKER = re.compile(r"\{\{answer(\d{0,9})\}\}")


def mark(text: str, start: int, answer: str) -> str | None:
    """`text` with a marker in place of the answer that begins at character `start`; none where it does not stand there.

    The marker is `{{answer}}`; a text that has that already gets `{{answer2}}`, and so on: see `marker`.
    """
    end = start + len(answer)
    if start < 0 or not answer or text[start:end] != answer:
        return None
    rest = text[:start] + "\n" + text[end:]  # a marker cannot arise across the seam
    highest = max((_number(found) for found in MARKER.finditer(rest)), default=0)
    name = f"{{{{answer{highest + 1 if highest else ''}}}}}"
    return text[:start] + name + text[end:]


def marker(text: str) -> str | None:
    """The marker that `mark` put into a text: of all that look like one, that with the highest number."""
    found = max(MARKER.finditer(text), key=_number, default=None)
    return found[0] if found else None


def unmark(text: str, answer: str) -> str:
    """`text` with the answer in place of its marker; as it is where it has none."""
    name = marker(text)
    return text.replace(name, answer) if name else text


def _number(found: re.Match[str]) -> int:
    return int(found[1] or 1)
