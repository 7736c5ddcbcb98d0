"""Splitting and joining, with engines that show what they were given."""

import random
import re
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sdx.translation.segment import LONGEST_CHARS, Piece, split, translate_text, translate_texts

# Whatever the splitter looks at, in any order, besides arbitrary Unicode.
# fmt: off
MARKUP = [
    "```", "```\n", "~~~", "`", "``", "$", "$$", "\\[", "\\]", "\\(", "\\begin{a}",
    "\\end{a}", "<", ">", "<b>", "</b>", "<br>", "<!--", "-->", "<pre>", "{", "}", "{x}",
    "{{", "%s", "%(a)s", "[", "](", ")", "http://", "www.", "a@b.co", "@a", "#", "- ", "*",
    "**", "_", "__", "~~", "|", "1.", "2)", "Dr.", "1", "3.14", "1,000", "$5", "X1", "=",
    "+", ".", "...", "。", "\n", "\x1c",
]
TOKENS = [
    *MARKUP, "!", "?", "…", "」", "।", "؟", "۔", "။", "។", "a", "Word", "word.", "Olá", "né",
    "e.g.", "U.S.", "שלום", "سلام", "ไทย", "你好", "नमस्ते", "😀", "👍🏽", "❤️", "e\u0301",
    "\ud800", "\ue000", "\x00", "\x1f", "\u2028", "\u00a0", "\r", "\r\n", "\t", "X2", "def",
    "if", "import",
]
# fmt: on
texts = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from([*TOKENS, " ", " ", "\n"]), max_size=60).map("".join),
)


def identity(sentences: list[str]) -> list[str]:
    return list(sentences)


def upper(sentences: list[str]) -> list[str]:
    return [sentence.upper() for sentence in sentences]


def backwards(sentences: list[str]) -> list[str]:
    """Destroys every placeholder, so that all protection falls to cutting."""
    return [sentence[::-1] for sentence in sentences]


def sentences_of(text: str) -> list[str]:
    return [piece.text for piece in split(text) if piece.translate]


@given(texts)
@example("(“ไทย!~~!X1\ud800。」<a {````xX1a ```")
@settings(max_examples=200, deadline=None)
def test_pieces_join_to_the_text_and_the_identity_engine_changes_nothing(text: str) -> None:
    pieces = split(text)
    assert "".join(piece.text for piece in pieces) == text
    for piece in pieces:
        if piece.translate:
            assert piece.text == piece.text.strip()
            assert len(piece.text.splitlines()) == 1
    assert translate_text(text, identity) == text


@pytest.mark.parametrize(
    "token",
    [*MARKUP, "a", "a ", "A. ", "$$ ", "a = b; ", "\\[\n\n", "<!--\n", ".)"],
)
def test_a_hundred_kilobytes_take_linear_time(token: str) -> None:
    text = token * (100_000 // len(token))
    start_s = time.process_time()
    assert "".join(piece.text for piece in split(text)) == text
    assert time.process_time() - start_s < 5


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It rains. Does it? Yes!", ["It rains.", "Does it?", "Yes!"]),
        ("Dr. Smith and J. R. Jones left the U.S. on Jan. 5.", None),
        ("It costs 3.14, e.g. here.", None),
        ("Well... maybe.", None),
        ("O Sr. Silva mora na Av. Brasil, nº 5.", None),
        (
            '"Who?" he asked. (He was late.) Then he left.',
            ['"Who?" he asked.', "(He was late.)", "Then he left."],
        ),
        ("यह एक है। यह दो है।", ["यह एक है।", "यह दो है।"]),
        ("第一句。“第二句！”第三句", ["第一句。", "“第二句！”", "第三句"]),
        ("هل هذه جملة؟ نعم۔", ["هل هذه جملة؟", "نعم۔"]),
        ("တစ်ခု။ ဒုတိယ။", ["တစ်ခု။", "ဒုတိယ။"]),
        ("នេះ។ ទីពីរ។", ["នេះ។", "ទីពីរ។"]),
        ("ይህ ነው። ሌላ።", ["ይህ ነው።", "ሌላ።"]),
        ("See `a. B` and http://a.b/c. Then go.", ["See `a. B` and http://a.b/c.", "Then go."]),
    ],
)
def test_sentences(text: str, sentences: list[str] | None) -> None:
    assert sentences_of(text) == (sentences or [text])


