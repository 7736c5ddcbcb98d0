"""Dictionaries: their formats on disk, what is refused, and the step that publishes them."""

import gzip
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sdx import InputError
from sdx.config import DictionaryConfig
from sdx.data import dictionaries
from sdx.data.dictionaries import CLDR, check, dictionary_step, load
from sdx.data.dictionary_formats import dictionary_rows, read_cldr, read_muse, usable
from sdx.data.word_pairs import word_pairs
from sdx.languages import language
from sdx.store.files import read_rows, write_rows
from sdx.store.step import Step, Workspace
from sdx.store.store import Store
from tests.kit.plain_step import PlainStep

EN, FR, PT, HI, TH, BG, DE, ACE = map(language, ("en", "fr", "pt", "hi", "th", "bg", "de", "ace_Arab"))


def translations(rows: Sequence[dict]) -> dict[str, list[str]]:
    return {row["id"]: row["translations"] for row in rows}


@pytest.mark.parametrize(
    ("word", "translation", "target", "kept"),
    [
        ("Dog", " cão ", PT, ("dog", "cão")),
        ("dog", "Dog", PT, None),
        ("x", "xis", PT, None),
        ("dog", "cão (animal)", PT, None),
        ("dog", "cão 2", PT, None),
        ("dog", "cão de guarda", PT, None),
        ("guard dog", "cão de guarda", PT, ("guard dog", "cão de guarda")),
        ("don’t", "não", PT, ("don't", "não")),
        ("DVD", "DVD प्लेयर", HI, None),
        ("dog", "कुत्ता", HI, ("dog", "कुत्ता")),
        ("dog", "สุนัข", TH, ("dog", "สุนัข")),
        ("its", "не\u0301гов", BG, ("its", "негов")),
        ("cafe\u0301", "cafe\u0301s", PT, ("café", "cafés")),
        ("", "vazio", PT, None),
        ("empty", "", PT, None),
    ],
)
def test_only_words_that_can_replace_each_other_are_usable(word, translation, target, kept) -> None:
    assert list(usable([(word, translation)], target)) == ([kept] if kept else [])


def cldr(folder: Path, **locales: dict[str, str]) -> Path:
    for locale, names in locales.items():
        path = folder / "package" / "annotations" / locale.replace("_", "-") / "annotations.json"
        path.parent.mkdir(parents=True)
        content = {emoji: {"default": ["x"], "tts": [name]} for emoji, name in names.items()} | {
            "🆒": {"default": ["x"]}
        }
        path.write_text(json.dumps({"annotations": {"annotations": content}}), encoding="utf-8")
    return folder


def test_cldr_names_are_joined_by_emoji(tmp_path: Path) -> None:
    folder = cldr(
        tmp_path,
        en={"🐶": "dog", "🍎": "red apple", "👁": "eye", "🚽": "man in steamy room", "♭": "flat", "🐱": "cat"},
        th={"🐶": "สุนัข", "🍎": "แอปเปิลแดง", "👁": "ตา", "🚽": "อาบน้ำ", "♭": "แฟลต", "🐱": "cat"},
        zh_Hant={"🐶": "狗"},
    )
    assert dict(read_cldr(folder, TH)) == {"dog": "สุนัข", "red apple": "แอปเปิลแดง", "eye": "ตา"}
    assert dict(read_cldr(folder, language("zho_Hant"))) == {"dog": "狗"}


def muse(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["en-pt.txt", "en-pt.txt.gz"])
def test_muse_lines(tmp_path: Path, name: str) -> None:
    path = muse(tmp_path / name, "\ufeffdog cão\nDog cachorro\r\n\nice cream\tsorvete\ndog\tcão\n")
    rows = dictionary_rows(read_muse(path, "here"), "muse")
    assert translations(rows) == {"dog": ["cão", "cachorro"], "ice cream": ["sorvete"]}
    assert rows[0]["origin"] == "muse"


