"""The number that a worked answer comes to, in one spelling whatever its script and its separators."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regex import Pattern

HEADING = "####"
"""GSM8K's mark of the last line, which holds the answer alone."""
PLAIN = re.compile(r"0*(\d+?)(?:\.(\d*?)0*)?")
SIGN_CHARS = 20
"""A minus sign with what may stand between it and its number is shorter."""


def final_number(text: str) -> str:
    """The first number after the first "####", or else the last one of the text; nothing where there is none.

    What stands behind is another problem, with which a base model goes on after its answer.

    1,000 and 1.000 and 1 000 are 1000, as are ๑๐๐๐ and １，０００; 3,5 is 3.5, and 18.00 is 18. A unit, a currency or a
    percent sign does not count. Ours.
    """
    _, _, last = text.replace("＃", "#").partition(HEADING)
    # 、 parts the items of a list, which the last line is not
    return _number(last.replace("、", "，"), 0) or _number(text, -1)


def _number(text: str, place: int) -> str:
    """The first number of a text or the last one, by its place."""
    from sdx.text.protect import each_number

    if not (found := list(each_number(text))):
        return ""
    start, number = found[place]
    if not (plain := PLAIN.fullmatch(number)):
        return number
    number = f"{plain[1]}.{plain[2]}" if plain[2] else plain[1]
    return f"-{number}" if number != "0" and _negative(text[:start]) else number


def _negative(before: str) -> bool:
    """Whether a minus sign ends the text before a number: not a dash between two numbers or in a word.

    One with a space behind it is a sign at the beginning, or after an equals sign or a colon; else it is a dash or
    marks an item of a list.
    """
    patterns = _patterns()
    sign = patterns["sign"].search(before, max(0, len(before) - SIGN_CHARS))
    if not sign:
        return False
    before = before[: sign.start()]
    if not sign["apart"]:
        return not patterns["joined"].search(before, max(0, len(before) - SIGN_CHARS))
    return not before.strip() or before.rstrip(" \t\u00a0\u3000")[-1:] in tuple("=＝≈:：(（")


@cache
def _patterns() -> dict[str, Pattern[str]]:
    import regex

    direction = r"[\u200e\u200f\u061c\u2066-\u2069]*+"  # marks of right-to-left texts
    sign = rf"""
        [-−－﹣‐‑‒–⁻] {direction} (?P<apart>[^\S\n]*+)
        (?: (?:\p{{Lu}}{{0,3}}\p{{Sc}} | \p{{Lu}}{{3}} | [%٪％]) [^\S\n]*+ )? {direction} $
    """
    return {
        "sign": regex.compile(sign, regex.VERBOSE),
        "joined": regex.compile(r"(?:[\p{L}\p{M}\p{N}\p{Pe}%٪％‰°]|\p{N}\p{Sc})$"),
    }
