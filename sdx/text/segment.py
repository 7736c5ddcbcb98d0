"""Finds the sentences of a text and translates them; everything between them is kept byte for byte.

Kept are line breaks, indentation, list markers, headings, quotes, table pipes, fenced code, display formulas and lines
without words. `protect` decides what must survive inside a sentence.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from itertools import pairwise

import regex

from sdx.text.protect import BLANK, Engine, Spans, blank, blanks, cut, join, translate_sentences

VERSION = 3
"""Part of each translator's version. Raise it when a change here or in `protect` changes outputs."""
LONGEST_CHARS = 400
"""Longer sentences are cut at a clause boundary: at 800 Bergamot loops and drops words."""


def translate_texts(texts: list[str], engine: Engine, keep: regex.Pattern | None = None) -> list[str]:
    """Translations of whole texts in their layout; each distinct sentence is translated once.

    Args:
        texts: any Unicode, any layout.
        engine: translates a list of sentences.
        keep: matches what this engine cannot read, which is copied.
    """
    parts = [cut(text, find_sentences(text, keep)) for text in texts]
    translations = translate_sentences((sentence for some in parts for sentence in some[1::2]), engine, keep)
    return [join(some, translations) for some in parts]


def find_sentences(text: str, keep: regex.Pattern | None = None) -> Spans:
    """The sentences to translate, in time linear in the length of `text`: each on one line, without outer spaces."""
    sentences: Spans = []
    start = 0
    for block_start, block_end in [*_blocks(text), (len(text), len(text))]:
        for line in text[start:block_start].splitlines(keepends=True):
            sentences += ((start + left, start + right) for left, right in _in_line(line, keep))
            start += len(line)
        start = block_end
    return sentences


