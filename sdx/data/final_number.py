"""The number that a worked answer comes to, in one spelling whatever its script and its separators."""

import re

HEADING = "####"
"""GSM8K's mark of the last line, which holds the answer alone."""
PLAIN = re.compile(r"0*(\d+?)(?:\.(\d*?)0*)?")


def final_number(text: str) -> str:
    """The first number after the first "####", or else the last one of the text; nothing where there is none.

    What stands behind is another problem, with which a base model goes on after its answer.

    1,000 and 1.000 and 1 000 are 1000, as is ๑๐๐๐; 3,5 is 3.5, and 18.00 is 18. A unit, a currency or a percent sign
    does not count. Ours.
    """
    _, _, last = text.partition(HEADING)
    return _number(last, 0) or _number(text, -1)


def _number(text: str, place: int) -> str:
    """The first number of a text or the last one, by its place."""
    from sdx.translation.protect import each_number

    if not (found := list(each_number(text))):
        return ""
    start, number = found[place]
    if not (plain := PLAIN.fullmatch(number)):
        return number
    number = f"{plain[1]}.{plain[2]}" if plain[2] else plain[1]
    return f"-{number}" if number != "0" and _negative(text[:start]) else number


def _negative(before: str) -> bool:
    """Whether a minus sign ends the text before a number: not a dash between two numbers or in a word."""
    before, sign = before[:-1], before[-1:]
    if sign in ("$", "€", "£"):
        before, sign = before[:-1], before[-1:]
    return sign in ("-", "−") and not (before[-1:].isalnum() or before[-1:] == ")")
