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
from sdx.data.dictionaries import PACKAGED, check, dictionary_step, load
from sdx.data.dictionary_formats import dictionary_rows, read_cldr, read_freedict, read_muse, usable
from sdx.data.word_pairs import word_pairs
from sdx.languages import language
from sdx.offline.assets import ASSETS
from sdx.store.files import read_rows, write_rows
from sdx.store.step import PlainStep, Step, Workspace
from sdx.store.store import Store

EN, FR, PT, HI, TH, BG, DE, SL = map(language, ("en", "fr", "pt", "hi", "th", "bg", "de", "sl"))
BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def dictd(folder: Path, name: str, entries: Sequence[str]) -> Path:
    """A dictionary in dictd's format; the headword of an entry is what stands before a slash or a tag."""

    def base64(number: int) -> str:
        digits = BASE64[number % 64]
        return base64(number // 64) + digits if number >= 64 else digits

    text, index = b"", []
    for entry in ["00databaseinfo\nAbout the dictionary: n, o, t, words.", *entries]:
        head = entry.partition("\n")[0].partition(" /")[0].partition(" <")[0]
        content = f"{entry}\n".encode()
        index.append(f"{head}\t{base64(len(text))}\t{base64(len(content))}")
        text += content
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.index").write_text("\n".join(sorted(index)) + "\n", encoding="utf-8")
    (folder / f"{name}.dict.dz").write_bytes(gzip.compress(text))
    return folder


def translations(rows: Sequence[dict]) -> dict[str, list[str]]:
    return {row["id"]: row["translations"] for row in rows}


def freedict(folder: Path, target) -> dict[str, list[str]]:
    return translations(dictionary_rows(read_freedict(folder, target), "freedict"))


def test_freedict_entries_are_parsed(tmp_path: Path) -> None:
    entries = [
        "dog /dɔg/ <n>\ncão",
        'collapse /kəlæps/ <vi>\n1. cair em ruínas, desabar\n2. ruir <fig> [Br.]\n      "The house, the wall fell."',
        "water //ˈwɔːtə// //ˈwɒtə// /[woːʔɐ]/ <n>\n1. água 2.\nclear liquid\n 3.\nurine\n2. urina\nfigurative",
        "ice cream /ais/\nsorvete, gelado {m}",
        "can /kæn/ <n>\nlata",
        "constructor /k/\naquele que constrói, construtor",
        "arrangement /a/ <N>\n1. (mus.) arranjo~musical",
        "US /ju/\nEUA (país)",
        "taxi <n>\ntaxi",
        "see also\n   Synonym: {nothing}",
    ]
    found = freedict(dictd(tmp_path, "freedict-eng-por", entries), PT)
    assert found == {
        "dog": ["cão"],
        "collapse": ["desabar", "ruir"],
        "water": ["água", "urina"],
        "ice cream": ["sorvete", "gelado"],
        "constructor": ["construtor"],
        "arrangement": ["arranjo musical"],
    }


def test_the_other_direction_shorter_words_and_more_senses_decide_what_comes_first(tmp_path: Path) -> None:
    entries = [
        "water /w/\naquático, água",
        "house /h/\nedifício, lar",
        "word /w/\n1. boato\n2. termo, palavra\n3. palavra",
    ]
    alone = freedict(dictd(tmp_path / "one", "freedict-eng-por", entries), PT)
    assert alone["water"][0] == "aquático"
    assert alone["word"][0] == "palavra"
    both = dictd(tmp_path / "two", "freedict-eng-por", entries)
    dictd(both, "freedict-por-eng", ["água /a/\nwater", "aquático /a/\naquatic", "lar\nhome", "casa <n>\nthe house"])
    found = freedict(both, PT)
    assert found["water"] == ["água", "aquático"]
    assert found["house"][0] == "casa"
    assert found["aquatic"] == ["aquático"]


def test_a_dictionary_from_t_to_english_is_turned_round(tmp_path: Path) -> None:
    folder = dictd(tmp_path, "freedict-slv-eng", ["bičati /b/ <v>\nto whip, to flog", "bik <n, m, sg>\nbull"])
    assert freedict(folder, SL) == {"whip": ["bičati"], "flog": ["bičati"], "bull": ["bik"]}


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
def test_only_words_that_can_stand_in_for_each_other_are_usable(word, translation, target, kept) -> None:
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


def test_word_pairs_are_labels_first_and_then_words_that_go_together() -> None:
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
            dictd(work.dir, "freedict-eng-por", ["dog /d/\ncão"])

        return PlainStep("asset", run, {"name": name})

    monkeypatch.setattr(dictionaries, "asset_step", asset)
    store = Store(tmp_path)
    for name, translation in (("freedict", "cão"), ("cldr", "cachorro")):
        config = DictionaryConfig(name=name, asset=name)
        check(config, EN, [PT], has_parallel=False)
        assert load(store.realise(dictionary_step(config, None, EN, PT)) / "rows.jsonl") == {"dog": [translation]}
    assert fetched == ["freedict_pt", "cldr"]


def test_without_a_dictionary_there_is_no_step() -> None:
    none = DictionaryConfig(name="none")
    check(none, FR, [PT], has_parallel=False)
    assert dictionary_step(none, None, EN, PT) is None


def test_packaged_languages_are_ours_and_have_their_assets() -> None:
    for name, codes in PACKAGED.items():
        assert len(set(codes)) == len(codes)
        assert all(language(code).code == code for code in codes)
        assert all(f"freedict_{code}" in ASSETS for code in codes if name == "freedict")
    assert {"pt", "hi", "sw"} <= set(PACKAGED["freedict"])
    assert {"cs", "da", "uk", "hu", "ko", "vi", "pl", "th", "km"} <= set(PACKAGED["cldr"])


@pytest.mark.parametrize(
    ("options", "source", "targets", "message"),
    [
        (
            {"asset": "cldr", "from_parallel": True},
            EN,
            [PT],
            "asset=cldr and dictionary.from_parallel=True exclude each",
        ),
        ({"asset": "wiktionary"}, EN, [PT], "dictionary.asset=wiktionary is not packaged: there are freedict and cldr"),
        ({"asset": "freedict"}, EN, [PT, TH], r"lacks Thai \(th\): it has ar bg .*; choose another dictionary"),
        ({"asset": "cldr"}, FR, [PT], r"from English only, not from French \(lang.source=fr\); choose"),
        ({"from_parallel": True}, EN, [PT], "no parallel corpus to take words from; add parallel=offline"),
        ({"path": "none-{target}.txt"}, EN, [PT], "dictionary.path=none-pt.txt: there is no such file; give"),
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


@pytest.mark.parametrize("name", ["none", "parallel", "freedict", "cldr", "muse"])
def test_conf_names_at_most_one_source(name: str) -> None:
    config = OmegaConf.load(Path(__file__).parents[2] / "conf" / "dictionary" / f"{name}.yaml")
    given = set(config) & {"asset", "path", "from_parallel"}
    assert config.name == name
    assert len(given) == (name != "none")
    assert config.get("asset", "cldr") in PACKAGED
