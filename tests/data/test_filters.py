"""Each reason on texts that it must and must not drop; properties that hold for any text; the step."""

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdx import InputError
from sdx.config import ANSWER_FILTERS, TASK_FILTERS, TRANSLATION_FILTERS, FilterConfig
from sdx.data.corpus import SEED_CORPUS, read_corpus
from sdx.data.filters import (
    FILTERS,
    THRESHOLDS,
    Candidate,
    Filter,
    check,
    english_letters,
)
from sdx.languages import language
from sdx.store.files import read_rows, write_rows
from sdx.store.step import Workspace
from sdx.store.store import Store
from sdx.text.identification import loops, repeats
from sdx.text.refusal import refuses
from tests.kit.plain_step import PlainStep

CONFIG = FilterConfig()
EN, FR, PT, TH, ZH = map(language, ("en", "fr", "pt", "th", "zh"))
ARTICLE = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience "
    "and should act towards one another in a spirit of brotherhood.",
    "pt": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Dotados de razão e de "
    "consciência, devem agir uns para com os outros em espírito de fraternidade.",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ",
    "zh": "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。"
    "人間は、理性と良心とを授けられており、互いに同胞の精神をもって行動しなければならない。",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. "
    "인간은 천부적으로 이성과 양심을 부여받았으며 서로 형제애의 정신으로 행동하여야 한다.",
    "ar": "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. وقد وهبوا عقلاً وضميرًا "
    "وعليهم أن يعامل بعضهم بعضًا بروح الإخاء.",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता "
    "प्राप्त है। उन्हें बुद्धि और अन्तरात्मा की देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।",
    "id": "Semua orang dilahirkan merdeka dan mempunyai martabat dan hak-hak yang sama. Mereka dikaruniai akal dan "
    "hati nurani dan hendaknya bergaul satu sama lain dalam semangat persaudaraan.",
}


def drops(reason: str, text: str, source: str = "", config: FilterConfig = CONFIG, **given: Any) -> bool:
    return FILTERS[reason](replace(Candidate(text, source, PT, EN), **given), config)


def test_the_defaults_are_valid_and_every_reason_has_a_place() -> None:
    check(CONFIG)
    assert {*ANSWER_FILTERS, *TRANSLATION_FILTERS, *TASK_FILTERS} == set(FILTERS)
    assert CONFIG.tasks == list(TASK_FILTERS)


def test_thresholds_that_drop_every_row_are_refused() -> None:
    with pytest.raises(InputError, match=r"^filters.min_letters=9 is above filters.max_letters=8"):
        check(FilterConfig(min_letters=9, max_letters=8))


def test_empty_truncated_short_and_long() -> None:
    assert drops("empty", " \n\u3000")
    assert not drops("empty", ".")
    assert drops("truncated", "and then", finished=False)
    assert not drops("truncated", "and then", finished=True)
    five = FilterConfig(min_letters=5, max_letters=5)
    for text in ("ab 12!", "- ไทย", "हिन्दी"):  # vowel signs are no letters
        assert drops("short", text, config=five)
    for text in ("abc12.", "ประเทศ", "你好世界吗"):
        assert not drops("short", text, config=five)
    assert drops("long", "ab-cd ef", config=five)
    assert not drops("long", "(ab cd e)...........", config=five)


@pytest.mark.parametrize(
    ("source", "text", "dropped"),
    [
        ("3 and 2.\n#### 1,000", "3 und 2.\n#### 1.000", False),
        ("3 and 2.\n#### 1,000", "3 และ 2\n#### ๑๐๐๐ บาท", False),
        ("It is 2.5", "Es sind 2,5", False),
        ("Half, 50%", "一半，50%", False),
        ("#### 5", "#### 6", True),
        ("#### 5", "####", True),
        ("3\n#### 5", "3", True),
        ("None at all", "Gar keine", False),
        ("None at all", "Gar keine 3", True),
    ],
)
def test_the_number_of_a_worked_answer_survives(source: str, text: str, dropped: bool) -> None:
    assert drops("final_number", text, source) is dropped


