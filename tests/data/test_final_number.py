"""The last number of a text in one spelling."""

import pytest

from sdx.data.final_number import final_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", ""),
        ("no number", ""),
        ("####", ""),
        ("She has 3 and gives 2.\n#### 1", "1"),
        ("#### 5\nSo 7.\n#### 6 apples", "5"),
        ("It is 12 #### none", "12"),  # nothing after it: the last one of all
        ("คำตอบคือ ๑,๒๓๔ บาท", "1234"),
        ("१२", "12"),
        ("٣٬٥٠٠٫٥", "3500.5"),
        ("1.000 Euro", "1000"),
        ("$1,000", "1000"),
        ("1 000 000 рублей", "1000000"),
        ("1\u00a0000", "1000"),
        ("in 2020 there were 100", "100"),
        ("1.234,50", "1234.5"),
        ("3,5", "3.5"),
        ("$18.00", "18"),
        ("0.50", "0.5"),
        ("0.125", "0.125"),
        ("0,500", "0.5"),
        ("#### .5", "0.5"),
        ("#### 18 (6*3)", "18"),
        ("#### 18\n\nQ: I have 5 apples", "18"),
        ("100", "100"),
        ("007", "7"),
        ("25%", "25"),
        ("答案是42。", "42"),
        ("it is -5", "-5"),
        ("−5", "-5"),
        ("-$5.50", "-5.5"),
        ("16-3", "3"),
        ("pages 3-5", "5"),
        ("-0", "0"),
        ("version 1.2.3", "1.2.3"),
    ],
)
def test_final_number(text: str, number: str) -> None:
    assert final_number(text) == number
