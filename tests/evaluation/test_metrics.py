import pytest

from sdx.evaluation.metrics import corpus_score, corpus_statistics
from sdx.languages import language
from sdx.text.identification import in_language, language_of

SENTENCES = {
    "th": "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย",
    "zh": "北京是中华人民共和国的首都。",
    "ar": "القاهرة هي عاصمة مصر وأكبر مدنها.",
    "pt": "A água ferve a cem graus ao nível do mar.",
    "es": "El agua hierve a cien grados al nivel del mar.",
    "en": "Water boils at one hundred degrees at sea level.",
    "sw": "Mji mkuu wa Tanzania ni Dodoma, si Dar es Salaam.",
    "no": "Jeg vet ikke hva hovedstaden i landet heter.",
}
CODE = "```python\nprint('The answer to the question of the user')\n```"


@pytest.mark.parametrize("code", SENTENCES)
def test_sentences(code: str) -> None:
    text = SENTENCES[code]
    assert language_of(text) == code
    assert in_language(text, language(code)) is True
    for other in SENTENCES.keys() - {code}:
        assert in_language(text, language(other)) is False


@pytest.mark.parametrize(
    "text", ["42", "3,14 €", "Paris.", "A", "...", "🙂", CODE, "x = 3 * 4", "https://example.org/the-page"]
)
def test_nothing_to_tell_by(text: str) -> None:
    assert language_of(text) is None
    assert in_language(text, language("pt")) is None


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_is_a_failure(text: str) -> None:
    assert language_of(text) is None
    assert in_language(text, language("pt")) is False


def test_short_texts_of_a_script_of_its_own() -> None:
    assert in_language("ไทย", language("th")) is True
    assert in_language("ไม่ทราบ", language("lo")) is False


def test_code_urls_and_addresses_do_not_count() -> None:
    for part in (
        CODE,
        CODE.removesuffix("```"),
        "`the_name_of_the_function(the_argument)`",
        "https://en.wikipedia.org/wiki/The",
    ):
        assert in_language(f"Escreva isto assim, por favor:\n{part}\n", language("pt")) is True
    assert in_language("Escreve para the.office.of.the.king@example.org se tiveres dúvidas.", language("pt")) is True
    assert in_language(f"{CODE}\nThis program prints the answer.", language("pt")) is False


def test_small_relatives_win_only_when_expected() -> None:
    galician = "Non sei cal é a capital do país, pero podo buscalo na enciclopedia."
    assert language_of(galician, language("gl")) == "gl"
    assert language_of(galician) != "gl"
    assert in_language(galician, language("gl")) is True
    assert in_language("Qual é a origem do osso hioide?", language("pt")) is True


def test_languages_the_identifier_does_not_know() -> None:
    assert in_language("Qualquer texto em qualquer língua.", language("kea_Latn")) is None
    assert in_language("", language("kea_Latn")) is None
    assert (
        in_language("main nahin jaanta ki raajdhani kya hai", language("hin_Latn")) is None
    )  # it knows Devanagari only
    assert in_language("北京是中華人民共和國的首都。", language("zho_Hant")) is True


NAMES = (
    "Madrid",
    "Barack Obama",
    "Leonardo da Vinci",
    "Vincent van Gogh, Ludwig van Beethoven, Charles de Gaulle",
    "Barack Obama, Angela Merkel, Emmanuel Macron",
    "Universidade Federal do Rio de Janeiro",
    "NATO",
    "COVID-19",
    "iPhone 15",
    "Windows XP",
)
OTHERS = (
    "42",
    "1 000 000 €",
    "H2O",
    "10 km",
    "https://example.org/the-page-of-the-house",
    "the.office.of.the.king@example.org",
    "`the_name_of_the_function(the_argument)`",
    r"$\frac{\partial the}{\partial other} = \text{the sum of it all}$",
    r"\[ \text{speed of light in the vacuum} \]",
    CODE,
)


@pytest.mark.parametrize("text", [*NAMES, *OTHERS])
def test_what_is_the_same_in_many_languages_decides_nothing(text: str) -> None:
    for code in ("en", "pt", "es", "it", "nl", "de", "tr", "id", "ru", "th", "ja", "zh", "ar", "hi"):
        assert in_language(text, language(code)) is None, code