def test_a_long_sentence_is_cut_after_clauses_and_outside_spans() -> None:
    code = "`" + "x, " * 30 + "`"
    long = f"we went on, and on, and then {code} " * 20
    cut = sentences_of(long)
    assert len(cut) > 5
    assert max(map(len, cut)) <= LONGEST_CHARS + len(code)
    assert sum(sentence.count(code) for sentence in cut) == 20
    assert all(sentence.endswith((",", "`")) for sentence in cut)
    assert max(map(len, sentences_of("ก" * 5000))) == LONGEST_CHARS
    unspaced = "ก" * (LONGEST_CHARS - 3) + "`a code`" + "ก" * LONGEST_CHARS
    assert sum("`a code`" in sentence for sentence in sentences_of(unspaced)) == 1


LAYOUT = """\
# The title

Dear **you**,
  - one thing
  * [x] `code` here
1. first
2) second
   a) third
> quoted words

| name | the age |
|------|:-------:|
| bob | 25 |

```python
def keep(me):  # as I am
```
~~~
also me
~~~
$$
x = \\text{me too}
$$
<pre>
and me
</pre>
12 + 30 = 42
---
    return keep(me)
<p>mark up</p>
"""


def test_layout_survives() -> None:
    assert (
        translate_text(LAYOUT, upper)
        == """\
# THE TITLE

DEAR **YOU**,
  - ONE THING
  * [x] `code` HERE
1. FIRST
2) SECOND
   a) THIRD
> QUOTED WORDS

| NAME | THE AGE |
|------|:-------:|
| BOB | 25 |

```python
def keep(me):  # as I am
```
~~~
also me
~~~
$$
x = \\text{me too}
$$
<pre>
and me
</pre>
12 + 30 = 42
---
    return keep(me)
<p>MARK UP</p>
"""
    )


@pytest.mark.parametrize(
    "line",
    [
        "def f(x):",
        "    return x + 1",
        "import numpy as np",
        "for x in items:",
        "if x > 3:",
        "total = 3 * price",
        "const x = 5;",
        "public static void main(String[] args) {",
        'console.log("Hello");',
        'print("Hello")',
        '  "name": "John",',
        "SELECT name FROM users WHERE age > 30",
        ">>> x",
        "$ ls here",
        "y = 3x + b",
        "12 + 30 = 42",
    ],
)
def test_code_and_equations_without_fences_are_kept(line: str) -> None:
    assert split(line) == [Piece(line, False)]


@pytest.mark.parametrize(
    "line",
    [
        "if you are hungry, eat:",
        "for example, consider this:",
        "Return to the office.",
        "import duties rose",
        "the result (see Table 1);",
        "From here on, it is easy;",
        "SELECT the best answer.",
        "Note(s)",
        "I am x years old",
    ],
)
def test_prose_is_not_taken_for_code(line: str) -> None:
    assert split(line) == [Piece(line, True)]


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("x`code`y is it.", ["x X1 y is it."]),
        ("Use X1 and {a}.", ["Use X1 and X2."]),
        ("See {a}{b} here.", ["See X1 here."]),
        ("Use `a` now.\nUse `b` now.", ["Use X1 now."]),
        ("Use `<br>` now.", ["Use X1 now."]),
        ("One cat<br/>Two dogs", ["One cat", "Two dogs"]),
        ("<b>Hello there.</b> 😀 It is me 😀", ["Hello there.", "It is me"]),
        ("a cat | a dog", ["a cat", "a dog"]),
        ("- 1. Text here.", ["1. Text here."]),
        ("$$x$$ is it.", ["X1 is it."]),
        ("$$x\n= y$$\nis it.", ["is it."]),
        ("$$ cheap\n\n$$ dear", ["$$ cheap", "$$ dear"]),
        ("```\nno\n```\nYes.\n```\nno", ["Yes."]),
        ("a^2 + b^2 = c^2", []),
    ],
)
def test_what_the_engine_is_given(text: str, given: list[str]) -> None:
    calls: list[str] = []

    def engine(sentences: list[str]) -> list[str]:
        calls.extend(sentences)
        return sentences

    assert translate_text(text, engine) == text
    assert calls == given


