"""py3langid's scores are the same whether texts are walked through together or one by one."""

import py3langid
import pytest

from sdx.text import identifier as module
from sdx.text.identification import GRAM_CHARS, LOOP_CHARS, loops, repeats
from sdx.text.identifier import identifier

TEXTS = (
    "All human beings are born free and equal in dignity and rights.",
    "ALL HUMAN BEINGS",
    "ภาษาไทย ดี",
    "人人生而自由,在尊严和权利上一律平等。",
    "Ünï çödé " * 50,
    "",
    "7",
)


@pytest.mark.parametrize("longest", [8192, 40])
def test_scores_are_those_of_py3langid(longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_BYTES", longest)
    identifier().look_ahead([*TEXTS, TEXTS[0]])
    for text in (*TEXTS, "Não estava previsto."):
        assert identifier().rank(text) == py3langid.rank(text)


def test_a_text_with_few_repetitions_is_not_cut_into_stretches() -> None:
    """The short way agrees with the long one, also where the repetitions just suffice for one stretch."""

    def long_way(text: str) -> bool:
        starts = range(0, max(1, len(text) - LOOP_CHARS + 1), LOOP_CHARS // 4)
        return repeats(text) or any(repeats(text[start : start + LOOP_CHARS]) for start in starts)

    plain = "".join(chr(ord("a") + number % 26) + chr(ord("A") + number * 7 % 26) for number in range(300))
    for times in range(2, LOOP_CHARS):
        text = plain[:240] + ("abcdefghijk" * LOOP_CHARS)[: times + GRAM_CHARS] + plain[240:]
        assert loops(text) == long_way(text), times
    assert loops(plain[:240] + "x" * LOOP_CHARS + plain[240:])
