"""Sentences are found and joined again, with engines that record their input."""

import time

import pytest
from hypothesis import example, given, settings

from sdx.text.protect import cut
from sdx.text.segment import LONGEST_CHARS, find_sentences, translate_texts
from tests.kit.engines import MARKUP, SPANS, backwards, identity, sentences_of, texts, translate_text, upper


@given(texts)
@example("(“ไทย!~~!X1\ud800。」<a {````xX1a ```")
@settings(max_examples=200, deadline=None)
def test_sentences_are_parts_of_one_line_and_the_identity_engine_changes_nothing(text: str) -> None:
    edges = [edge for span in find_sentences(text) for edge in span]
    assert edges == sorted(edges)
    for sentence in sentences_of(text):
        assert sentence == sentence.strip()
        assert len(sentence.splitlines()) == 1
    assert translate_text(text, identity) == text


@pytest.mark.parametrize(
    "token",
    [*MARKUP, "a", "a ", "A. ", "$$ ", "a = b; ", "\\[\n\n", "<!--\n", ".)"],
)
def test_a_hundred_kilobytes_take_linear_time(token: str) -> None:
    text = token * (100_000 // len(token))
    start_s = time.process_time()
    find_sentences(text)
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
    assert find_sentences(line) == []


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
    assert sentences_of(line) == [line]


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
    assert cut("**Note:** so.", find_sentences("**Note:** so.")) == ["**", "Note:", "** ", "so.", ""]


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


@pytest.mark.parametrize("text", ["कि`x`का", "می\u200c`x`ها", "กี่`x`ก", "a`x`b"])
def test_a_word_does_not_grow_together_with_a_placeholder(text: str) -> None:
    seen: list[str] = []

    def engine(sentences: list[str]) -> list[str]:
        seen.extend(sentences)
        return sentences

    assert translate_text(text, engine) == text
    assert seen == [text.replace("`x`", " X1 ")]
