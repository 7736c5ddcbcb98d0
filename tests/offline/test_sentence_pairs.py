"""Packaged pairs: compiled gettext, named texts and the declaration, joined over languages and cleaned."""

import json
import struct
from pathlib import Path

import pytest

from sdx.languages import language
from sdx.offline.sentence_pairs import languages, pairs

EN, FR, TH, PT = map(language, ("en", "fr", "th", "pt"))


def compile_catalogue(path: Path, entries: dict[str, str], order: str = "<") -> None:
    """A gettext .mo file."""
    strings = [text.encode() for text in (*sorted(entries), *(entries[key] for key in sorted(entries)))]
    count, begin = len(entries), 28
    table, blob = b"", b""
    for text in strings:
        table += struct.pack(f"{order}2I", len(text), begin + 16 * count + len(blob))
        blob += text + b"\0"
    header = struct.pack(f"{order}7I", 0x950412DE, 0, count, begin, begin + 8 * count, 0, begin + 16 * count)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + table + blob)


def name_texts(root: Path, locale: str, texts: dict[str, str]) -> None:
    path = root / f"kolibri/locale/{locale}/LC_MESSAGES/app-messages.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(texts))


@pytest.fixture
def interface(tmp_path: Path) -> Path:
    def catalogue(locale: str, entries: dict[str, str], order: str = "<") -> None:
        path = tmp_path / f"django/conf/locale/{locale}/LC_MESSAGES/django.mo"
        compile_catalogue(path, {"": "Content-Type: text/plain; charset=UTF-8\n", **entries}, order)

    thai = {
        "Save": "บันทึก",
        "Log  in\nhere": "เข้า\nสู่ระบบ",
        "%(n)s items": "%(n)s รายการ",
        "Hi {name}": "สวัสดี {name}",
        "<b>Bold</b>": "<b>หนา</b>",
        "See https://example.org": "ดู https://example.org",
        "&File": "ไ&ฟล์",
        "one\0many": "หนึ่ง\0หลาย",
        "alt. month\x04May": "พ.ค.",
        "YEAR_FORMAT": "รูปแบบ_ปี",
        "Wiki": "Wiki page",
        "4 / 5": "๔ / ๕",
        "Missing": "",
    }
    catalogue("th", thai, ">")
    catalogue("fr", {"Save": "Enregistrer", "Only French": "Seulement"})
    catalogue("pt_BR", {"Save": "Salvar"})
    catalogue("pt", {"Save": "Guardar", "Open": "Abrir"})
    name_texts(tmp_path, "en", {"App.go": "Go on", "App.go2": "Go on", "App.stop": "Stop it"})
    name_texts(tmp_path, "th", {"App.go": "ไปต่อ", "App.stop": "หยุด", "App.gone": "หายไป"})
    name_texts(tmp_path, "fr_FR", {"App.go": "Continuer", "App.go2": "Poursuivre"})
    return tmp_path


def test_only_plain_texts_in_the_language_are_taken(interface: Path):
    assert dict(pairs("interface", interface, EN, TH)) == {
        "Save": "บันทึก",
        "Log in here": "เข้า สู่ระบบ",
        "Go on": "ไปต่อ",
        "Stop it": "หยุด",
    }
    assert dict(pairs("interface", interface, TH, EN))["บันทึก"] == "Save"


def test_two_languages_meet_at_the_english_of_one_program(interface: Path):
    assert list(pairs("interface", interface, FR, TH)) == [("Enregistrer", "บันทึก"), ("Continuer", "ไปต่อ")]


def test_a_program_is_read_in_one_variety(interface: Path):
    assert dict(pairs("interface", interface, EN, PT)) == {"Save": "Salvar"}


def test_the_declaration_is_joined_where_it_is_divided_alike(tmp_path: Path):
    def declare(file: str, whereas: str, *articles: list[str]) -> None:
        preamble = "".join(f"<p>{whereas} {n}</p>" for n in range(9))
        parts = [
            f'<article data-number="{n}"><h2>Article</h2>'
            + "".join(f"<ol><li><p>{text}</p></li></ol>" for text in texts)
            + "</article>"
            for n, texts in enumerate(articles, 1)
        ]
        path = tmp_path / f"package/declaration/{file}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"<html><title>T</title><h1>Title</h1><header><h2>P</h2>{preamble}</header>{''.join(parts)}</html>"
        )

    declare("eng", "Whereas", ["Free &amp; equal"], ["a rule", "a right"], ["alone"])
    declare("por_BR", "Considerando", ["Livres e\n iguais"], ["regra e direito"], ["isolado [sic]"])
    found = list(pairs("udhr", tmp_path, EN, PT))
    assert found[:7] == [(f"Whereas {n}", f"Considerando {n}") for n in range(7)]
    assert found[7:] == [("Free & equal", "Livres e iguais")]


def test_the_table_names_known_languages_and_no_other_asset():
    for asset, least in (("interface", 88), ("udhr", 150)):
        codes = languages(asset)
        assert len(codes) >= least
        assert {language(code).flores for code in codes} == codes
        assert {"eng_Latn", "tha_Thai", "hin_Deva", "por_Latn", "swh_Latn", "khm_Khmr"} <= codes
    assert languages("smollm2_135m") == frozenset()
    assert languages("flores") == frozenset()