# A block starts on its own line. A fence ends at a fence of the same kind, or with the text (CommonMark).
_BLOCK = regex.compile(
    r"""^[ \t>]*(?:
        (?P<fence>`{3,}|~{3,})[^`\n]*$ | (?P<math>\$\$|\\\[) | \\begin\{(?P<env>\w+\*?)\}
      | <!-- | <(?P<tag>pre|script|style|code)\b[^>\n]{0,200}>
    )""",
    regex.MULTILINE | regex.VERBOSE,
)
_PREFIX = regex.compile(
    r"""\s*(?:>\s?)*(?:\#{1,6}\s+)?
    (?:(?:[-*+•·‣◦▪●○■–—] | \(?(?:\d{1,3}|[A-Za-z]|[ivx]{1,5})\) | [A-Z]\. | \d{1,3}\.)\s+
       (?:\[[ xX]\]\s+)?
     | \d{1,3}[.)](?=\p{Lu}) )?""",
    regex.VERBOSE,
)
# Code outside fences, recognised by forms that prose does not have.
_CODE_LINE = regex.compile(
    r"""\s*+(?: (?:>>>|\.\.\.|\$|\#!)\s.* | \#include.* | @\w+
      | .*\w\(.*\)\s?[;{] | .*(?:\)\s?|\s)\{
      | (?:def|function)\s\w+\(.* | class\s\w+(?:\(.*|:) | (?<=\s\s|\t)return\b.*
      | import\s[\w.]+(?:\sas\s\w+)? | from\s[\w.]+\simport\s.*
      | for\s\w+\sin\s.*: | (?:if|elif|while)\s.*[=<>()].*: | (?:else|try|finally):
      | (?:const|let|var|int)\s\w+\s=.* | [a-z_]\w*\s[-+*/]?=\s[\w.]*[("'\[{\d].*
      | [\w.]+\((?:.*["'=,\d].*)?\) | "[\w -]{1,40}"\s?:\s.*
      | SELECT\s.*\sFROM\s.* | (?:SELECT|FROM|WHERE|INSERT|UPDATE|DELETE|CREATE)\s.*; )\s*""",
    regex.VERBOSE,
)
_EQUATION = regex.compile(r"(?=.*[=+×÷^<>*/])(?:\P{L}|(?<!\p{L})[A-Za-zα-ω](?!\p{L}))+")
_TABLE = regex.compile(r"\s*\||.*\s\|\s")
_LINE_TAG = regex.compile(r"(?<!`)</?(?:br|p|li|[uo]l|div|t[dhr]|table|h[1-6])\b[^<>]{0,300}>", regex.I)
_LABEL = regex.compile(r"\s*(\*\*|__)[^*_]{1,80}(?::\1|\1:)(?=\s)")
_STOP = regex.compile(
    r"""(?<![.!?…]) (?P<ascii>[.!?…]++) ["'”’»)\]*_\ue000]*+
        (?=\s++ ["'“‘«(\[*_¿¡]*+ (?!\p{Ll}))
      | (?![.!?]) [\p{STerm}\u037e]++ ["'”’»)\]」』）】*_]*+""",
    regex.VERBOSE,
)
_LAST_WORD = regex.compile(r"(?:^|[\s(\[\"'“‘—–-])((?:\p{L}\p{M}*\.)*[\p{L}\p{M}]+)$")
_ABBREVIATION = regex.compile(
    r"""(?:\p{L}\p{M}*\.)*\p{L}\p{M}* | [ds]ra? | drs | mrs | m[rsx] | profa? | srta | ste? | jr
    | gen | col | capt | lt | sgt | rev | hon | gov | sen | vs | cf | al | viz | ca | approx | dept
    | univ | exm[oa] | av | mme | mlle | hr | fr | nr | bzw | resp | uds? | dott | sig""",
    regex.VERBOSE | regex.IGNORECASE,
)
_BEFORE_NUMBER = regex.compile(
    r"""nos? | figs? | vol | pp | ch | sec | art | eq | cap | p[aá]g | n[uú]m
    | jan | feb | apr | aug | sept | oct | nov | dec""",
    regex.VERBOSE | regex.IGNORECASE,
)
_CLAUSE = regex.compile(r"[,;:،؛—–၊](?=\s)|[、，；：]")
_SPACE = regex.compile(r"\s")
_LETTER = regex.compile(r"\p{L}")
_EMPHASIS = regex.compile(r"(\*{1,3}|_{1,3}|~~)([^\s*_~](?:[^*~]*[^\s*_~])?)(\1[:.,;!?]*)")
_EMOJI = r"\p{Emoji_Presentation}[\p{Emoji_Modifier}\ufe0f]*+"
# Whole emoji only: what goes on in another way stays in the sentence, where it is one span.
_EDGE = rf"</?[A-Za-z][^<>]{{0,300}}>|(?<!\u200d){_EMOJI}(?:\u200d{_EMOJI})*+(?![\u200d\U000e0020-\U000e007f])"
_HEAD = regex.compile(rf"(?:(?:{_EDGE})\s*)*")
_TAIL = regex.compile(rf"(?:\s*(?:{_EDGE}))*$")


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of fenced code, display formulas, comments, preformatted markup."""
    position = 0
    missing: set[str] = set()
    while block := _BLOCK.search(text, position):
        position = block.end()
        if fence := block["fence"]:
            closer = regex.compile(rf"^[ \t>]*{fence}{fence[0]}*[ \t\r]*$", regex.MULTILINE)
            match = closer.search(text, position)
            position = match.end() if match else len(text)
            yield block.start(), position
            continue
        closer = rf"\end{{{block['env']}}}" if block["env"] else f"</{block['tag']}>" if block["tag"] else "-->"
        closer = {"$$": "$$", "\\[": "\\]"}.get(block["math"], closer)
        end = -1 if closer in missing else text.find(closer, position)
        if end < 0:
            missing.add(closer)
        elif not (block["math"] and text.find("\n\n", position, end) >= 0):
            # A block on one line with other words is a part of their sentence.
            position = end + len(closer)
            rest = text[position : text.find("\n", position) + 1 or None]
            if text.find("\n", block.start(), end) >= 0 or not rest.strip():
                yield block.start(), position


def _in_line(line: str, keep: regex.Pattern | None) -> Iterator[tuple[int, int]]:
    short = len(line) <= LONGEST_CHARS
    if short and _CODE_LINE.fullmatch(line):
        return
    start = _PREFIX.match(line).end()
    body = line[start:]
    blanked = blank(body, keep)
    if not _LETTER.search(blanked) or (short and _EQUATION.fullmatch(blanked.strip())):
        return
    for left, right in pairwise([0, *_ends(body, blanked)]):
        if _LETTER.search(blanked, left, right):
            core_start, core_end = _core(body[left:right], blanked[left:right])
            yield start + left + core_start, start + left + core_end


def _ends(body: str, blanked: str) -> Iterator[int]:
    """Ends of sentences, of table cells and of tags that end a line, ascending; the last one is the body's end."""
    ends = {m.end() for m in _STOP.finditer(blanked) if not _abbreviates(blanked, m)}
    tags = (span for span in blanks(blanked) if body[span[0]] == "<" and _LINE_TAG.search(body, *span))
    ends.update(edge for span in tags for edge in span)
    if label := _LABEL.match(blanked):
        ends.add(label.end())
    if _TABLE.match(blanked):
        ends.update(edge for m in regex.finditer(r"\|", blanked) for edge in m.span())
    start = 0
    for end in sorted(ends | {len(body)}):
        while end - start > LONGEST_CHARS:
            start = _clause_end(blanked, start, end)
            yield start
        if end > start:
            yield end
        start = end


def _abbreviates(text: str, stop: regex.Match) -> bool:
    """Whether the full stop belongs to an abbreviation, an initial or a list number."""
    if stop["ascii"] != ".":
        return False
    before = text[max(0, stop.start() - 24) : stop.start()]
    if stop.start() < 5 and before.strip().isdecimal():
        return True
    word = _LAST_WORD.search(before)
    if word and _BEFORE_NUMBER.fullmatch(word[1]):
        return text[stop.end() : stop.end() + 8].lstrip()[:1].isdecimal()
    return bool(word and _ABBREVIATION.fullmatch(word[1]))


def _clause_end(blanked: str, start: int, end: int) -> int:
    """Where to cut a longer stretch: after a clause if possible, otherwise after a word or anywhere."""
    low, high = start + LONGEST_CHARS // 3, start + LONGEST_CHARS
    for mark in (_CLAUSE, _SPACE):
        ends: list[int] = [m.end() for m in mark.finditer(blanked, low, high)]
        if ends:
            return ends[-1]
    while high < end and (blanked[high] == BLANK or unicodedata.category(blanked[high])[0] == "M"):
        high += 1
    return high


def _core(body: str, blanked: str) -> tuple[int, int]:
    """The words of a stretch without the spaces, tags, emoji and emphasis around them."""
    start = _HEAD.match(body, len(body) - len(body.lstrip())).end()
    end = _TAIL.search(body.rstrip(), start).start()
    if emphasis := _EMPHASIS.fullmatch(blanked, start, end):
        start, end = emphasis.span(2)
    core = body[start:end].strip()
    start += body[start:end].find(core)
    return start, start + len(core)
