"""The marker of an answer in its context: put in, kept by translators, taken out."""

import pytest

from sdx.text.answer_spans import mark, marker, unmark
from sdx.text.protect import translate_sentences


@pytest.mark.parametrize(
    ("text", "answer", "occurrence", "marked"),
    [
        ("Paris is Paris.", "Paris", 0, "{{answer}} is Paris."),
        ("Paris is Paris.", "Paris", 1, "Paris is {{answer}}."),
        ("Paris", "Paris", 0, "{{answer}}"),
        ("In 1996 he won 1996 votes", "1996", 1, "In 1996 he won {{answer}} votes"),
        ("عاصمة مصر هي القاهرة الكبرى.", "القاهرة", 0, "عاصمة مصر هي {{answer}} الكبرى."),
        ("กรุงเทพเป็นเมืองหลวง กรุงเทพใหญ่", "กรุงเทพ", 1, "กรุงเทพเป็นเมืองหลวง {{answer}}ใหญ่"),
        ("😀 says 你好吗", "你好", 0, "😀 says {{answer}}吗"),
        ("Write {{answer}} for yes.", "yes", 0, "Write {{answer}} for {{answer2}}."),
        ("{{answer7}} or {{answer}}: no", "no", 0, "{{answer7}} or {{answer}}: {{answer8}}"),
        ("{{answer}} it is", "{{answer}}", 0, "{{answer}} it is"),
        ("the x{{ans}}wer", "x", 0, "the {{answer}}{{ans}}wer"),
    ],
)
def test_the_occurrence_at_the_place_is_marked(text: str, answer: str, occurrence: int, marked: str) -> None:
    start = -1
    for _ in range(occurrence + 1):
        start = text.index(answer, start + 1)
    assert mark(text, start, answer) == marked
    assert unmark(marked, answer) == text


@pytest.mark.parametrize(("start", "answer"), [(1, "Paris"), (-5, "Paris"), (99, "Paris"), (0, "paris"), (0, "")])
def test_an_answer_that_is_not_there(start: int, answer: str) -> None:
    assert mark("Paris is Paris", start, answer) is None


def test_the_marker_is_the_highest_wherever_it_stands() -> None:
    assert marker("{{answer2}} before {{answer}}") == "{{answer2}}"
    assert marker("{{answers}} {{ answer }}") is None
    assert unmark("nothing to do", "x") == "nothing to do"


def test_translators_keep_the_marker_wherever_it_moves() -> None:
    marked = mark("The capital is Paris today.", 15, "Paris")
    assert marked

    def reverse(sentences: list[str]) -> list[str]:
        return [" ".join(reversed(sentence.rstrip(".").upper().split())) + "." for sentence in sentences]

    translated = translate_sentences([marked], reverse)[marked]
    assert translated == "TODAY {{answer}} IS CAPITAL THE."
    assert unmark(translated, "巴黎") == "TODAY 巴黎 IS CAPITAL THE."
