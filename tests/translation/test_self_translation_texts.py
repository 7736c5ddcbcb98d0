"""Hard texts through self-translation. The answers are scripted: what a model may write, good and bad.

Everything else is real: prompts, tokens, where an answer ends, its limit, what is hidden and what is counted.
"""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from sdx.config import TRANSLATION_FILTERS, FilterConfig, Precision, TemplateKind
from sdx.data.filters import Filter
from sdx.generation.hf import HFGenerator
from sdx.languages import language
from sdx.store.files import read_rows, write_rows
from sdx.store.store import Store
from sdx.translation.base import TranslationContext
from sdx.translation.prompted import MARGIN, ROOM_FACTOR, ROOM_TOKENS
from sdx.translation.self_translation import SelfTranslation
from sdx.translation.step import Translate
from tests.kit.plain_step import PlainStep
from tests.kit.tiny import tiny_model

EN, TH, PT, AR, HE, ZH, JA = (
    "eng_Latn",
    "tha_Thai",
    "por_Latn",
    "arb_Arab",
    "heb_Hebr",
    "zho_Hans",
    "jpn_Jpan",
)
PAIRS = [{"source": "The dog.", "target": "สุนัข"}]
Script = Callable[[str], str]


class Scripted(HFGenerator):
    """Writes what a script says for the sentence of a prompt, token by token, up to its end or its limit."""

    script: Script
    delimiter: str
    sentences: list[str]
    """That were asked for, in their order."""
    written: list[str]
    """What was generated of each answer."""

    def _answers(self, prompts, stop, limits, *_):
        tokenizer = self._ready().tokenizer
        answers = []
        for prompt, limit in zip(prompts, limits, strict=True):
            *_, line, _label = tokenizer.decode(prompt).removesuffix("<|im_end|>\n<|im_start|>assistant\n").split("\n")
            sentence = line.partition(": ")[2]
            if self.delimiter not in ("", "\n\n"):  # all examples are on the line
                sentence = line.rpartition(self.delimiter)[2].partition(": ")[2]
            self.sentences.append(sentence)
            ids = [*tokenizer(self.script(sentence), add_special_tokens=False).input_ids, tokenizer.eos_token_id]
            size = next(size for size in range(1, len(ids) + 1) if size in (limit, len(ids)) or stop.ended(ids[:size]))
            answers.append(ids[:size])
            self.written.append(tokenizer.decode(ids[:size]))
        return answers


@pytest.fixture
def scripted(tmp_path: Path) -> Callable[..., tuple[SelfTranslation, Scripted]]:
    def make(script: Script, delimiter: str = "\n\n", chat: bool = False) -> tuple[SelfTranslation, Scripted]:
        model = tiny_model(tmp_path / f"tiny {chat}", chat)
        backbone = PlainStep("backbone", lambda work: (work.dir / "model").symlink_to(model, target_is_directory=True))
        pairs = PlainStep("parallel", lambda work: write_rows(work.dir / "demonstrations.jsonl", PAIRS))
        generator = Scripted(batch_size=4, precision=Precision.fp32)
        generator.script, generator.delimiter = script, delimiter
        generator.sentences, generator.written = [], []
        translator = SelfTranslation(1, None, delimiter)
        translator.attach(TranslationContext(backbone, TemplateKind.auto, generator, lambda *_: pairs, None))
        store = Store(tmp_path / f"cache {chat}")
        translator.prepare({name: store.realise(step) for name, step in translator.needs(EN, TH).items()})
        return translator, generator

    return make


def letters(start: str) -> Script:
    """Another script's letter in the place of each of the sentence's; placeholders, numbers and signs stay."""

    def translate(sentence: str) -> str:
        words = sentence.split(" ")
        return " ".join(
            word if any(map(str.isdigit, word)) else "".join(start if c.isalpha() else c for c in word)
            for word in words
        )

    return translate


CHAIN = """Janet sells 16 - 3 - 4 = <<16-3-4=9>>9 duck eggs a day.

She makes 9 * 2 = $18 every day at the market.
16 - 3 - 4 = 9

#### 18"""


def test_a_chain_of_thought_keeps_its_lines_numbers_and_equations(scripted):
    translator, generator = scripted(letters("ก"))
    [translated] = translator.translate([CHAIN], EN, TH)
    lines = translated.split("\n")
    assert len(lines) == len(CHAIN.split("\n"))
    assert lines[1] == lines[4] == ""
    assert lines[0].endswith("16 - 3 - 4 = <<16-3-4=9>>9 กกกก กกกก ก กกก.")
    assert "9 * 2 = $18" in lines[2]
    assert lines[3] == "16 - 3 - 4 = 9"
    assert lines[5] == "#### 18"
    assert not any("\n" in sentence or "<<" in sentence for sentence in generator.sentences)
    assert len(generator.sentences) == 2  # line by line, and none of them again


