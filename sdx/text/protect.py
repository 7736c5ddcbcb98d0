"""What a translation must keep inside a sentence: code, markup, addresses, formulas, numbers.

Each such span becomes a placeholder that a neural engine copies. Afterwards the placeholders, the numbers and the
markup signs are counted. A sentence that lost one of them is translated again with its numbers hidden too; if that
fails as well, the words around the spans are translated part by part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count, pairwise

import regex

from sdx.text.numbers import ascii_digits, find_numbers

Engine = Callable[[list[str]], list[str]]
"""Sentences in, as many translations out, in the same order."""

Spans = list[tuple[int, int]]
"""(start, end) in a text, ascending and disjoint."""
BLANK = "\ue000"
"""Overwrites what must be copied: a character for private use, which is part of no word."""

# Quantifiers are bounded: an opener without a closer must not make a long line quadratic.
_SPAN = regex.compile(
    r"""
      ``[^\n]{1,300}?`` | `[^`\n]+`                                       # code
    | <(code|kbd|tt)>[^<\n]{0,300}</\1>
    | \$\$[^\n]{1,400}?\$\$ | \\\([^\n]{1,400}?\\\) | \\\[[^\n]{1,400}?\\\]   # formulas
    | (?<![\\$\dA-Z])\$(?![\s$]|\d[\d.,]*\s+\p{L}{2})[^$\n]{1,200}(?<![\s\\])\$(?!\d)
    | \\[A-Za-z]+(?:\{[^{}\n]{0,80}\}){0,3}
    | <<[\d\s.,$%+*/=()-]{1,200}>>(?:\d+(?:[.,]\d+)*)?                     # GSM8K: <<16-3-4=9>>9
    | <!--[^\n]{0,300}?--> | </?[A-Za-z][^<>\n]{0,300}> | &(?:\#\w{1,8}|[A-Za-z]\w{1,30});   # tags
    | (?<=\])\([^()\s]{1,500}\)                                           # target of a link
    | \b(?:(?:https?|ftp)://|www\.)[^\s<>"'`]{0,500}[^\s<>"'`.,;:!?)\]}*_]
    | \b[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64})+
    | (?<![\w@.-])(?:[\w-]{1,63}\.){1,4}(?:com|org|net|edu|gov|io)\b(?:\.[a-z]{2}\b)?
      (?:/[\w./?=&%-]*\w)?
    | \$?\{\{?[^{}\n]{0,80}\}\}? | %\(\w{1,40}\)[sdf] | (?<![\d%\w])%[sdf]\b    # templates
    | (?<![\w@\#&])[@\#]\w{1,60}                                          # handles, hash tags
    | (?<![\w/.>])(?:~|\.{1,2})?/\w[\w.-]{0,60}(?:/[\w.-]{1,60})*\b       # paths, files
    | \b[A-Z]:\\[^\s"<>|]{1,200}
    | \b[\w-]{1,60}\.(?:py|js|txt|csv|json|html?|css|xml|ya?ml|md|pdf|cpp|java|sh|exe|zip|png|jpg)\b
    | \b\w{1,60}(?:\.\w{1,60}){0,5}\(\) | \b[A-Za-z_]\w{0,60}?_\w{1,60}   # identifiers
    | [A-Za-z0-9+/=_-]{61,}                                               # keys, base64
    | (?:\p{Emoji_Presentation}|\p{Emoji}\ufe0f)
      [\p{Emoji_Presentation}\p{EMod}\u200d\ufe0f\u20e3\U000e0020-\U000e007f]*    # 20e3: keycaps, e00..: flags
    """,
    regex.VERBOSE,
)


def _alone(name: str) -> str:
    return rf"(?<![A-Za-z0-9]){name}(?![A-Za-z0-9])"


_PLACEHOLDER = regex.compile(_alone(r"X\d+"))
_NUMBER = regex.compile(r"(?:R\$\s?)?\d+(?:[.,:/]?\w+)*+")
# "3rd", "20th", "1990s" may rightly become words or other numbers: terceiro, século XX, anos 90.
_ORDINAL = regex.compile(r"(?<!\w)\d+(?:st|nd|rd|th|s|º|ª)(?!\w)")
_TERM = r"[-(]{0,3}[$€£]?\d++(?:[.,]\d++)*+[%)]{0,3}"
_EQUATION = regex.compile(rf"(?<![\d.,]){_TERM}(?:\s?[-+*/^=]\s?{_TERM}){{1,40}}+")
_OPERATORS = str.maketrans("−–×÷", "--*/")
_TIMES = regex.compile(r"(?<=\d\s?)x(?=\s?\d)")
_SIGNS = (*"*+=_[]|", "R$")
_EMPHASIS = regex.compile(r"(?<!\w)(\*{1,3}|__)(?=[^\s*_])([^*]+)(?<=[^\s*_])\1(?!\w)")
_IN_WORD = regex.compile(r"[\p{L}\p{M}\p{N}\u200c\u200d]")
# From a letter to the next span or the space before it. Python counts x1c to x1f as spaces, regex does not.
_WORDS = regex.compile(r"\p{L}[^\ue000]*(?<![\s\x1c-\x1f])")


def blank(text: str, keep: regex.Pattern | None = None) -> str:
    """`text` with what must be copied, and what matches `keep`, overwritten by `BLANK` at the same length."""
    for pattern in filter(None, (_SPAN, keep)):
        text = pattern.sub(lambda found: BLANK * len(found[0]), text)
    return text


def blanks(text: str) -> Spans:
    """The stretches that `blank` has overwritten."""
    return [found.span() for found in regex.finditer(f"{BLANK}+", text)]


def cut(text: str, spans: Spans) -> list[str]:
    """`text` in parts that join to it again: every second part is a span, the others lie between the spans."""
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


def join(parts: Sequence[str], translations: Mapping[str, str]) -> str:
    """The parts of `cut` with every second one translated."""
    return "".join(translations[part] if number % 2 else part for number, part in enumerate(parts))


def translate_sentences(sentences: Iterable[str], engine: Engine, keep: regex.Pattern | None = None) -> dict[str, str]:
    """Translation of each distinct sentence, with its spans, numbers and markup intact.

    `engine` is called once, then with the few that lost something, at most three times more.
    """
    done: dict[str, str] = {}
    todo = list(dict.fromkeys(sentences))
    for numbers_too, emphasis in ((False, True), (True, True), (True, False)):
        # Better a fluent sentence without its bold face than one in fragments.
        plain = {s: s if emphasis else _EMPHASIS.sub(r"\2", s) for s in todo}
        masked = {s: _Masked(p, blanks(_blanked(p, keep, numbers_too))) for s, p in plain.items()}
        outputs = _call(engine, (m.text for m in masked.values()))
        done |= {s: m.restore(o) for s, m in masked.items() if m.intact(o := outputs[m.text])}
        todo = [s for s in todo if s not in done]
    parts = {s: cut(s, [m.span() for m in _WORDS.finditer(_blanked(s, keep, numbers_too=True))]) for s in todo}
    outputs = _call(engine, (words for some in parts.values() for words in some[1::2]))
    return done | {s: join(some, outputs) for s, some in parts.items()}


class _Masked:
    """A sentence with X1, X2, ... in place of its spans, and the way back.

    Bergamot copied X1 in each of 66 sentences with up to three of them, as it did other short words with a number (PH1,
    ZQ1, __K1__); it loses forms with signs such as {1}, <1>, @1, #1.
    """

    def __init__(self, sentence: str, spans: Spans) -> None:
        self._hidden: dict[str, tuple[str, str]] = {}
        """Placeholder -> its pattern in a translation, the span."""
        parts = cut(sentence, spans)
        free = (name for number in count(1) if (name := f"X{number}") not in sentence)
        for number in range(1, len(parts), 2):
            # A word that touches the span would fuse with the placeholder: a space separates them meanwhile.
            left, right = (
                " " * bool(_IN_WORD.match(neighbour)) for neighbour in (parts[number - 1][-1:], parts[number + 1][:1])
            )
            name = next(free)
            self._hidden[name] = " ?" * len(left) + _alone(name) + " ?" * len(right), parts[number]
            parts[number] = left + name + right
        self.text = "".join(parts)

    def intact(self, output: str) -> bool:
        """Whether `output` has each placeholder once, and each number, equation and sign as often as the source."""
        names = Counter(_PLACEHOLDER.findall(output))
        if any(names[name] != 1 for name in self._hidden):
            return False
        source, output = (_PLACEHOLDER.sub(" ", text) for text in (self.text, output))
        return (
            not _numbers(_ORDINAL.sub("", source)) - _numbers(output)
            and not _equations(source) - _equations(output)
            and all(source.count(sign) == output.count(sign) for sign in _SIGNS)
            and len(_EMPHASIS.findall(source)) == len(_EMPHASIS.findall(output))
        )

    def restore(self, output: str) -> str:
        """`output` with the spans back in their places."""
        for pattern, span in self._hidden.values():
            output = regex.sub(pattern, lambda _, span=span: span, output)
        return output


def _blanked(sentence: str, keep: regex.Pattern | None, numbers_too: bool) -> str:
    blanked = blank(sentence, keep)
    for found in _NUMBER.finditer(sentence) if numbers_too else ():
        if not _ORDINAL.fullmatch(sentence, *found.span()):
            blanked = blanked[: found.start()] + BLANK * len(found[0]) + blanked[found.end() :]
    return blanked


def _numbers(text: str) -> Counter[str]:
    return Counter(number for _, number in find_numbers(text))


def _equations(text: str) -> Counter[str]:
    """The equations of a text, with ASCII digits and signs alone: 16 - 3 = 13 and $16−$3=$13 are 16-3=13."""
    text = ascii_digits(text) if "=" in text else ""
    matches = _EQUATION.findall(_TIMES.sub("*", text.translate(_OPERATORS)))
    return Counter(regex.sub(r"[^\d+*/^=-]", "", match) for match in matches if "=" in match)


def _call(engine: Engine, texts: Iterable[str]) -> dict[str, str]:
    """Translations of the distinct texts, each on one line; the text itself if the engine returns nothing."""
    unique = list(dict.fromkeys(texts))
    outputs = engine(unique) if unique else []
    if len(outputs) != len(unique):
        raise ValueError(f"the engine returned {len(outputs)} translations of {len(unique)} texts")
    lines = (" ".join(output.splitlines()).strip() for output in outputs)
    return {text: line or text for text, line in zip(unique, lines, strict=True)}