@pytest.mark.parametrize(
    ("source", "text", "dropped"),
    [
        ("In {{answer}} it rains.", "Es regnet in {{answer}}.", False),
        ("In {{answer}} it rains.", "ฝนตกที่{{answer}}", False),
        ("In {{answer}} it rains.", "Es regnet.", True),
        ("In {{answer}} it rains.", "{{answer}} und {{answer}}", True),
        ("In {{answer}} it rains.", "{{ answer }}", True),
        ("{{answer}} is {{answer2}}", "{{answer2}} ist {{answer}}", False),
        ("{{answer}} is {{answer2}}", "{{answer}}", True),
        ("In {{answer}}", "In {{answer}} {{answer2}}", True),
        ("no marker", "kein {{answer}}", False),
    ],
)
def test_the_place_of_an_answer_survives(source: str, text: str, dropped: bool) -> None:
    assert drops("answer_span", text, source) is dropped


def test_loops_are_found_in_any_script_and_ordinary_texts_are_not() -> None:
    assert drops("repetition", "o que é o que é o que é o que é o que é")
    assert repeats("ประเทศไทยสวย" * 8)
    assert not repeats("- Buy milk.\n- Buy bread.\n- Buy butter and a little cheese.")
    assert not repeats("ok")
    assert not any(loops(row["answer"]) for row in read_corpus(SEED_CORPUS))


def test_a_loop_is_found_inside_a_long_text_and_a_table_is_no_loop() -> None:
    answers = [row["answer"] for row in read_corpus(SEED_CORPUS)][:8]
    assert not loops(" ".join(answers))
    looped = " ".join([*answers, "E a água que cai é " + "a água que cai e é " * 9, *answers[:2]])
    assert not repeats(looped)
    assert loops(looped)
    assert drops("repetition", looped)
    table = "| name   | height |\n|--------|--------|\n| Anna   | 170    |\n| Bernd  | 180    |\n| Claire | 175    |"
    assert not loops(table)
    assert not loops(f"{answers[0]}\n\n# {'-' * 100}\n\n{answers[1]} {answers[2]}")


@pytest.mark.parametrize("code", ARTICLE)
def test_lengths_are_comparable_across_scripts(code: str) -> None:
    source, text = ARTICLE["en"], ARTICLE[code]
    assert 0.7 < english_letters(text) / english_letters(source) < 1.4
    assert not drops("length_ratio", text, source)
    assert not drops("length_ratio", source, text)
    assert drops("length_ratio", text[: len(text) // 5], source)
    assert drops("length_ratio", text * 4, source)


def test_short_texts_have_slack_and_code_in_another_script_counts_as_what_it_is() -> None:
    human = {"CO2": "คาร์บอนไดออกไซด์", "4 lags": "4 Verzögerungen", "Yes": "是", "12": "3.5", "": "ok"}
    for source, text in human.items():
        assert not drops("length_ratio", text, source)
    assert drops("length_ratio", "", ARTICLE["en"])
    code = "`result = collection.aggregate(pipeline, allowDiskUse=True).to_list(length=None)`"
    assert not drops("length_ratio", f"运行{code}。", f"Now run {code} please.")


@pytest.mark.parametrize(
    "source",
    [
        "What is the capital of France?",
        "Write a poem about love.",
        ARTICLE["en"],
        "Use `print(x)` to show the value of x on the screen.",
        "- apples and pears\n- bread",
    ],
)
def test_an_unchanged_source_is_a_copy(source: str) -> None:
    assert drops("copied", source, source)
    assert drops("copied", f"  {source.upper().replace(' ', '  ')}\n", source)
    assert not drops("copied", f"{source} Sim.", source)


def test_a_word_with_joiners_is_one_word() -> None:
    fa = language("fa")
    assert not drops("copied", "می‌رود نمی‌خواهم", "می‌رود نمی‌خواهم", source_language=fa)
    assert drops("copied", "او می‌رود نمی‌خواهم", "او می‌رود نمی‌خواهم", source_language=fa)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "Paris",
        "hotel",
        "Leonardo da Vinci",
        "Miranda v. Arizona",
        "ignoratio elenchi",
        "160 bits",
        "E(X + Y) = 99, var(X + Y) = 13",
        "\\frac{3\\sqrt{3}}{3}",
        "```python\nfor word in words:\n    print(word, end=' and then the next ')\n```",
        "https://example.org/how-to-write-a-poem-about-love",
        "`git commit --amend and then push`",
        "Run `the name of the command` on {the name of the file}.",
        "SELECT name FROM users WHERE age > 30",
        "😀😀😀",
    ],
)
def test_names_terms_formulas_and_code_may_stay_as_they_are(source: str) -> None:
    assert not drops("copied", source, source)