def test_a_lost_number_or_sign_of_an_equation_is_not_let_through(scripted):
    def careless(sentence: str) -> str:
        return sentence.replace("16 - 3 - 4 = 9", "16, 3, 4 = 9").replace("$18", "dinheiro").replace("makes", "faz")

    translator, generator = scripted(careless)
    texts = ["She makes 16 - 3 - 4 = 9 eggs.", "She makes $18 now."]
    assert translator.translate(texts, EN, PT) == ["She faz 16 - 3 - 4 = 9 eggs.", "She faz $18 now."]
    assert sum("X1" in sentence for sentence in generator.sentences) == 2  # asked again with the numbers hidden


@pytest.mark.parametrize(
    ("number", "written"),
    [
        ("42", "๔๒"),
        ("42", "٤٢"),
        ("42", "४२"),
        ("1,000", "1.000"),
        ("1,000", "1 000"),
        ("1,000", "1\u00a0000"),
        ("1,000", "1000"),
        ("1,000", "١٬٠٠٠"),
        ("1,234.5", "1.234,5"),
        ("1,234.5", "1 234,5"),
        ("3.5", "٣٫٥"),
        ("100,000", "1,00,000"),
        ("12 - 2 = 10", "๑๒ − ๒ = ๑๐"),
        ("3 x 4 = 12", "3 × 4 = 12"),
    ],
)
def test_numbers_in_other_digits_are_kept_numbers(scripted, number: str, written: str):
    translator, generator = scripted(lambda sentence: sentence.replace(number, written).replace("There are", "มี"))
    assert translator.translate([f"There are {number} dogs."], EN, TH) == [f"มี {written} dogs."]
    assert len(generator.sentences) == 1  # a number taken for lost would be hidden and asked for again


@pytest.mark.parametrize(("number", "written"), [("42", "๔๓"), ("1,000", "1 00"), ("3.5", "35"), ("1,000", "10 000")])
def test_other_numbers_are_not(scripted, number: str, written: str):
    translator, generator = scripted(lambda sentence: sentence.replace(number, written))
    assert translator.translate([f"There are {number} dogs."], EN, TH) == [f"There are {number} dogs."]
    assert len(generator.sentences) > 1


@pytest.mark.parametrize(
    ("text", "source", "target", "answers", "expected"),
    [
        (
            "كم ساقا للكلب؟ له 4 سيقان.",
            AR,
            EN,
            {"كم ساقا للكلب؟": "How many legs?", "له 4 سيقان.": "It has ٤ legs."},
            "How many legs? It has ٤ legs.",
        ),
        ("How many legs?\nFour.", EN, AR, {"How many legs?": "كم ساقا؟", "Four.": "أربع."}, "كم ساقا؟\nأربع."),
        ("שלום. יש לי {{name}}.", HE, EN, {"שלום.": "Hello.", "יש לי X1.": "I have X1."}, "Hello. I have {{name}}."),
        ("I have `x` and {{name}}.", EN, HE, {"I have X1 and X2.": "יש לי X2 ו-X1."}, "יש לי {{name}} ו-`x`."),
        ("ฉันมีแมว 2 ตัว", TH, EN, {"ฉันมีแมว 2 ตัว": "I have 2 cats"}, "I have 2 cats"),
        (
            "我有3只猫。你呢？",
            ZH,
            EN,
            {"我有3只猫。": "I have 3 cats.", "你呢？": "And you?"},
            "I have 3 cats.And you?",
        ),
        ("I have 3 cats.", EN, ZH, {"I have 3 cats.": "我有３只猫。"}, "我有３只猫。"),
        ("猫が3匹います。\n犬は?", JA, EN, {"猫が3匹います。": "3 cats.", "犬は?": "Dogs?"}, "3 cats.\nDogs?"),
        ("See {{name}} now.", EN, JA, {"See X1 now.": "今X1を見て。"}, "今{{name}}を見て。"),
    ],
)
def test_scripts_from_the_right_and_without_spaces(
    scripted, text: str, source: str, target: str, answers: dict[str, str], expected: str
):
    translator, generator = scripted(lambda sentence: " " + answers.get(sentence, "?"))
    assert translator.translate([text], source, target) == [expected]
    assert sorted(generator.sentences) == sorted(answers)


