"""Apertium with the installed data of English and Spanish; the rest without the command."""

import random
from pathlib import Path

import pytest
import sacrebleu

from sdx import InputError
from sdx.store.files import read_json
from sdx.store.store import Store
from sdx.translation.apertium import Apertium, _cased, _mode, _translate

EN, ES, PT = "eng_Latn", "spa_Latn", "por_Latn"
installed = pytest.mark.skipif(
    not Apertium().supports(EN, ES), reason="needs Apertium with English and Spanish: apt-get install apertium-eng-spa"
)
# Written for this test.
ENGLISH = [
    "The cat is sleeping on the table.",
    "The government announced new measures to protect the forest.",
    "Water boils at a temperature of 100 degrees.",
    "There are many books in the library of the university.",
]
SPANISH = [
    "El gato está durmiendo en la mesa.",
    "El gobierno anunció nuevas medidas para proteger el bosque.",
    "El agua hierve a una temperatura de 100 grados.",
    "Hay muchos libros en la biblioteca de la universidad.",
]


@pytest.fixture
def mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command that says what it got, and a direction of its own, `en-es`, with one file of data."""
    command = tmp_path / "bin" / "apertium"
    command.parent.mkdir()
    command.write_text('#!/bin/sh\necho "$@" >&2\nexit 3\n')
    command.chmod(0o755)
    modes = tmp_path / "share" / "apertium" / "modes"
    modes.mkdir(parents=True)
    rules = tmp_path / "rules.bin"
    rules.write_text("a")
    (modes / "en-es.mode").write_text(f"lt-proc '{rules}' | lt-proc $1 'missing.bin'")
    monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")
    monkeypatch.delenv("APERTIUM_DATADIR", raising=False)
    return modes / "en-es.mode"


@installed
@pytest.mark.parametrize(("pair", "source", "reference"), [((EN, ES), ENGLISH, SPANISH), ((ES, EN), SPANISH, ENGLISH)])
def test_quality(pair: tuple[str, str], source: list[str], reference: list[str]):
    output = Apertium().translate(source, *pair)
    score = sacrebleu.corpus_chrf(output, [reference]).score
    copied = sacrebleu.corpus_chrf(source, [reference]).score
    assert copied < 30
    assert score > 60


@installed
def test_order_and_layout():
    text = "# The house\n\n- The **red** car.\n- A book: see `print(x)` and 3.5 kg.\n\n\n> A zorgblat, unhappily.\n"
    texts = [text, *ENGLISH, "", "100%"]
    output = Apertium().translate(texts, EN, ES)
    assert output[1:] == [*Apertium().translate(ENGLISH, EN, ES), "", "100%"]
    for kept in ("# La casa\n\n- ", "`print(x)`", "3.5 kg", "\n\n\n> ", "zorgblat"):
        assert kept in output[0]
    assert "*zorgblat" not in output[0]
    assert output[0].count("\n") == text.count("\n")


@installed
def test_every_sentence_comes_back():
    """What means something in Apertium's stream, odd spaces and broken characters keep their segment."""
    mode = _mode(EN, ES)
    assert mode
    pieces = [
        *"[]{}^$/\\@<>*+~#:;.!?",
        "\t",
        "\n",
        "\u200b",
        "\xad",
        "\u2028",
        "\ufeff",
        "\uffff",
        "\0",
        "é",
        "ภา",
        "😀",
    ]
    random_ = random.Random(0)
    sentences = ["".join(random_.choices([*pieces, "the dog ", " "], k=12)) for _ in range(400)]
    assert len(_translate([*sentences, "The house."], mode)) == 401
    assert _translate(["a \uffff b", "\0", "", "The house."], mode)[-1] == "La casa."


@installed
def test_key():
    step = Apertium().needs(EN, ES)["translator"]
    assert step.key == Apertium().needs(EN, ES)["translator"].key
    assert step.key != Apertium().needs(ES, EN)["translator"].key
    assert Apertium().version.startswith("Apertium ")


@pytest.mark.parametrize(
    ("output", "sentence", "cased"),
    [("Y", "and", "y"), ("Casa", "house", "casa"), ("Casa", "House", "Casa"), ("ONU", "un", "ONU"), ("", "a", "")],
)
def test_a_small_letter_stays_small(output: str, sentence: str, cased: str):
    assert _cased(output, sentence) == cased


def test_without_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not Apertium().supports(EN, ES)
    with pytest.raises(InputError, match=r"translator=apertium needs a command .*apt-get install apertium-eng-spa"):
        Apertium().translate(["One."], EN, ES)
    with pytest.raises(InputError, match="needs a command that is not installed"):
        _ = Apertium().version


def test_modes_are_found_by_either_code(mode: Path):
    assert Apertium().supports(EN, ES)
    assert not Apertium().supports(ES, EN)
    with pytest.raises(InputError, match=r"has no data for English \(eng\) to Portuguese \(por\), only en-es; install"):
        Apertium().needs(EN, PT)


def test_the_key_follows_rules_and_dictionaries(mode: Path, tmp_path: Path):
    step = Apertium().needs(EN, ES)["translator"]
    out = Store(tmp_path / "cache").realise(step)
    assert read_json(out / "source.json") == step.config
    (tmp_path / "rules.bin").write_text("b")
    assert Apertium().needs(EN, ES)["translator"].key != step.key


def test_a_failing_engine_is_one_line(mode: Path):
    with pytest.raises(InputError) as error:
        Apertium().translate(["One."], EN, ES)
    assert f"apertium -d {mode.parent.parent} -u en-es failed" in str(error.value)
    assert "\n" not in str(error.value)