def test_copies_of_languages_without_spaces_are_found_by_letters() -> None:
    assert drops("copied", ARTICLE["zh"], ARTICLE["zh"], source_language=ZH)
    assert not drops("copied", "北京大学", "北京大学", source_language=ZH)


@pytest.mark.parametrize("code", ARTICLE)
def test_a_text_in_another_language_is_dropped_and_one_in_its_own_is_not(code: str) -> None:
    for other in ARTICLE:
        assert drops("wrong_language", ARTICLE[other], language=language(code)) is (other != code)


def test_a_close_relative_is_not_the_wrong_language() -> None:
    for text in ("", "42", "Paris.", "```\nthe code of the program\n```", "???"):
        assert not drops("wrong_language", text)
    assert not drops("wrong_language", "- Penguin: bird\n- Dolphin: mammal\n- Bat: mammal", language=EN)
    assert not drops("wrong_language", ARTICLE["en"], language=language("kea_Latn"))  # not known to the identifier
    assert not drops("wrong_language", ARTICLE["id"], language=language("ms"))  # a close relative


REFUSALS = """\
As an AI language model, I cannot provide medical advice.
I'm sorry, but I can't assist with that request.
I’m sorry, but I cannot help you with that.
I apologize, but I am not able to help you with this.
Unfortunately, I cannot answer that question.
I cannot fulfill your request.
As a chatbot, I don't have feelings or opinions.
I'm sorry for any confusion, but as a text-based AI model, I'm unable to watch videos.
I'm sorry for the mistake, but as a chatbot, I don't have the ability to perform such actions.
I am just a language model, so I do not have a body.
I don't have access to real-time data, so I can't tell you today's weather.
I do not have personal opinions or beliefs.
I am unable to provide legal advice, but here are some tips.
I can't create content that promotes violence.
**I'm sorry,** but I can't help with that.
Thank you for your question. However, as an AI assistant, I do not have personal experiences.
Hello! As an artificial intelligence, I am not capable of eating.
I don't have enough information to answer.
As an AI developed by a company, I can't share personal information.
I'm afraid I can't answer that.
Désolé, mais je ne peux pas répondre à cette question.
Je suis désolée, mais je ne peux pas vous aider avec cela.
En tant qu'intelligence artificielle, je n'ai pas d'émotions.
En tant que modèle de langage, je ne peux pas naviguer sur Internet.
En tant qu’assistant IA, je ne suis pas en mesure de voir des images.
Je ne suis pas en mesure de fournir des conseils médicaux.
Je ne peux malheureusement pas accéder à votre fichier.
Je n'ai pas accès à Internet.
Je n'ai pas d'opinions personnelles.
Malheureusement, je ne peux pas vous fournir d'informations personnelles.
Bonjour, je ne suis qu'un modèle de langage et je ne peux pas manger.
""".splitlines()
NO_REFUSALS = """\
Dear Ms Jones, I'm sorry, but I cannot help you on Friday.
I'm sorry to hear that you lost your job. Here are three things that may help.
I'm sorry for your loss. I'm here to help, and I'm happy to assist you in making friends.
I'm sorry, but I can't come to your party on Saturday. I have to work.
"I'm sorry, but I can't help you," said the wizard.
I cannot wait to see you again!
I can't help but wonder what the stars are made of.
I cannot recommend this restaurant enough.
You cannot provide personal information to strangers on the internet.
As an AI researcher, I don't think that machines will replace teachers.
As a doctor, I cannot stress enough how important sleep is.
AI language models cannot feel pain. They predict the next word.
The knight said: I cannot fulfil your request, my king.
Once upon a time there was a robot who said: As an AI, I cannot love.
Subject: Your order. Unfortunately, we cannot process your request.
I don't have a car, so I take the bus.
I don't have access to the garage, could you open it?
Hello! I'm happy to help you. Paris is the capital of France.
As an AI language model, I can help you write a poem. Here it is.
I can't open the door, the key is broken.
No, penguins cannot fly.
Je suis désolé, mais je ne peux pas venir à votre fête samedi.
Je suis désolé d'apprendre que vous êtes malade.
Je ne peux pas attendre de te revoir !
« Je ne peux pas vous aider », dit le roi.
Cher Paul, je ne peux malheureusement pas t'aider à déménager samedi.
En tant que médecin, je ne peux que vous conseiller de dormir.
Malheureusement, le train ne peut pas partir.
Je n'ai pas de voiture.
Les modèles de langage ne peuvent pas ressentir la douleur.
""".splitlines()