@pytest.mark.parametrize("delimiter", [" ### ", "|", "->"])
@pytest.mark.parametrize("chat", [False, True])
def test_a_delimiter_in_the_text_stays_and_one_in_the_answer_ends_it(scripted, delimiter: str, chat: bool):
    translator, generator = scripted(
        lambda sentence: sentence.replace("cat", "gato") + f"{delimiter}English: The dog.\nPortuguese: O cão.",
        delimiter,
        chat,
    )
    text = f"The cat{delimiter}the cat went home.\nA cat."
    assert translator.translate([text], EN, PT) == [text.replace("cat", "gato")]
    assert not any(delimiter in sentence for sentence in generator.sentences)
    assert any("X1" in sentence for sentence in generator.sentences)
    assert chat or not any("English" in answer for answer in generator.written)  # nothing is written after it


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (" O gato.\nEnglish: The dog.\nPortuguese: O cão.", "O gato."),
        (" O gato.\n\nEnglish: The dog.", "O gato."),
        (" O gato. English: The dog.", "O gato."),
        ("Portuguese: O gato.", "O gato."),
        ("", "The cat."),
        (" ", "The cat."),
        ("\nO gato.", "The cat."),
        (" English: The dog.", "The cat."),
    ],
)
def test_what_a_base_model_writes_around_a_translation(scripted, answer: str, expected: str):
    translator, _ = scripted(lambda _: answer)
    assert translator.translate(["The cat."], EN, PT) == [expected]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("O gato.", "O gato."),
        ("\n\nO gato.\n\nThis means the cat.", "O gato."),
        ("Portuguese: O gato.", "O gato."),
        ("Portuguese:\nO gato.", "O gato."),
        ("English: The cat.\nPortuguese: O gato.", "O gato."),
        ("O gato.\n\nEnglish: The dog.\nPortuguese: O cão.", "O gato."),
        ("English: The dog.", "The cat."),
        ("Sure, here is the translation:\n\nO gato.", "O gato."),
        ('"O gato."', "O gato."),
        ("«O gato.»", "O gato."),
        ("“O gato.”", "O gato."),
        ('"O" gato "preto"', '"O" gato "preto"'),
        ("Here is the translation:", "Here is the translation:"),  # one line: it may be one
        ("Portuguese:", "The cat."),
        ("", "The cat."),
    ],
)
def test_what_a_chat_model_writes_around_a_translation(scripted, answer: str, expected: str):
    translator, _ = scripted(lambda _: answer, chat=True)
    assert translator.translate(["The cat."], EN, PT) == [expected]


def test_what_the_sentence_has_itself_is_no_wrapping(scripted):
    answers = {
        '"The cat" went "home"': '"O gato"',
        '"I see," said the cat': '"Vejo o gato"',
        "English: a language of cats": "English: uma língua de gatos",
        "The cats of English: they sleep": "Os gatos de English: dormem",
        "The cats are these:": "Os gatos são estes:",
    }
    for chat in (False, True):
        translator, _ = scripted(answers.__getitem__, chat=chat)
        assert translator.translate(list(answers), EN, PT) == list(answers.values())


def test_markers_survive_and_may_move(scripted):
    answers = {
        "The answer to it is X1 now.": "X1 é agora a resposta.",
        "Put X1 before X2 here.": "Aqui, X2 depois de X1.",
    }
    translator, _ = scripted(answers.__getitem__)
    texts = ["The answer to it is {{answer}} now.", "Put {{answer}} before {{question}} here."]
    assert translator.translate(texts, EN, PT) == [
        "{{answer}} é agora a resposta.",
        "Aqui, {{question}} depois de {{answer}}.",
    ]


@pytest.mark.parametrize("answer", ["A resposta é agora.", "X1 X1", "A resposta é {{answer}} agora."])
def test_a_marker_that_the_model_loses_or_doubles_is_put_back(scripted, answer: str):
    translator, generator = scripted(lambda sentence: answer if "X1" in sentence else f"<{sentence}>")
    [translated] = translator.translate(["The answer is {{answer}} now"], EN, PT)
    assert translated == "<The answer is> {{answer}} <now>"
    assert generator.sentences[-2:] == ["The answer is", "now"]


def test_a_script_that_the_vocabulary_spells_out_has_room(scripted):
    """The examples say how many tokens a translation takes: here five and more for each token of English."""
    thai = "แมวสีดำสนิทนอนหลับอยู่บนเก้าอี้ไม้ตัวเก่าในห้องครัวตลอดทั้งวัน"
    translator, generator = scripted(lambda _: f" {thai}")
    text = "The cat sleeps on the old chair."
    assert translator.translate([text], EN, TH) == [thai]
    source, target = generator.count_tokens([text, thai])
    assert target > ROOM_FACTOR * source + ROOM_TOKENS


def test_endless_repetition_has_a_limit_and_the_row_is_dropped_for_it(scripted, tmp_path: Path):
    translator, generator = scripted(lambda sentence: " o gato preto" * 500 if "loop" in sentence else " O gato.")
    texts = ["A loop of cats that goes on and on.", "The cat."]
    looped, good = translator.translate(texts, EN, PT)
    assert good == "O gato."
    source, target, size = generator.count_tokens([PAIRS[0]["source"], PAIRS[0]["target"], texts[0]])
    room = math.ceil(max(ROOM_FACTOR, MARGIN * target / source) * size) + ROOM_TOKENS
    assert room / 2 < generator.count_tokens([looped])[0] <= room
    rows = PlainStep(
        "rows",
        lambda work: write_rows(work.dir / "in.jsonl", [{"id": text[:6], "q": text} for text in texts]),
    )
    english, portuguese = language("en"), language("pt")
    translated = Translate(rows, "in.jsonl", "q", english, portuguese, translator=translator)
    kept = Filter(translated, TRANSLATION_FILTERS, portuguese, english, FilterConfig(min_letters=1))
    published = Store(tmp_path / "cache False").realise(kept)
    assert [(row["id"], row["reason"]) for row in read_rows(published / "dropped.jsonl")] == [("A loop", "repetition")]
    assert [row["text"] for row in read_rows(published / "rows.jsonl")] == ["O gato."]
