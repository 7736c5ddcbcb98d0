"""Translation and completion rows: both directions, varied wordings, cuts that lose nothing."""

import unicodedata
from string import Formatter
from typing import Any

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from sdx.data.translation_instructions import (
    BEGINNINGS,
    EARLIEST,
    HALF_TRANSLATIONS,
    LATEST,
    TRANSLATIONS,
    complete_rows,
    cut,
    translate_rows,
)
from sdx.languages import language

EN, PT, TH, AR, JA, KM, HI = map(language, ("en", "pt", "th", "ar", "ja", "km", "hi"))
SAMPLES = {
    PT: "Todos os seres humanos nascem livres e iguais em dignidade e em direitos.",
    TH: "มนุษย์ทั้งปวงเกิดมามีอิสระและเสมอภาคกันในศักดิ์ศรีและสิทธิ",
    AR: "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.",
    JA: "すべての人間は、生まれながらにして自由であり、尊厳と権利とについて平等である。",
    KM: "មនុស្សទាំងអស់កើតមកមានសេរីភាពនិងភាពស្មើគ្នាក្នុងសិទ្ធិនិងសេចក្ដីថ្លៃថ្នូរ។",
    HI: "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
}
MIXED = st.text(
    st.one_of(
        st.characters(codec="utf-8"),
        st.sampled_from(" \n\t\u00a0\u200d\u0301\u0e40\u0e33\u17d2\u094d\U0001f468\U0001f469\U0001f1f9\U0001f1ed"),
        st.sampled_from("abcกขคアイウ你好مرحبا"),
    ),
    max_size=200,
)


def translated(*given: Any) -> list[dict[str, Any]]:
    return [*translate_rows(*given)]


def completed_rows(*given: Any) -> list[dict[str, Any]]:
    return [*complete_rows(*given)]


def rows(text: str = SAMPLES[PT], count: int = 400) -> list[dict[str, str]]:
    return [{"id": f"row{n}", "source": "All are born free.", "target": text, "origin": "test"} for n in range(count)]


def test_both_directions_are_asked_for_with_the_languages_named():
    there, back = translated(rows(count=1), EN, PT)
    assert (there["prompt_language"], there["response_language"]) == ("eng_Latn", "por_Latn")
    assert (back["prompt_language"], back["response_language"]) == ("por_Latn", "eng_Latn")
    assert (there["response"], back["response"]) == (SAMPLES[PT], "All are born free.")
    assert "All are born free." in there["prompt"]
    assert "Portuguese" in there["prompt"]
    assert SAMPLES[PT] in back["prompt"]
    assert "English" in back["prompt"]
    assert {there["subset"], there["response_origin"]} == {"translate", "test"}


def test_wordings_and_layouts_vary_and_are_the_same_every_time():
    first = translated(rows(), EN, PT)
    assert first == translated(rows(), EN, PT)
    for start in ("eng_Latn", "por_Latn"):
        assert len({row["prompt"] for row in first if row["prompt_language"] == start}) == len(TRANSLATIONS) >= 16
    completed = completed_rows(rows(), EN, PT)
    assert completed == completed_rows(rows(), EN, PT)
    with_source = [row for row in completed if row["prompt_language"] == "eng_Latn"]
    assert 0.4 < len(with_source) / len(completed) < 0.6
    assert all("All are born free." in row["prompt"] for row in with_source)
    assert not any("All are born free." in row["prompt"] for row in completed if row not in with_source)


def test_every_wording_holds_what_it_must():
    for wordings, needed in ((TRANSLATIONS, {"text", "target"}), (BEGINNINGS, {"prefix", "target"})):
        assert len(set(wordings)) == len(wordings)
        for wording in wordings:
            assert needed <= {name for _, name, _, _ in Formatter().parse(wording)}, wording
    for wording in HALF_TRANSLATIONS:
        assert {"text", "prefix", "target"} <= {name for _, name, _, _ in Formatter().parse(wording)}, wording


@pytest.mark.parametrize("text", ['He said "no" to {this} and that.', "First line here.\nSecond line there."])
def test_quotes_and_lines_are_not_put_between_quotation_marks(text: str):
    for row in translated(rows(text), EN, PT) + completed_rows(rows(text), EN, PT):
        assert row["prompt"].count('"') <= 2
        assert not regex.search(r'"[^"]*\n[^"]*"', row["prompt"])
        if row["subset"] == "translate" and row["prompt_language"] == "por_Latn":
            assert text in row["prompt"]


def test_ids_are_unique_over_subsets_directions_and_targets():
    made = [
        row
        for target in (PT, TH)
        for row in translated(rows(SAMPLES[target], 40), EN, target)
        + completed_rows(rows(SAMPLES[target], 40), EN, target)
    ]
    assert len(made) == 2 * 3 * 40
    assert len({row["id"] for row in made}) == len(made)


@pytest.mark.parametrize("target", SAMPLES, ids=lambda target: target.code)
def test_a_text_is_cut_near_its_middle_between_words_or_syllables(target):
    text = SAMPLES[target]
    cuts = {cut(text, target, str(key)) for key in range(200)}
    assert None not in cuts
    assert len(cuts) > 2
    ends = {match.end() for match in regex.finditer(r"\X", text)}
    for at in cuts:
        assert EARLIEST * len(text) <= at <= LATEST * len(text)
        assert at in ends
        if target.spaces:
            assert text[at - 1].isspace()
            assert not text[at].isspace()
        assert text[at - 1] not in "เแโใไ"
        assert unicodedata.combining(text[at - 1]) != 9


def test_foreign_words_and_numbers_stay_whole_in_a_script_without_spaces():
    text = "ราคาABCDEFGHIJKLMNOP1234567890บาทถ้วน"
    word = range(text.index("A") + 1, text.index("0") + 1)
    assert not {cut(text, TH, str(key)) for key in range(100)} & set(word)


@pytest.mark.parametrize(("text", "target"), [("Sim, senhor.", PT), ("สวัสดี", TH), ("", PT), ("x" * 80, PT)])
def test_what_is_too_short_or_has_no_place_for_a_cut_is_not_completed(text: str, target):
    assert completed_rows(rows(text, 5), EN, target) == []


@given(MIXED, st.sampled_from([PT, TH, AR, JA, KM, HI]), st.text(max_size=5))
def test_the_two_parts_are_the_text(text: str, target, key: str):
    [*completed] = completed_rows([{"id": key, "source": "x", "target": text, "origin": "test"}], EN, target)
    for row in completed:
        at = cut(text, target, key)
        assert at is not None
        prefix, rest = text[:at], row["response"]
        assert prefix + rest == text
        assert prefix in row["prompt"]
        assert prefix.strip()
        assert rest.strip()
        assert at in {match.end() for match in regex.finditer(r"\X", text)}


@pytest.mark.parametrize("unit", ["ภาษาไทย", "word and word ", "مرحبا بكم ", "👨‍👩‍👧", "漢字"])
def test_a_hundred_kilobytes_are_cut_at_once(unit: str):
    target = PT if " " in unit else TH
    text = unit * (100_000 // len(unit.encode()))
    [row] = completed_rows([{"id": "long", "source": "x", "target": text, "origin": "test"}], EN, target)
    assert text.endswith(row["response"])
    assert LATEST * len(text) >= len(text) - len(row["response"]) >= EARLIEST * len(text)