@pytest.mark.parametrize("text", REFUSALS)
def test_refusals(text: str) -> None:
    assert refuses(text)
    assert refuses(f"\n{text}\n\nHowever, you can ask a librarian.")
    assert not refuses(f"The sign says: {text}")


@pytest.mark.parametrize("text", NO_REFUSALS)
def test_being_sorry_or_unable_is_no_refusal(text: str) -> None:
    assert not refuses(text)


def test_no_answer_of_the_seed_corpus_is_dropped() -> None:
    for row in read_corpus(SEED_CORPUS):
        candidate = Candidate(row["answer"], row["instruction"], EN, EN)
        assert [reason for reason in ANSWER_FILTERS if FILTERS[reason](candidate, CONFIG)] == []


# Properties of any text.

WORDS = [
    *"the cat Olá né שלום سلام ไทย 你好 ひらがな 한국어 नमस्ते 😀 👍🏽 e\u0301 12 X \ud800 \x00 \u200b".split(),
    *"I'm sorry but I can't help you as an AI en tant que je ne peux pas".split(),
    *"`code` ``` ~~~ http:// a@b.co $x$ <b> { | . ! 。 # - *".split(),
    *("\n", "```\n", "\u2028", "\t"),
]
texts = st.one_of(
    st.text(st.characters(), max_size=120),  # surrogates too
    st.lists(st.sampled_from([*WORDS, " ", " "]), max_size=40).map("".join),
    st.sampled_from(list(ARTICLE.values())),
    st.sampled_from(REFUSALS),
)
languages = st.sampled_from([EN, PT, TH, ZH, *map(language, ("ar", "hi", "ja", "id", "kea_Latn", "zho_Hant"))])
candidates = st.builds(Candidate, texts, texts, languages, languages, st.booleans())
copies = candidates.map(lambda row: replace(row, text=row.source))
reasons = st.lists(st.sampled_from(list(FILTERS)), unique=True)


@given(st.one_of(candidates, copies))
@settings(max_examples=300, deadline=None)
def test_every_filter_decides_on_any_text(row: Candidate) -> None:
    for keeps in FILTERS.values():
        assert keeps(row, CONFIG) in (True, False)


@given(candidates, st.integers(1, 60), st.integers(1, 60), st.floats(1.01, 9), st.floats(1.01, 9))
@settings(max_examples=200, deadline=None)
def test_a_wider_threshold_never_drops_more(row: Candidate, low: int, high: int, narrow: float, wide: float) -> None:
    (low, high), (narrow, wide) = sorted((low, high)), sorted((narrow, wide))

    def dropped(reason: str, **given: Any) -> bool:
        return FILTERS[reason](row, FilterConfig(**given))

    assert dropped("short", min_letters=low) <= dropped("short", min_letters=high)
    assert dropped("long", max_letters=high) <= dropped("long", max_letters=low)
    assert dropped("length_ratio", length_ratio=wide) <= dropped("length_ratio", length_ratio=narrow)


def realise(rows: list[dict[str, Any]], names: list[str], dir_: Path) -> tuple[list[Any], list[Any], dict[str, int]]:
    """Runs the step's function on rows: kept, dropped, counts."""
    input_, output = dir_ / "input", dir_ / "output"
    for path in (input_, output):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    write_rows(input_ / "rows.jsonl", rows)
    source = PlainStep("translate", lambda _: None)
    workspace = Workspace(output, {"rows": input_})
    Filter(source, names, PT, EN, CONFIG).run(workspace)
    return read_rows(output / "rows.jsonl"), read_rows(output / "dropped.jsonl"), workspace.counts


valid = texts.map(lambda text: text.encode(errors="ignore").decode())  # rows are UTF-8: no lone surrogates
rows = st.lists(st.tuples(valid, valid), max_size=8).map(
    lambda pairs: [{"id": str(n), "source": source, "text": text} for n, (source, text) in enumerate(pairs)]
)