@pytest.mark.parametrize("code", ["ru", "uk", "bg", "sr", "mk", "kk"])
def test_cyrillic_names(code: str) -> None:
    for text in ("Москва", "Барак Обама", "Владимир Путин", "Альберт Эйнштейн, Исаак Ньютон, Галилео Галилей"):
        assert in_language(text, language(code)) is None


def test_names_are_no_answer_in_another_script_and_no_excuse_for_other_words() -> None:
    for text in ("Αθήνα", "東京", "第二次世界大戦"):
        assert in_language(text, language("en")) is False
    assert in_language("The capital of the country is Madrid", language("pt")) is False
    assert in_language("ISTO É UMA FRASE INTEIRA ESCRITA EM MAIÚSCULAS", language("pt")) is not None


@pytest.mark.parametrize(
    "text",
    "東京 徳川家康 第二次世界大戦 日本国憲法 中華人民共和国 芥川龍之介 一九四五年 二酸化炭素 毛沢東 不明 基本的人権 "
    "独立行政法人国立高等専門学校機構 国際連合安全保障理事会常任理事国".split(),
)
def test_kanji_alone_are_not_known_to_be_no_japanese(text: str) -> None:
    for each in (text, f"{text}。", f"「{text}」", f"1945 {text}"):
        assert in_language(each, language("ja")) is None


@pytest.mark.parametrize("text", ["东京是日本的首都", "这是中文", "他是美国总统", "中国的首都是北京"])
def test_short_chinese_is_no_japanese(text: str) -> None:
    assert in_language(text, language("ja")) is False
    assert in_language(text, language("zh")) is True


@pytest.mark.parametrize("text", ["東京", "北京", "中国", "香港"])
def test_places_in_chinese_characters_are_of_several_languages(text: str) -> None:
    for code in ("ja", "zh", "zho_Hant", "yue"):
        assert in_language(text, language(code)) is None


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("ja", "東京は日本の首都です。"),
        ("zh", "我不知道"),
        ("zho_Hant", "北京是中華人民共和國的首都。"),
    ],
)
def test_sentences_in_chinese_characters_and_kana_are_told(code: str, text: str) -> None:
    assert in_language(text, language(code)) is True


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("id", "Semua orang dilahirkan merdeka dan mempunyai martabat dan hak-hak yang sama."),
        ("bs", "Sva ljudska bića rađaju se slobodna i jednaka u dostojanstvu i pravima."),
        ("hi", "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।"),
        ("yue", "人人生而自由,在尊嚴和權利上一律平等。"),
        ("nn", "Alle menneske er fødde til fridom og med same menneskeverd og menneskerettar."),
    ],
)
def test_what_may_be_a_close_relative_is_not_ruled_out(code: str, text: str) -> None:
    assert in_language(text, language(code)) is not False
    assert in_language("All human beings are born free and equal in dignity and rights.", language(code)) is False


def test_chrf_is_sacrebleus() -> None:
    from sacrebleu.metrics import CHRF

    pairs = [
        ("the cat sat on the mat.", "the cat sat on a mat."),
        ("a dog", "the dogs bark (loudly)"),
        ("", "nothing"),
        ("x", "x"),
        ("กรุงเทพ", "กรุงเทพมหานคร"),
    ]
    for some in (pairs, pairs[:1], pairs[2:3], pairs[3:4], pairs[4:]):
        hypotheses, references = map(list, zip(*some, strict=True))
        expected = CHRF(word_order=2).corpus_score(hypotheses, [references]).score
        assert float(
            corpus_score("chrF++", corpus_statistics("chrF++", hypotheses, references).sum(0))
        ) == pytest.approx(expected)
    hypotheses, references = map(list, zip(*pairs, strict=True))
    singly = [CHRF(word_order=2).sentence_score(h, [r]).score for h, r in pairs]
    assert corpus_score("chrF++", corpus_statistics("chrF++", hypotheses, references)) == pytest.approx(singly)


def test_what_is_no_answer_in_any_language_does_not_count_as_one():
    pt = language("pt")
    assert language_of("O que é o que é o que é o que é o que é o que é o que é", pt) == "pt"
    assert in_language("O que é o que é o que é o que é o que é o que é o que é", pt) is False
    assert in_language("Amiko, de la moro, vergo como the quello zandar nix tirumalai dokkur", pt) is False
    assert in_language("Paris.", pt) is None
