"""The translation in what a prompted model writes, which may hold more: labels, quotes, another example. Ours."""

QUOTES = {'"': '"', "“": "”", "„": "“", "«": "»", "「": "」", "『": "』", "'": "'", "‘": "’"}
COLONS = (":", "：")
"""At the end of a line that only announces the translation."""


def answer_line(answer: str, sentence: str, labels: tuple[str, str], delimiter: str) -> str:
    """One line; empty if the answer has none.

    Labels, quotes and a final colon that the source sentence has are part of the translation. The prompt writes the
    labels, the names of source and target language, before a colon, and the delimiter between two examples.
    """
    source_label, target_label = (f"{label}:" for label in labels)
    if "\n" not in delimiter and delimiter not in sentence:
        answer = answer.partition(delimiter)[0]
    if source_label not in sentence:  # begins another example, or repeats this one at the start of the answer
        answer = answer.partition(source_label)[0].strip() or answer
    lines = [line.strip() for line in answer.splitlines()]
    if not sentence.startswith(target_label):
        start = next((number for number, line in enumerate(lines) if line.startswith(target_label)), 0)
        lines = [line.removeprefix(target_label).strip() for line in lines[start:]]
    lines = [line for line in lines if line]
    announcing = () if sentence.endswith(COLONS) else COLONS
    line = next((line for line in lines if not line.endswith(announcing)), lines[0] if lines else "")
    if line.startswith(source_label) and source_label not in sentence:
        return ""
    inner, opening = line[1:-1], line[:1]
    is_quoted = len(line) > 2 and QUOTES.get(opening) == line[-1]
    if not is_quoted or sentence[:1] in QUOTES or opening in inner or line[-1] in inner:
        return line
    return inner.strip()