@given(rows, reasons, st.randoms())
@settings(max_examples=100, deadline=None)
def test_nothing_is_changed_or_lost_and_the_order_of_reasons_names_drops_only(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], names: list[str], random: Any
) -> None:
    dir_ = tmp_path_factory.getbasetemp()
    kept, dropped, counts = realise(rows, names, dir_)
    stripped = [{key: value for key, value in row.items() if key != "reason"} for row in dropped]
    assert all(row["reason"] in names for row in dropped)
    assert sorted(kept + stripped, key=lambda row: int(row["id"])) == rows
    assert [int(row["id"]) for row in kept] == sorted(int(row["id"]) for row in kept)
    assert list(counts) == ["kept", *names]
    assert sum(counts.values()) == len(rows)
    assert realise(kept, names, dir_)[:2] == (kept, [])
    shuffled = random.sample(names, len(names))
    assert realise(rows, shuffled, dir_)[0] == kept


UNITS = [
    *("the cat sat on the mat. ", "กรุงเทพ", "北京是首都。", "القاهرة هي عاصمة مصر. ", "👩‍👧‍👦🇫🇷", "a", "a\n", " "),
    *("`", "~", "``` ", "```\nx\n", "a@", "a@b-", "a.", "<a ", "$a", "_", "sorry ", "as an ai ", "i'm sorry, but "),
]


@pytest.mark.parametrize("unit", UNITS)
def test_a_hundred_kilobytes_take_under_a_second(unit: str) -> None:
    text = unit * (100_000 // len(unit.encode()))
    row = Candidate(text, text, EN, EN)
    FILTERS["wrong_language"](Candidate("Load the identifier of languages first.", "", PT, EN), CONFIG)
    for reason, drops_it in FILTERS.items():
        start_s = time.process_time()
        drops_it(row, CONFIG)
        assert time.process_time() - start_s < 2, reason  # a second, doubled for a busy machine


# The step.


def test_drops_are_counted_by_their_first_reason_and_stay_readable(tmp_path: Path) -> None:
    given = [
        {
            "id": "a",
            "prompt": "Say it.",
            "text": "Todos os seres humanos nascem livres.",
            "tokens": 9,
            "finished": True,
        },
        {"id": "b", "prompt": "Say it.", "text": " \n", "tokens": 1, "finished": False},
        {"id": "c", "prompt": "Say it.", "text": "Todos os seres humanos nas", "tokens": 9, "finished": False},
        {"id": "d", "prompt": "Say it.", "text": "e assim por diante " * 9, "tokens": 9, "finished": True},
    ]
    store = Store(tmp_path)
    source = PlainStep("generate", lambda w: write_rows(w.dir / "rows.jsonl", given))
    step = Filter(source, ["empty", "truncated", "repetition", "long"], PT, EN, CONFIG)
    path = store.realise(step)
    assert read_rows(path / "rows.jsonl") == given[:1]
    assert [(row["id"], row["reason"]) for row in read_rows(path / "dropped.jsonl")] == [
        ("b", "empty"),
        ("c", "truncated"),
        ("d", "repetition"),
    ]
    assert store.manifest(step)["counts"] == {"kept": 1, "empty": 1, "truncated": 1, "repetition": 1, "long": 0}
    assert read_rows(store.realise(Filter(source, [], PT, EN, CONFIG)) / "rows.jsonl") == given


def test_a_dropped_translation_stands_beside_its_source(tmp_path: Path) -> None:
    row = {"id": "a", "source": "What is the capital of France?", "text": "What is the capital of France?"}
    _, dropped, _ = realise([row], ["copied"], tmp_path)
    assert list(dropped[0].items()) == [("id", "a"), ("reason", "copied"), *list(row.items())[1:]]


def test_only_what_the_reasons_read_decides_the_key() -> None:
    source = PlainStep("translate", lambda _: None)
    strict = FilterConfig(min_letters=3, max_letters=9, length_ratio=2.0)

    def key(names: list[str], target=PT, config=CONFIG, source_language=EN) -> str:
        return Filter(source, names, target, source_language, config).key

    assert key(["empty", "copied"], PT) == key(["empty", "copied"], TH, strict, FR)
    assert key(["empty"]) != key(["copied"])
    for reason in THRESHOLDS:
        assert key([reason]) != key([reason], config=strict)
    assert key(["wrong_language"], PT) != key(["wrong_language"], TH)
    assert key(["copied"]) != key(["copied"], source_language=ZH)
