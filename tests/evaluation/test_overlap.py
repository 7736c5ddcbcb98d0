"""Each measure against values computed by hand, in scripts with and without spaces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdx.evaluation.overlap import common_subsequence, exact_match, f1, rouge_l
from sdx.languages import language

EN, TH, AR, ZH, DE = (language(code) for code in ("en", "th", "ar", "zh", "de"))


@pytest.mark.parametrize(
    ("answer", "reference", "code", "expected"),
    [
        # the cat sat on mat / the cat lay on the mat: common "the cat on mat", 4 of 5 and of 6.
        ("The cat sat on mat.", "the cat lay on the mat", "en", 8 / 11),
        ("القط جلس على السجادة", "القط نام على السجادة", "ar", 6 / 8),
        # 我爱北京 / 我很爱北京天安门: the 4 characters of the first, of 4 and of 8.
        ("我爱北京。", "我很爱北京天安门", "zh", 8 / 12),
        # แมวกินปลา / แมวกินนม: แมวกิน is 3 letters and กน with a vowel sign, 6 code points; of 9 and of 8.
        ("แมวกินปลา", "แมวกินนม", "th", 12 / 17),
        ("Strasse  FREI", "Straße frei", "de", 1.0),
        ("ประเทศ ไทย", "ประเทศไทย", "th", 1.0),
        ("dog cat", "cat dog", "en", 2 / 4),
        ("", "cat", "en", 0.0),
    ],
)
def test_rouge_l(answer: str, reference: str, code: str, expected: float) -> None:
    assert rouge_l(answer, [reference], language(code)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "references", "code", "expected", "exact"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], "en", 1.0, True),
        ("the tower of Eiffel", ["Eiffel Tower"], "en", 4 / 5, False),  # articles do not count
        ("U.S.", ["United States", "US"], "en", 1.0, True),  # the best of the references
        ("die Donau", ["Donau"], "de", 2 / 3, False),
        ("القاهرة، مصر", ["القاهرة"], "ar", 2 / 3, False),  # an Arabic comma is punctuation too
        ("١٩٩٩", ["1999"], "ar", 1.0, True),
        # 中国北京 / 北京: 2 of 4 and of 2.
        ("中国北京", ["北京"], "zh", 4 / 6, False),
        ("「北京」", ["北京"], "zh", 1.0, True),
        # กรุงเทพ is 7 code points, กรุงเทพมหานคร 13.
        ("กรุงเทพ", ["กรุงเทพมหานคร"], "th", 14 / 20, False),
        ("", ["Paris"], "en", 0.0, False),
        ("Rome", ["Paris"], "en", 0.0, False),
    ],
)
def test_f1_and_exact_match(answer: str, references: list[str], code: str, expected: float, exact: bool) -> None:
    assert f1(answer, references, language(code)) == pytest.approx(expected)
    assert exact_match(answer, references, language(code)) is exact


def test_words_decide_where_spaces_separate_them() -> None:
    assert f1("donaudampfschiff", ["donau"], DE) == 0
    assert f1("多瑙河轮船", ["多瑙河"], ZH) > 0
    assert rouge_l("one", ["two", "one"], EN) == 1
    assert exact_match("北 京", ["北京"], ZH)
    assert not exact_match("京北", ["北京"], ZH)
    assert f1("京北", ["北京"], ZH) == 1


def by_table(one: str, other: str) -> int:
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(st.text("abc", max_size=40), st.text("abcd", max_size=40))
def testcommon_subsequence_is_that_of_the_table(one: str, other: str) -> None:
    assert common_subsequence(one, other) == by_table(one, other)


@pytest.mark.parametrize("code", ["en", "th", "ar", "zh"])
@given(answer=st.text(max_size=30), reference=st.text(max_size=30))
def test_values_are_shares_and_an_answer_matches_itself(code: str, answer: str, reference: str) -> None:
    of = language(code)
    for measure in (rouge_l, f1):
        assert 0 <= measure(answer, [reference], of) <= 1
        assert measure(answer, [answer], of) == 1
        assert measure(answer, [reference], of) == pytest.approx(measure(reference, [answer], of))
    assert exact_match(answer, [answer], of)
