"""The final number of a text in one spelling."""

import sys
import unicodedata

import pytest

from sdx.text.numbers import final_number, find_numbers

ZEROS = [char for char in map(chr, range(sys.maxunicode + 1)) if unicodedata.decimal(char, None) == 0]
"""The zeros of all systems of digits in Unicode."""


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


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### ３，０００", "3000"),
        ("#### 3、000", "3000"),
        ("#### 3、500", "3500"),
        ("#### - 5", "-5"),
        ("＃＃＃＃ ５", "5"),
        ("答えは3、000円", "3000"),
        ("選択肢は100、200", "200"),  # a list
        ("3、5、7", "7"),
        ("#### 3、5", "3"),
        ("他有30，20给弟弟", "20"),  # no decimal point
        ("１，２３４，５６７．５０円", "1234567.5"),
        ("#### ３．５", "3.5"),
        ("#### 1,00,000", "100000"),
        ("#### १,२३,४५६", "123456"),
        ("#### 12,34,567.50", "1234567.5"),
        ("٣٫٥٠٠", "3.5"),  # the Arabic decimal sign parts no thousands
        ("١٬٢٣٤٬٥٦٧", "1234567"),
        ("١٬٢٣٤٫٥", "1234.5"),
        ("٣،٥", "3.5"),
        ("١،٠٠٠", "1000"),
        ("1'000'000.50", "1000000.5"),
        ("1’000", "1000"),
        ("１＇０００", "1000"),
        *((f"#### 1{space}234{space}567", "1234567") for space in "\u00a0\u2007\u2009\u202f "),
        ("1.234.567,89", "1234567.89"),
        ("1 234,5", "1234.5"),
        *((f"#### {sign}5", "-5") for sign in "-−－﹣‐‑‒–⁻"),
        *((f"#### {sign} 5", "-5") for sign in "-−－–"),
        ("####\n- 5", "-5"),
        ("- 5", "-5"),
        ("x = - 5", "-5"),
        ("Answer: − 5", "-5"),
        ("答案：－ ５", "-5"),
        ("the answer - 5", "5"),  # a dash
        ("Items:\n- 5 apples", "5"),
        ("- 5 apples\n- 7 apples", "7"),
        ("16 - 3", "3"),
        ("5%-10%", "10"),
        ("5€-10€", "10"),
        ("ครั้งที่-5", "5"),  # a word that ends in a vowel sign
        ("#### - $ 5", "-5"),
        ("#### -R$ 5,50", "-5.5"),
        ("#### -₹1,00,000", "-100000"),
        ("#### −￥３，０００", "-3000"),
        ("#### -USD 5", "-5"),
        ("#### $-5", "-5"),
        ("#### -%25", "-25"),
        ("\u200e-\u200e٥", "-5"),
        ("\u061c-۵", "-5"),
        ("#### ２５％", "25"),
        ("#### 3,000円", "3000"),
    ],
)
def test_final_number_in_other_scripts(text: str, number: str) -> None:
    assert final_number(text) == number


@pytest.mark.parametrize("zero", ZEROS)
def test_each_system_of_digits(zero: str) -> None:
    def written(number: str) -> str:
        return "".join(chr(ord(zero) + int(char)) if char.isdecimal() else char for char in number)

    for text, number in (
        ("1234567890", "1234567890"),
        ("1,234,567.50", "1234567.5"),
        ("1.234.567,50", "1234567.5"),
        ("12,34,567", "1234567"),
        ("1٬234٫5", "1234.5"),
        ("1，234", "1234"),
        ("-5", "-5"),
        ("− 5", "-5"),
        ("3,5", "3.5"),
    ):
        assert final_number(f"#### {written(text)}") == number
        assert final_number(written(text)) == number


def test_a_list_has_several_numbers() -> None:
    assert list(find_numbers("3、5、100、200")) == [(0, "3"), (2, "5"), (4, "100"), (8, "200")]
    assert list(find_numbers("30，20")) == [(0, "30"), (3, "20")]
