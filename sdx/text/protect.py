"""What a translation must keep inside a sentence: code, markup, addresses, formulas, numbers.

Each such span becomes a placeholder that a neural engine copies. Afterwards the placeholders, the
numbers and the markup signs are counted. A sentence that lost one is translated again with its
numbers hidden too; if that fails as well, the words around the spans are translated part by part.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import regex

Engine = Callable[[list[str]], list[str]]
"""Sentences in, as many translations out, in the same order."""

Spans = list[tuple[int, int]]
"""(start, end) in a text, ascending and disjoint."""

# Quantifiers are bounded: an opener without its closer must not make a long line quadratic.
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
_SPACES = "\u00a0\u2007\u2009\u202f"
_SEPARATORS = str.maketrans("．＇‘،﹐､﹑", ".'’,，、、")
# Between hundreds the full-width comma never stands for a decimal point, and 、 parts items: no item begins with 0.
_FULL_WIDTH = regex.compile(r"(?<!\d)\d{1,3}(?:，\d{3}|、[0０]\d\d)++(?!\d)")
# With a common space between groups of three only: 2 000, but not 2 2000.
_QUANTITY = regex.compile(
    rf"(?<![\w.,])\.\d+|(?<!\d)\d{{1,3}}(?: \d{{3}})++(?![ ]?\d)(?:[.,٫]\d+)?|\d+(?:[.,'’٫٬{_SPACES}]\d+)*+"
)
_GROUPED = regex.compile(
    rf"""(?!0)  # not of 0.125
    (\d{{1,3}}(?P<by>[.,'’ {_SPACES}])\d{{3}}(?:(?P=by)\d{{3}})* | \d{{1,2}}(?P<by>,)(?:\d\d,)+\d{{3}})  # India's
    (?:(?!(?P=by))[.,](\d+))?""",
    regex.VERBOSE,
)
_TERM = r"[-(]{0,3}[$€£]?\d++(?:[.,]\d++)*+[%)]{0,3}"
_EQUATION = regex.compile(rf"(?<![\d.,]){_TERM}(?:\s?[-+*/^=]\s?{_TERM}){{1,40}}+")
_OPERATORS = str.maketrans("−–×÷", "--*/")
_TIMES = regex.compile(r"(?<=\d\s?)x(?=\s?\d)")
_SIGNS = (*"*+=_[]|", "R$")
_EMPHASIS = regex.compile(r"(?<!\w)(\*{1,3}|__)(?=[^\s*_])([^*]+)(?<=[^\s*_])\1(?!\w)")
_LETTER = regex.compile(r"\p{L}")
_IN_WORD = regex.compile(r"[\p{L}\p{M}\p{N}\u200c\u200d]")
_NO_LETTERS = regex.compile(r"\P{L}*+")


def find_spans(text: str, keep: regex.Pattern | None = None) -> Spans:
    """What must be copied. `keep` matches what one engine cannot read, in addition."""
    spans = _merge([m.span() for m in _SPAN.finditer(text)])
    if keep is not None:
        spans = _merge(spans + [m.span() for m in keep.finditer(blank(text, spans))])
    return spans


def blank(text: str, spans: Spans) -> str:
    """`text` with each span overwritten by a private-use character, at the same length."""
    return "".join("\ue000" * len(part) if kept else part for part, kept in _parts(text, spans))


def has_letters(text: str) -> bool:
    """Whether there is anything to translate."""
    return _LETTER.search(text) is not None


def translate_sentences(sentences: Iterable[str], engine: Engine, keep: regex.Pattern | None = None) -> dict[str, str]:
    """Translation of each distinct sentence, with its spans, numbers and markup intact.

    `engine` is called once, then with the few that lost something, at most three times more.
    """
    done: dict[str, str] = {}
    todo = list(dict.fromkeys(sentences))
    for numbers_too, emphasis in ((False, True), (True, True), (True, False)):
        # Better a fluent sentence without its bold face than one in fragments.
        plain = {s: s if emphasis else _EMPHASIS.sub(r"\2", s) for s in todo}
        masked = {s: _Masked(p, _spans(p, keep, numbers_too)) for s, p in plain.items()}
        outputs = _call(engine, (m.text for m in masked.values()))
        done |= {s: m.restore(o) for s, m in masked.items() if m.intact(o := outputs[m.text])}
        todo = [s for s in todo if s not in done]
    cut = {s: _cut(s, _spans(s, keep, numbers_too=True)) for s in todo}
    outputs = _call(engine, (part for parts in cut.values() for part, kept in parts if not kept))
    for sentence, parts in cut.items():
        done[sentence] = "".join(part if kept else outputs[part] for part, kept in parts)
    return done


class _Masked:
    """A sentence with X1, X2, ... in the place of its spans, and the way back.

    Bergamot copied X1 in each of 66 sentences with up to three of them, as it did other short words
    with a number (PH1, ZQ1, __K1__); it loses forms with signs such as {1}, <1>, @1, #1.
    """

    def __init__(self, sentence: str, spans: Spans) -> None:
        self._hidden: dict[str, tuple[bool, str, bool]] = {}
        parts, position, number = [], 0, 0
        for start, end in spans:
            number += 1
            while f"X{number}" in sentence:
                number += 1
            # A word that touches the span would fuse with the placeholder: part them meanwhile.
            left = _IN_WORD.match(sentence[position:start][-1:]) is not None
            right = _IN_WORD.match(sentence, end) is not None
            self._hidden[f"X{number}"] = (left, sentence[start:end], right)
            parts += [sentence[position:start], " " * left, f"X{number}", " " * right]
            position = end
        self.text = "".join(parts) + sentence[position:]

    def intact(self, output: str) -> bool:
        """Whether each placeholder is in `output` once, and each number, equation and sign as often."""
        names = Counter(_PLACEHOLDER.findall(output))
        if any(names[name] != 1 for name in self._hidden):
            return False
        source, output = (_PLACEHOLDER.sub(" ", text) for text in (self.text, output))
        return (
            not numbers(_ORDINAL.sub("", source)) - numbers(output)
            and not _equations(source) - _equations(output)
            and all(source.count(sign) == output.count(sign) for sign in _SIGNS)
            and len(_EMPHASIS.findall(source)) == len(_EMPHASIS.findall(output))
        )

    def restore(self, output: str) -> str:
        """`output` with the spans back in their places."""
        for name, (left, text, right) in self._hidden.items():
            pattern = " ?" * left + _alone(name) + " ?" * right
            output = regex.sub(pattern, lambda _, text=text: text, output)
        return output


def _merge(spans: Spans) -> Spans:
    merged: Spans = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _parts(text: str, spans: Spans) -> list[tuple[str, bool]]:
    """`text` in parts, each with whether it is a span."""
    parts, position = [], 0
    for start, end in spans:
        parts += [(text[position:start], False), (text[start:end], True)]
        position = end
    return [*parts, (text[position:], False)]


def _spans(sentence: str, keep: regex.Pattern | None, numbers_too: bool) -> Spans:
    spans = find_spans(sentence, keep)
    if numbers_too:
        found = (m.span() for m in _NUMBER.finditer(sentence))
        spans = _merge(spans + [n for n in found if not _ORDINAL.fullmatch(sentence, *n)])
    return spans


def _cut(sentence: str, spans: Spans) -> list[tuple[str, bool]]:
    """The words between the spans, and all else (spans, spaces, signs) marked as kept."""
    cut: list[tuple[str, bool]] = []
    for part, kept in _parts(sentence, spans):
        if kept or not has_letters(part):
            cut.append((part, True))
            continue
        head = _NO_LETTERS.match(part).end()
        words = part[head:].rstrip()
        cut += [(part[:head], True), (words, False), (part[head + len(words) :], True)]
    return cut


def numbers(text: str) -> Counter[str]:
    """Its numbers with ASCII digits: 1,000, 1 000, ١٬٠٠٠, １，０００ as 1000, 1.234,5 as 1234.5, 3,5 and ๓.๕ as 3.5."""
    return Counter(number for _, number in each_number(text))


def each_number(text: str) -> Iterator[tuple[int, str]]:
    """(place in the text, number as in `numbers`) of each number, in order."""
    text = text.translate(_SEPARATORS)
    text = _FULL_WIDTH.sub(lambda m: regex.sub("[，、]", ",", m[0]), text)
    for match in _QUANTITY.finditer(text):
        number = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in match[0])
        number, mark, decimals = number.replace("٬", ",").partition("٫")
        number = f"0{number}" if number.startswith(".") else number
        if grouped := _GROUPED.fullmatch(number):
            number = regex.sub(r"\D", "", grouped[1])
            number += f".{grouped[3]}" if grouped[3] else ""
        elif number.count(",") + number.count(".") == 1:
            number = number.replace(",", ".")
        yield match.start(), f"{number}.{decimals}" if mark else number


def _equations(text: str) -> Counter[str]:
    """Its equations, with ASCII digits and signs alone: 16 - 3 = 13 and $16−$3=$13 as 16-3=13."""
    text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text) if "=" in text else ""
    matches = _EQUATION.findall(_TIMES.sub("*", text.translate(_OPERATORS)))
    return Counter(regex.sub(r"[^\d+*/^=-]", "", match) for match in matches if "=" in match)


def _call(engine: Engine, texts: Iterable[str]) -> dict[str, str]:
    """Translations of the distinct texts, on one line each; an empty one leaves the source."""
    unique = list(dict.fromkeys(texts))
    outputs = engine(unique) if unique else []
    if len(outputs) != len(unique):
        raise ValueError(f"the engine returned {len(outputs)} translations of {len(unique)} texts")
    lines = (" ".join(output.splitlines()).strip() for output in outputs)
    return {text: line or text for text, line in zip(unique, lines, strict=True)}
