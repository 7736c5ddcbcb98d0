"""Any text in any script, any engine: nothing protected is lost, the layout stays, time is linear."""

import random
import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdx.text.segment import translate_texts
from tests.kit.engines import SPANS, backwards, identity, sentences_of, texts, translate_text

SCRIPTS = {
    "Hebrew": ("כל בני האדם נולדו בני חורין.", "הוא שאל: למה?"),
    "Arabic": ("يولد جميع الناس أحرارًا.", "هل هذا صحيح؟"),
    "Urdu": ("تمام انسان آزاد پیدا ہوئے ہیں۔", "کیوں؟"),
    "Chinese": ("人人生而自由。", "“真的吗？”"),
    "Japanese": ("すべての人間は自由である。", "「本当？」"),
    "Korean": ("모든 인간은 자유롭다.", "정말?"),
    "Thai": ("มนุษย์ทั้งหลายเกิดมามีอิสระ", "จริงหรือ?"),
    "Hindi": ("सभी मनुष्य स्वतन्त्र हैं।", "क्यों?"),
    "emoji": ("We are free 👨‍👩‍👧 1️⃣ 🏳️‍🌈 today.", "Are we 👍🏽?"),
}
ADVERSARIES: dict[str, Callable[[str], str]] = {
    "copies": str,
    "shouts": str.upper,
    "reverses": lambda s: s[::-1],
    "is silent": lambda s: "",
    "says one thing": lambda s: "não sei",
    "loses placeholders": lambda s: re.sub(r"X\d+", "", s),
    "adds placeholders": lambda s: f"X3 {s} X1 X2",
    "swaps placeholders": lambda s: s.replace("X1", "X0").replace("X2", "X1").replace("X0", "X2"),
    "parts placeholders": lambda s: re.sub(r"X(\d)", r"x \1", s),
    "repeats": lambda s: f"{s} {s}",
    "glues words": lambda s: s.replace(" ", ""),
    "breaks lines": lambda s: s.replace(" ", "\r\n\u2028"),
    "shuffles words": lambda s: " ".join(random.Random(len(s)).sample(s.split(), len(s.split()))),
    "shuffles characters": lambda s: "".join(random.Random(len(s)).sample(s, len(s))),
    "reads ASCII only": lambda s: s.encode("ascii", "ignore").decode(),
    "counts wrong": lambda s: re.sub(r"\d", "7", s),
    "loops": lambda s: s * 50,
}
EMOJI = (
    "👨‍👩‍👧",
    "👍🏽",
    "❤️",
    "🇫🇷",
    "1️⃣",
    "🏳️‍🌈",
    "👩‍❤️‍👨",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
)
KEPT = (*SPANS, *EMOJI)
words = st.sampled_from(
    ["we", "The", "né", "and", "X1", "X2", *(word for some in SCRIPTS.values() for word in some[0].split())]
)
adversaries = st.sampled_from(list(ADVERSARIES))


def engine_of(name: str) -> Callable[[list[str]], list[str]]:
    return lambda sentences: [ADVERSARIES[name](sentence) for sentence in sentences]


@pytest.mark.parametrize("name", ADVERSARIES)
def test_each_protected_span_survives_each_adversary(name: str) -> None:
    for span in KEPT:
        for text in (
            f"we saw {span} and {span}, which was X1 good.",
            f"זה {span} טוב",
            f"ดู {span} นะ",
            f"{span} it is {span}",
        ):
            assert translate_text(text, engine_of(name)).count(span) >= text.count(span), (span, text)


@given(st.lists(st.one_of(words, words, st.sampled_from(KEPT)), min_size=1, max_size=10), adversaries, st.booleans())
@settings(max_examples=300, deadline=None)
def test_protected_spans_come_as_often_as_they_were(tokens: list[str], name: str, in_lines: bool) -> None:
    text = ("\n" if in_lines else " ").join(tokens)
    output = translate_text(text, engine_of(name))
    for span in set(tokens).intersection(KEPT):
        assert output.count(span) >= text.count(span)
        if not span[0].isdigit():  # a number may be said twice, a span may not
            assert output.count(span) == text.count(span)


@given(texts, adversaries)
@settings(max_examples=200, deadline=None)
def test_no_adversary_changes_the_layout(text: str, name: str) -> None:
    output = translate_text(text, engine_of(name))
    assert len(output.splitlines()) == len(text.splitlines())
    for line, source in zip(output.splitlines(), text.splitlines(), strict=True):
        assert bool(line.strip()) == bool(source.strip())


@given(st.lists(texts, max_size=5), adversaries)
@settings(max_examples=100, deadline=None)
def test_a_translation_does_not_depend_on_other_texts_and_each_sentence_comes_once(many: list[str], name: str) -> None:
    calls: list[list[str]] = []

    def engine(sentences: list[str]) -> list[str]:
        calls.append(sentences)
        return engine_of(name)(sentences)

    assert translate_texts(many, engine) == [translate_text(text, engine_of(name)) for text in many]
    assert all(len(set(call)) == len(call) > 0 for call in calls)
    assert all(sentence.strip() and len(sentence.splitlines()) == 1 for call in calls for sentence in call)
    assert len(calls) <= 4


@pytest.mark.parametrize("script", SCRIPTS)
def test_sentences_of_any_script_are_cut_and_joined(script: str) -> None:
    first, second = SCRIPTS[script]
    space = "" if script in ("Chinese", "Japanese") else " "
    if script == "Thai":  # a space ends a sentence as it ends a phrase: left in one piece
        assert sentences_of(f"{first} {second}") == [f"{first} {second}"]
    else:
        assert sentences_of(f"{first}{space}{second}") == [first, second]
    text = f"# {first}\n\n1. {first}{space}{second}\n   - {second} `code`\n> {first}\n| {first} | {second} |\n"
    assert translate_text(text, identity) == text


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_hundred_kilobytes_of_any_script_are_translated_in_linear_time(script: str) -> None:
    first, second = SCRIPTS[script]
    for unit in (first, f"{first} {second} `code` 12\n"):
        text = unit * (100_000 // len(unit.encode()))
        start_s = time.process_time()
        assert translate_text(text, identity) == text
        assert translate_text(text, backwards).count("`code`") == text.count("`code`")
        assert time.process_time() - start_s < 5


@pytest.mark.parametrize("unit", ["X1 ", "1,000,", "__a ", "*a", "R$ ", " ", "\n", "ก", "😀"])
def test_an_engine_that_never_stops_does_not_hang_the_rest(unit: str) -> None:
    start_s = time.process_time()
    endless = unit * (100_000 // len(unit))
    output = translate_text("we saw `code` and 12 cats, so **good**.", lambda sentences: [endless for _ in sentences])
    assert "`code`" in output
    assert time.process_time() - start_s < 5
