"""Numbers of a text in one spelling, whatever their script and separators, and the number a worked answer comes to."""

import unicodedata
from collections.abc import Iterator

import regex

HEADING = "####"
"""GSM8K's mark of the last line, which holds the answer alone."""
SIGN_CHARS = 20
"""A minus sign, and what may separate it from its number, are shorter."""

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
_PLAIN = regex.compile(r"0*(\d+?)(?:\.(\d*?)0*)?")
_DIRECTION = r"[\u200e\u200f\u061c\u2066-\u2069]*+"  # marks of right-to-left texts
_MINUS = regex.compile(
    rf"""
    [-−－﹣‐‑‒–⁻] {_DIRECTION} (?P<space>[^\S\n]*+)
    (?: (?:\p{{Lu}}{{0,3}}\p{{Sc}} | \p{{Lu}}{{3}} | [%٪％]) [^\S\n]*+ )? {_DIRECTION} $
    """,
    regex.VERBOSE,
)
_OPERAND = regex.compile(r"(?:[\p{L}\p{M}\p{N}\p{Pe}%٪％‰°]|\p{N}\p{Sc})$")


def final_number(text: str) -> str:
    """The first number after the first "####", otherwise the last number of the text; empty if there is none.

    What follows the first number after "####" is another problem, with which a base model goes on after its answer.

    1,000 and 1.000 and 1 000 are 1000, as are ๑๐๐๐ and １，０００; 3,5 is 3.5, and 18.00 is 18. A unit, a currency or a
    percent sign does not count. Ours.
    """
    _, _, answer = text.replace("＃", "#").partition(HEADING)
    # 、 separates the items of a list, which the last line is not.
    for part, index in ((answer.replace("、", "，"), 0), (text, -1)):
        if found := list(find_numbers(part)):
            start, number = found[index]
            if plain := _PLAIN.fullmatch(number):
                number = f"{plain[1]}.{plain[2]}" if plain[2] else plain[1]
                return f"-{number}" if number != "0" and _is_negative(part[:start]) else number
            return number
    return ""


def find_numbers(text: str) -> Iterator[tuple[int, str]]:
    """(start, number) of each number, in order, with ASCII digits.

    1,000, 1 000, ١٬٠٠٠ and １，０００ are 1000, 1.234,5 is 1234.5, 3,5 and ๓.๕ are 3.5.
    """
    text = text.translate(_SEPARATORS)
    text = _FULL_WIDTH.sub(lambda m: regex.sub("[，、]", ",", m[0]), text)
    for match in _QUANTITY.finditer(text):
        number, mark, decimals = ascii_digits(match[0]).replace("٬", ",").partition("٫")
        number = f"0{number}" if number.startswith(".") else number
        if grouped := _GROUPED.fullmatch(number):
            number = regex.sub(r"\D", "", grouped[1])
            number += f".{grouped[3]}" if grouped[3] else ""
        elif number.count(",") + number.count(".") == 1:
            number = number.replace(",", ".")
        yield match.start(), f"{number}.{decimals}" if mark else number


def ascii_digits(text: str) -> str:
    """`text` with the decimal digits of all scripts as 0 to 9."""
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)


def _is_negative(before: str) -> bool:
    """Whether the text before a number ends in a minus sign, not in a dash between two numbers or in a word.

    A dash with a space behind it is a minus sign at the beginning of the text, after an equals sign or after a colon;
    elsewhere it is a dash or marks an item of a list.
    """
    if not (sign := _MINUS.search(before, max(0, len(before) - SIGN_CHARS))):
        return False
    before = before[: sign.start()]
    if not sign["space"]:
        return not _OPERAND.search(before, max(0, len(before) - SIGN_CHARS))
    return not before.strip() or before.rstrip(" \t\u00a0\u3000")[-1:] in tuple("=＝≈:：(（")
