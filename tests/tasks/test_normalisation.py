"""The tokens of answers: joiners and case in every script, and the rules of published evaluations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdx.evaluation.overlap import exact_match, f1, rouge_l
from sdx.languages import language, languages
from sdx.tasks.normalisation import ARTICLES, MLQA, Normalisation, answer_tokens, words

# A language of each script in which spaces separate words, with two words that may contain joiners.
JOINERS = "\u200c\u200d\u2060\u00ad\ufeff\u200e\u200f\ufe0f"
SPACED = {
    "si": "ශ්‍රී ලංකාව",
    "fa": "او می‌رود",
    "ur": "علم‌دار ہے",
    "hi": "क्‍या शक्‌ति",
    "mr": "दर्‍या सर्‍व",
    "bn": "র‍্যাম উদ্‌যাপন",
    "as": "ৰ‍্যাম উদ্‌যাপন",
    "ml": "അവന്‍ കണ്‍മണി",
    "kn": "ರ‍್ಯಾಂಕ್ ಕಂಪ್ಯೂಟರ್‌ಗಳು",
    "te": "సాఫ్ట్‌వేర్ రాజ్",
    "ta": "க்‌ஷ ஸ்ரீ",
    "gu": "ક્‍ષ સૉફ્ટ",
    "pa": "ਪੰਜਾਬ‌ੀ ਹੈ",
    "or": "ଓଡ଼ି‌ଆ ର",
    "ckb": "ده‌چم بۆ",
    "am": "ሰላም ለዓለም",
    "hy": "Ինչպե՞ս ես",
    "he": "שלום עולם",
    "de": "Auf\u00adlage zwei",
}
UNSPACED = {
    "th": "ภาษา\u200bไทย",
    "km": "ភាសា\u200bខ្មែរ",
    "lo": "ພາສາ\u200bລາວ",
    "my": "မြန်မာ\u200bစာ",
    "zh": "北\u200d京",
}


@pytest.mark.parametrize("code", SPACED)
def test_a_joiner_does_not_separate_words(code: str) -> None:
    of, text = language(code), SPACED[code]
    assert len(words(text, of)) == len(answer_tokens(text, of)) == 2
    first, second = text.split()
    for measure in (rouge_l, f1):
        assert measure(text, [f"{first} {first}x"], of) == 0.5
        assert measure(f"{first}x {second}x", [text], of) == 0


@pytest.mark.parametrize("code", {**SPACED, **UNSPACED})
@given(data=st.data())
def test_joiners_make_no_difference(code: str, data: st.DataObject) -> None:
    of = language(code)
    text = {**SPACED, **UNSPACED, "ml": "അവൻ കൺമണി"}[code]  # after ് a joiner makes another letter
    bare = "".join(char for char in text if char not in f"{JOINERS}\u200b")
    place = data.draw(st.integers(1, len(bare) - 1))
    other = bare[:place] + data.draw(st.sampled_from(JOINERS)) + bare[place:]
    assert rouge_l(other, [text], of) == f1(other, [text], of) == 1
    assert exact_match(other, [text], of)


@pytest.mark.parametrize(
    ("code", "answer", "reference", "expected"),
    [("si", "ශ්‍රී ලංකාව", "ශ්‍රී ජයවර්ධන", 0.5), ("fa", "او می‌رود", "من می‌خورم", 0.0)],
)
def test_words_with_joiners(code: str, answer: str, reference: str, expected: float) -> None:
    assert rouge_l(answer, [reference], language(code)) == f1(answer, [reference], language(code)) == expected


@pytest.mark.parametrize(
    ("code", "one", "other"),
    [
        ("ml", "അവന്‍", "അവൻ"),  # a chillu as two letters and a joiner, and as one
        ("bn", "উৎ", "উত্\u200d"),
        ("am", "ሰላም፡ለዓለም", "ሰላም ለዓለም"),
        ("hy", "Ինչպե՞ս", "ինչպես"),
        ("th", "กรุง\u200bเทพ", "กรุงเทพ"),
        ("tr", "istanbul", "İstanbul"),
        ("tr", "ISPARTA", "ısparta"),
        ("tr", "Iğdır", "ığdır"),
        ("tr", "I\u0307zmir", "izmir"),
        ("az", "İRƏVAN", "irəvan"),
        ("crh_Latn", "Işıq", "ışıq"),
        ("en", "istanbul", "İstanbul"),
        ("en", "ISTANBUL", "istanbul"),
        ("lt", "i̇́vykis", "Ívykis"),
        ("de", "STRASSE", "Straße"),
        ("de", "GROẞ", "groß"),
        ("el", "Ὀδυσσεύς", "ὈΔΥΣΣΕΎΣ"),
        ("el", "λόγος", "ΛΌΓΟΣ"),
        ("nl", "ĳs", "IJS"),
    ],
)
def test_equal_but_for_spelling_and_case(code: str, one: str, other: str) -> None:
    of = language(code)
    assert exact_match(one, [other], of)
    assert f1(one, [other], of) == rouge_l(one, [other], of) == 1


@pytest.mark.parametrize(("one", "other"), [("kın", "kin"), ("ILIK", "ilik"), ("ılık", "ilik")])
def test_in_turkish_i_without_a_dot_is_another_letter(one: str, other: str) -> None:
    assert not exact_match(one, [other], language("tr"))


@pytest.mark.parametrize(
    ("rules", "code", "answer", "references", "expected", "exact"),
    [
        ("mlqa", "zh", "iPhone手机", ["iPhone"], 0.5, False),
        ("mlqa", "zh", "1994年", ["1994"], 2 / 3, False),
        ("mlqa", "zh", "「北京」。", ["北京"], 1, True),
        ("mlqa", "vi", "cái nhà", ["nhà"], 1, True),
        ("mlqa", "hi", "दिल्ली।", ["दिल्ली"], 1, True),
        ("mlqa", "ar", "القاهرة، مصر", ["قاهرة مصر"], 1, True),
        ("mlqa", "de", "die Donau", ["Donau"], 1, True),
        ("mlqa", "en", "the", ["a"], 0, True),  # no token is left, as in SQuAD 1.1
        ("squad", "en", "The  tower, a big one", ["tower big one"], 1, True),
        ("squad", "zh", "iPhone手机", ["iPhone"], 0, False),
        ("squad", "es", "el tower", ["tower"], 2 / 3, False),
        ("squad", "zh", "北京。", ["北京"], 0, False),  # only ASCII punctuation is deleted
        ("mkqa", "zh", "这个一个苹果", ["这是还是苹果", "这是另一个苹果"], 10 / 13, False),
        ("mkqa", "km", "នេះគឺជាផ្លែប៉ោម", ["នេះគឺជាផ្លែប៉ោមមួយទៀត"], 5 / 6, False),
        ("mkqa", "es", "esto es manzana", ["esto es una manzana", "esta es otra manzana"], 1, True),
        ("mkqa", "ar", "تفاحة", ["التفاحة", "هذه تفاحة"], 1, True),
        ("mkqa", "fr", "c'est de la pomme", ["c'est la pomme"], 1, True),
        (
            "mkqa",
            "fr",
            "lemon",
            ["mon"],
            1,
            True,
        ),  # French and Italian articles also go at the beginning of words
        ("mkqa", "it", "Italia", ["talia"], 1, True),
        ("mkqa", "hu", "ez egy alma", ["ez alma"], 1, True),
        ("mkqa", "en", "an answer ?? without stopwords", ["answer -- without, stopwords!!"], 1, True),
        ("mkqa", "en", "alternative answer", ["dummy answer one", "alternative answer two"], 0.8, False),
        ("mkqa", "en", "the", ["a"], 1, True),
        ("mkqa", "ko", "서울", ["서울시"], 0, False),
        ("unicode", "zh", "1994年", ["1994"], 8 / 9, False),
    ],
)
def test_published_rules(
    rules: str, code: str, answer: str, references: list[str], expected: float, exact: bool
) -> None:
    given = language(code), Normalisation(rules)
    assert f1(answer, references, *given) == pytest.approx(expected)
    assert exact_match(answer, references, *given) is exact


@pytest.mark.parametrize("code", ARTICLES)
def test_articles_of_fourteen_languages_are_deleted(code: str) -> None:
    assert len(ARTICLES) == 14
    for article in ARTICLES[code].split():
        text = f"{article}xyz" if code == "ar" else f"{article} xyz"
        tokens = answer_tokens(text, language(code), Normalisation.mkqa)
        assert tokens[-1] == "xyz"
        # The script deletes French `les` as `le`, and leaves an s.
        assert len(tokens) == 1 or code in ("fr", "it")


def test_languages_and_names_of_the_rules() -> None:
    able = {entry.code for entry in languages() if Normalisation.mlqa.why_unsupported(entry) is None}
    assert able == set(MLQA)
    assert Normalisation.mlqa.why_unsupported(language("th")) == (
        "MLQA's evaluation has ar, de, en, es, hi, vi, zh only; choose normalisation=squad or unicode."
    )
    assert [rules.named("F1") for rules in Normalisation] == ["F1", "F1 (SQuAD)", "F1 (MLQA)", "F1 (MKQA)"]
