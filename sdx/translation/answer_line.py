"""The translation in what a prompted model writes, which may hold more: labels, quotes, another example. Ours."""

QUOTES = {'"': '"', "“": "”", "„": "“", "«": "»", "「": "」", "『": "』", "'": "'", "‘": "’"}

COLONS = (":", "：")
"""At the end of a line that only announces the translation."""


def answer_line(answer: str, sentence: str, labels: tuple[str, str], delimiter: str) -> str:
    """One line; empty where the answer holds none.

    What the sentence itself has is no wrapping: its labels, quotes and final colon stay.

    Args:
        sentence: what was to be translated.
        labels: names of its language and of the translation's, as the prompt writes them before a colon.
        delimiter: after which another example would come.
    """
    asked, answered = (f"{label}:" for label in labels)
    if "\n" not in delimiter and delimiter not in sentence:
        answer = answer.partition(delimiter)[0]
    if asked not in sentence:  # further on it begins another example, at the start it repeats this one
        answer = answer.partition(asked)[0].strip() or answer
    lines = _lines(answer, answered, sentence)
    announced = () if sentence.endswith(COLONS) else COLONS
    line = next((line for line in lines if not line.endswith(announced)), lines[0] if lines else "")
    if line.startswith(asked) and asked not in sentence:
        return ""
    return _unquoted(line, sentence)


def _lines(answer: str, label: str, sentence: str) -> list[str]:
    """Those with text: from the label on, where a line begins with it, and without it."""
    lines = [line.strip() for line in answer.splitlines()]
    if not sentence.startswith(label):
        labelled = next((place for place, line in enumerate(lines) if line.startswith(label)), 0)
        lines = [line.removeprefix(label).strip() for line in lines[labelled:]]
    return [line for line in lines if line]


def _unquoted(line: str, sentence: str) -> str:
    """Without the quotes around the whole, which the sentence has not."""
    inner, opening = line[1:-1], line[:1]
    wrapped = len(line) > 2 and QUOTES.get(opening) == line[-1]
    if not wrapped or sentence[:1] in QUOTES or opening in inner or line[-1] in inner:
        return line
    return inner.strip()