@pytest.mark.parametrize("line", ["dog", "dog cão animal", "dog\t", "\tcão", "a\tb\tc"])
def test_a_malformed_muse_line_is_named(tmp_path: Path, line: str) -> None:
    path = muse(tmp_path / "d.txt", f"cat gato\n{line}\n")
    with pytest.raises(InputError, match=r"dictionary\.path=.*d\.txt, line 2 is .* not a word and its translation"):
        check(DictionaryConfig(name="muse", path=str(path)), EN, [PT], has_parallel=False)


ROWS = [
    {"source": source, "target": target}
    for source, target in [
        *(
            ("Search:", "Pesquisar:"),
            ("Search", "Pesquisar"),
            ("Search", "Buscar"),
            ("Sun", "Dom"),
            ("Brazil", "Brasil"),
        ),
        *(("House", "Casa"), ("Copy the whole thing here now", "Copie aqui"), ("The old house", "A velha Casa")),
        *((f"Give the blue teapot to {name} soon", f"Dê logo o bule azul a {name}") for name in ("Ann", "Bo")),
        *((f"My teapot, {name}!", f"Meu bule, {name}!") for name in ("Cy", "Di", "Ed", "Flo")),
        *((f"Zip upon zap {name}", f"Zás e trás {name}") for name in ("Gus", "Hal", "Ida")),
    ]
]


def test_word_pairs_are_labels_first_and_then_words_that_occur_together() -> None:
    found = translations(dictionary_rows(word_pairs(ROWS, EN, PT), "parallel"))
    assert found["search"] == ["pesquisar", "buscar"]
    assert found["brazil"] == ["brasil"]  # the word in the text brings the capital back
    assert found["house"] == ["Casa"]  # as the running text has it
    assert found["teapot"] == ["bule"]
    assert "sun" not in found
    assert not {"zip", "upon", "zap"} & set(found), "a set phrase does not tell which word is which"
    assert list(word_pairs(ROWS, EN, PT)) == list(word_pairs(ROWS[::-1], EN, PT))


def test_without_spaces_only_labels_are_pairs_and_german_labels_keep_capitals() -> None:
    rows = [{"source": f"My cat {name}.", "target": f"แมวของฉัน{name}"} for name in ("A", "B", "C", "D")]
    assert list(word_pairs([*rows, {"source": "Home", "target": "หน้าแรก"}], EN, TH)) == [("home", "หน้าแรก")]
    assert list(word_pairs([{"source": "Table", "target": "Tabelle"}], EN, DE)) == [("table", "Tabelle")]


def test_turkish_capitals() -> None:
    rows = [{"source": "Light", "target": "Işık"}, {"source": "Contact", "target": "İletişim"}]
    assert list(word_pairs(rows, EN, language("tr"))) == [("light", "ışık"), ("contact", "iletişim")]
    texts = [{"source": f"{n} light", "target": f"{n} {word}"} for n, word in enumerate(("Işık", "ışık", "IŞIK", "x"))]
    assert ("light", "ışık") in list(word_pairs([*texts, *rows], EN, language("tr")))


def parallel_of(rows: Sequence[dict]) -> Step:
    return PlainStep("parallel", partial(_write, rows=rows), {"rows": list(rows)})


def _write(work: Workspace, rows: Sequence[dict]) -> None:
    write_rows(work.dir / "rows.jsonl", rows)