SPANS = (
    "`some code`",
    "``a ` b``",
    "$x_1 + y$",
    "\\(a b\\)",
    "<em>",
    "</em>",
    "<a href='u v'>",
    "&nbsp;",
    "https://a.org/b_(c)?d=e#f",
    "www.some.net",
    "a.person@mail.example.com",
    "{name}",
    "{{ name }}",
    "%s",
    "%(count)d",
    "snake_case",
    "main.py",
    "run()",
    "/usr/local/bin",
    "@somebody",
    "#topic",
    "😀",
    "1,234.5",
    "2021",
)


@pytest.mark.parametrize("engine", [upper, backwards])
@pytest.mark.parametrize("span", SPANS)
def test_inline_spans_survive_any_engine(span: str, engine: object) -> None:
    output = translate_text(f"we saw {span} and {span}, which was X1 good.", engine)
    assert output.count(span) == 2
    assert "we saw" not in output


def test_prices_are_no_formula_and_units_touch_theirs() -> None:
    assert translate_text("it is 5 cm$^2$ wide.", upper) == "IT IS 5 CM$^2$ WIDE."
    assert translate_text("it costs $5 here and $10 there.", upper) == "IT COSTS $5 HERE AND $10 THERE."


def test_a_lost_number_is_hidden_and_then_cut_around() -> None:
    def spelled(sentences: list[str]) -> list[str]:
        calls.append(sentences)
        return [s.replace("12", "doze").replace("X1", "xis").replace("cats", "gatos") for s in sentences]

    calls: list[list[str]] = []
    assert translate_text("12 cats", spelled) == "12 gatos"
    assert calls == [["12 cats"], ["X1 cats"], ["X1 cats"], ["cats"]]


@pytest.mark.parametrize(
    ("source", "translation"),
    [
        ("1,000 and 3.5", "1.000 e 3,5"),
        ("it is 1.234.567,89", "it is 1,234,567.89"),
        ("in 0.125 and 2020", "em 2.020 e 0,125"),
        ("the 20th", "o século XX"),
        ("in the 1990s", "nos anos 90"),
        ("it is 12", "ये १२ है"),
    ],
)
def test_number_conventions_of_the_target_pass(source: str, translation: str) -> None:
    calls = []

    def engine(sentences: list[str]) -> list[str]:
        calls.append(sentences)
        return [translation for _ in sentences]

    assert translate_text(source, engine) == translation
    assert calls == [[source]]


@pytest.mark.parametrize(
    ("source", "translation"),
    [
        ("it is 1.234,50", "it is 1.234.50"),
        ("it is 1,234,567", "são 1.3234.567"),
        ("2 and 2", "2 e dois"),
        ("R$ 5", "$5"),
    ],
)
def test_changed_numbers_do_not_pass(source: str, translation: str) -> None:
    def engine(sentences: list[str]) -> list[str]:
        return [translation if sentence == source else sentence for sentence in sentences]

    assert translate_text(source, engine) == source


def test_emphasis_is_kept_or_dropped_but_never_broken() -> None:
    def careless(sentences: list[str]) -> list[str]:
        return [s.upper().replace("*B", "* B") for s in sentences]

    assert translate_text("so **very** good", careless) == "SO **VERY** GOOD"
    assert translate_text("so **bad** it is", careless) == "SO BAD IT IS"
    assert split("**Note:** so.")[1] == Piece("Note:", True)


def test_texts_are_batched_and_sentences_translated_once() -> None:
    calls = []

    def engine(sentences: list[str]) -> list[str]:
        calls.append(sentences)
        return upper(sentences)

    assert translate_texts(["Hi. Yes.", "Yes.\nNo.", ""], engine) == ["HI. YES.", "YES.\nNO.", ""]
    assert calls == [["Hi.", "Yes.", "No."]]


def test_an_engine_that_returns_nothing_leaves_the_source() -> None:
    assert translate_text("Hi.\nYes.", lambda sentences: ["" for _ in sentences]) == "Hi.\nYes."


def test_line_breaks_of_an_engine_do_not_reach_the_text() -> None:
    assert translate_text("- Hi.\n", lambda sentences: [f" {s}\n{s}\n" for s in sentences]) == "- Hi. Hi.\n"


def test_an_engine_that_drops_a_sentence_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 translations of 2"):
        translate_text("Hi. Yes.", lambda sentences: sentences[1:])


# Any script, any engine.

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
def test_a_text_is_translated_alike_in_any_company_and_each_sentence_once(many: list[str], name: str) -> None:
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
    assert "".join(piece.text for piece in split(text)) == text


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