def test_steps_publish_rows_that_load(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    muse(tmp_path / "en-pt.txt", "dog cão\nDog cachorro\n")
    mine = DictionaryConfig(name="muse", path=str(tmp_path / "{source}-{target}.txt"))
    check(mine, EN, [PT], has_parallel=False)
    step = dictionary_step(mine, None, EN, PT)
    path = store.realise(step) / "rows.jsonl"
    assert read_rows(path) == [{"id": "dog", "translations": ["cão", "cachorro"], "origin": "muse"}]
    assert load(path) == {"dog": ["cão", "cachorro"]}
    muse(tmp_path / "en-pt.txt", "dog cão\n")
    assert dictionary_step(mine, None, EN, PT).key != step.key

    pairs = DictionaryConfig(name="parallel", from_parallel=True)
    check(pairs, EN, [PT], has_parallel=True)
    found = load(store.realise(dictionary_step(pairs, parallel_of(ROWS), EN, PT)) / "rows.jsonl")
    assert found["search"] == ["pesquisar", "buscar"]
    with pytest.raises(InputError, match="dictionary=parallel has no word to use"):
        store.realise(dictionary_step(pairs, parallel_of([]), EN, PT))


def test_packaged_steps_read_their_assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []

    def asset(name: str) -> Step:
        def run(work: Workspace) -> None:
            fetched.append(name)
            cldr(work.dir, en={"🐶": "dog"}, pt={"🐶": "cachorro"})

        return PlainStep("asset", run, {"name": name})

    monkeypatch.setattr(dictionaries, "AssetStep", asset)
    store = Store(tmp_path)
    config = DictionaryConfig(name="cldr", asset="cldr")
    check(config, EN, [PT], has_parallel=False)
    assert load(store.realise(dictionary_step(config, None, EN, PT)) / "rows.jsonl") == {"dog": ["cachorro"]}
    assert fetched == ["cldr"]


def test_without_a_dictionary_there_is_no_step() -> None:
    none = DictionaryConfig(name="none")
    check(none, FR, [PT], has_parallel=False)
    assert dictionary_step(none, None, EN, PT) is None


def test_packaged_languages_are_ours_and_have_their_assets() -> None:
    codes = CLDR.split()
    assert len(set(codes)) == len(codes)
    assert all(language(code).code == code for code in codes)
    assert {"cs", "da", "uk", "hu", "ko", "vi", "pl", "th", "km"} <= set(codes)


@pytest.mark.parametrize(
    ("options", "source", "targets", "message"),
    [
        (
            {"asset": "cldr", "from_parallel": True},
            EN,
            [PT],
            "at most one of .*asset=cldr and dictionary.from_parallel=True; drop one",
        ),
        ({"asset": "wiktionary"}, EN, [PT], "dictionary.asset=wiktionary is not packaged: there is cldr"),
        ({"asset": "cldr"}, EN, [PT, ACE], r"lacks .*: it has af ak .*; choose another dictionary"),
        ({"asset": "cldr"}, FR, [PT], r"from English only, not from French \(source=fr\); choose"),
        ({"from_parallel": True}, EN, [PT], "no parallel corpus to take words from; add parallel=offline"),
        ({"path": "none-{target}.txt"}, EN, [PT], r"dictionary\.path=.*/none-pt\.txt: there is no such file; give"),
    ],
)
def test_dictionaries_that_cannot_work_are_refused(options, source, targets, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        check(DictionaryConfig(name="x", **options), source, targets, has_parallel=False)
    assert "\n" not in str(error.value)


def test_an_empty_or_changed_file_is_refused(tmp_path: Path) -> None:
    path = muse(tmp_path / "d.txt", "\n \n")
    config = DictionaryConfig(name="muse", path=str(path))
    with pytest.raises(InputError, match="has no entries"):
        check(config, EN, [PT], has_parallel=False)
    muse(path, "dog cão\n")
    step = dictionary_step(config, None, EN, PT)
    muse(path, "dog cachorro\n")
    with pytest.raises(InputError, match="has changed since this run began"):
        Store(tmp_path / "cache").realise(step)


@pytest.mark.parametrize("name", ["none", "parallel", "cldr", "muse"])
def test_conf_names_at_most_one_source(name: str) -> None:
    config = OmegaConf.load(Path(__file__).parents[2] / "conf" / "dictionary" / f"{name}.yaml")
    given = set(config) & {"asset", "path", "from_parallel"}
    assert config.name == name
    assert len(given) == (name != "none")
    assert config.get("asset", "cldr") == "cldr"
