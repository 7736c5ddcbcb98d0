"""The table against what it must agree with: NLLB, Belebele, the benchmarks' own codes."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from sdx.languages import Language, codes, language, languages, sets, targets

ROMANISED = {"ben_Latn", "hin_Latn", "npi_Latn", "sin_Latn", "urd_Latn"}
"""Belebele's variants that FLORES-200 does not have."""
BENCHMARKS = {
    "xnli": "ar bg de el en es fr hi ru sw th tr ur vi zh",
    "mkqa": ("ar da de en es fi fr he hu it ja km ko ms nl no pl pt ru sv th tr vi zh_cn zh_hk zh_tw"),
    "mgsm": "bn de en es fr ja ru sw te th zh",
    "xquad": "ar de el en es hi ro ru th tr vi zh",
    "mmlu": "de en es fr hi it pt th",
    "nusax": "ace ban bjn bug eng ind jav min sun",
    "americas_nli": "aym gn quy",
    "kardes_nlu": "az kk ky ug uz",
    "xlsum": (
        "amharic arabic azerbaijani bengali burmese chinese_simplified chinese_traditional english "
        "french gujarati hausa hindi igbo indonesian japanese kirundi korean kyrgyz marathi nepali "
        "oromo pashto persian portuguese punjabi russian scottish_gaelic serbian_cyrillic sinhala "
        "somali spanish swahili tamil telugu thai tigrinya turkish ukrainian urdu uzbek vietnamese "
        "welsh yoruba"
    ),
}
STANDARD = {
    "ar": "arb_Arab",
    "ay": "ayr_Latn",
    "az": "azj_Latn",
    "et": "est_Latn",
    "fa": "pes_Arab",
    "ff": "fuv_Latn",
    "gn": "grn_Latn",
    "he": "heb_Hebr",
    "id": "ind_Latn",
    "jv": "jav_Latn",
    "ku": "kmr_Latn",
    "lv": "lvs_Latn",
    "mg": "plt_Latn",
    "mn": "khk_Cyrl",
    "ms": "zsm_Latn",
    "nb": "nob_Latn",
    "ne": "npi_Deva",
    "nn": "nno_Latn",
    "no": "nob_Latn",
    "om": "gaz_Latn",
    "or": "ory_Orya",
    "ps": "pbt_Arab",
    "pt": "por_Latn",
    "qu": "quy_Latn",
    "sq": "als_Latn",
    "sw": "swh_Latn",
    "uz": "uzn_Latn",
    "yi": "ydd_Hebr",
    "zh": "zho_Hans",
    "zh-hant": "zho_Hant",
}


def test_rows_are_flores_200_and_belebeles_romanised_variants():
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

    rows = [entry.flores for entry in languages()]
    # FLORES-200 is NLLB-200's 202 codes and two more.
    flores_200 = {*FAIRSEQ_LANGUAGE_CODES, "arb_Latn", "min_Arab"}
    assert len(flores_200) == 204
    assert set(rows) == flores_200 | ROMANISED
    assert rows == sorted(set(rows))
    nllb = [entry.nllb for entry in languages() if entry.nllb]
    assert sorted(nllb) == sorted(FAIRSEQ_LANGUAGE_CODES)
    assert all(entry.nllb in ("", entry.flores) for entry in languages())


def test_every_spelling_names_one_row():
    spellings = [
        spelling for entry in languages() for spelling in (entry.flores, entry.iso639_1, *entry.aliases) if spelling
    ] + sorted({entry.iso639_3 for entry in languages()})
    assert len(spellings) == len({spelling.lower() for spelling in spellings})


def test_columns_hold_well_formed_values():
    for entry in languages():
        texts = vars(entry).keys() - {"spaces", "aliases"}
        assert all(isinstance(getattr(entry, text), str) for text in texts), entry
        assert re.fullmatch(r"[a-z]{3}_[A-Z][a-z]{3}", entry.flores), entry
        assert entry.flores.startswith(f"{entry.iso639_3}_"), entry
        assert re.fullmatch(r"([a-z]{2})?", entry.iso639_1), entry
        assert re.fullmatch(r"[A-Z][a-z]{3}", entry.script), entry
        assert entry.direction in ("ltr", "rtl"), entry
        assert entry.name.strip() == entry.name != "", entry
        assert entry.native_name.strip() == entry.native_name != "", entry
    assert language("no").iso639_1 == language("no").mkqa == "no"


def test_native_names_are_written_in_their_script():
    blocks = {"Arab": "\u0600-\u06ff", "Hebr": "\u0590-\u05ff", "Cyrl": "\u0400-\u04ff"}
    blocks |= {"Deva": "\u0900-\u097f", "Olck": "\u1c50-\u1c7f", "Tfng": "\u2d30-\u2d7f"}
    for entry in languages():
        latin = re.search(r"[A-Za-z]", entry.native_name)
        assert bool(latin) == (entry.script == "Latn"), entry
        if entry.script in blocks:
            assert re.fullmatch(f"[{blocks[entry.script]} ]+", entry.native_name), entry


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_each_benchmark_code_belongs_to_one_language(benchmark: str):
    held = [getattr(entry, benchmark) for entry in languages() if getattr(entry, benchmark)]
    assert sorted(held) == BENCHMARKS[benchmark].split()


@pytest.mark.parametrize("benchmark", ["xnli", "mgsm", "xquad", "mmlu"])
def test_benchmark_codes_belong_to_the_language_they_mean(benchmark: str):
    for entry in languages():
        assert getattr(entry, benchmark) in ("", entry.iso639_1), entry


def test_benchmark_codes_that_are_not_iso():
    assert language("zh").mkqa == "zh_cn"
    assert language("zho_Hant").mkqa == "zh_tw"
    assert language("yue").mkqa == "zh_hk"
    assert language("rn").xlsum == "kirundi"
    assert language("om").xlsum == "oromo"
    assert language("sr").xlsum == "serbian_cyrillic"
    for entry in languages():
        if entry.mkqa and not entry.mkqa.startswith("zh_"):
            assert entry.mkqa == entry.iso639_1
        # "scottish_gaelic" is "Scottish Gaelic", "chinese_simplified" "Chinese (Simplified)".
        if entry.xlsum not in ("", "kirundi", "punjabi", "serbian_cyrillic"):
            assert entry.xlsum.replace("_", " ") in re.sub("[()]", "", entry.name.lower())


def test_codes_of_nusax_americas_nli_and_kardes_nlu():
    assert language("ay").americas_nli == "aym"
    assert language("qu").americas_nli == "quy"
    for entry in languages():
        assert entry.nusax in ("", entry.iso639_3), entry
        assert not entry.nusax or entry.script == "Latn", entry
        assert entry.kardes_nlu in ("", entry.iso639_1), entry
        assert entry.americas_nli in ("", entry.iso639_1, entry.iso639_3, "aym"), entry


def test_every_belebele_variant_has_a_row():
    tasks = Path(find_spec("lm_eval").submodule_search_locations[0]) / "tasks" / "belebele"
    variants = {path.stem.removeprefix("belebele_") for path in tasks.glob("belebele_*.yaml")}
    assert len(variants) == 122
    assert {entry.belebele for entry in languages() if entry.belebele} == variants
    assert all(entry.belebele in ("", entry.flores) for entry in languages())


def test_direction_and_spaces():
    rtl_scripts = {entry.script for entry in languages() if entry.direction == "rtl"}
    assert rtl_scripts == {"Arab", "Hebr"}
    assert not [entry for entry in languages() if entry.script in rtl_scripts and entry.direction == "ltr"]
    assert " ".join(entry.flores for entry in languages() if not entry.spaces) == (
        "bod_Tibt dzo_Tibt jpn_Jpan khm_Khmr lao_Laoo mya_Mymr shn_Mymr tha_Thai yue_Hant zho_Hans zho_Hant"
    )
    assert language("ko").spaces
    assert language("vi").spaces


def test_santali_is_in_ol_chiki_whatever_its_code_says():
    assert language("sat_Beng").script == "Olck"
    assert language("sat_Olck") is language("sat_Beng")


@pytest.mark.parametrize(("code", "flores"), STANDARD.items())
def test_iso_639_1_means_the_standard_variety(code: str, flores: str):
    assert language(code).flores == flores


@pytest.mark.parametrize("spelling", ["th", "TH", "tha", "Tha", "tha_Thai", "THA_thai"])
def test_any_case_of_any_code_is_accepted(spelling: str):
    assert language(spelling).name == "Thai"


def test_code_is_the_shortest_spelling_and_leads_back():
    assert all(language(entry.code) is entry for entry in languages())
    spelled = {code: language(code).code for code in ("tha", "ckb", "ace_Latn", "zho", "zho_Hant")}
    assert spelled == {
        "tha": "th",
        "ckb": "ckb",
        "ace_Latn": "ace_Latn",
        "zho": "zh",
        "zho_Hant": "zho_Hant",
    }


def test_codes_have_every_unambiguous_spelling():
    table = codes()
    assert all(isinstance(code, str) and isinstance(table[code], Language) for code in table)
    assert all(language(code) is entry for code, entry in table.items())
    every = {spelling for entry in languages() for spelling in (entry.flores, entry.iso639_3)}
    assert every - table.keys() == {"ace", "bjn", "min", "taq"}
    assert {"no", "nb", "zh-hant"} <= table.keys()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("ace", 'language "ace" has several scripts: write ace_Arab or ace_Latn'),
        ("persian", 'language "persian" is not in the table; did you mean fa (Western Persian)?'),
        ("swahilli", 'language "swahilli" is not in the table; did you mean sw (Swahili)?'),
        ("arabic", "did you mean ar (Modern Standard Arabic) or "),
        ("xx", "write an ISO 639-1, ISO 639-3 or FLORES-200 code"),
        ("", 'language "" is not in the table'),
        (False, 'write "no" in quotes'),
    ],
)
def test_errors_name_the_code_and_the_fix(code: str, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        language(code)


@pytest.mark.parametrize("name", sets())
def test_sets_are_lists_of_languages(name: str):
    members = sets()[name]
    assert all(codes()[member].code == member for member in members)
    assert len({language(member).flores for member in members}) == len(members)
    assert list(targets(name)) == members


def test_sets_of_the_papers():
    assert sets()["stt4"] == ["de", "ru", "th", "zh"]
    assert " ".join(sets()["sdrrl14"]) == "cs da uk bg fi hu no id ja ko pt sl vi pl th km"
    assert (len(sets()["belebele115"]), len(sets()["xnli14"])) == (115, 14)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("zh-TW", ["zho_Hant"]),
        (["TH", "pt-BR", "Thai", "sw"], ["th", "pt", "sw"]),
        (["iw", "stt4", "tha"], ["he", "de", "ru", "th", "zh", "tha"]),
        ("haitian creole", ["ht"]),
    ],
)
def test_targets_have_the_spelling_of_the_table(given: object, expected: list[str]):
    assert list(targets(given)) == expected


@pytest.mark.parametrize("given", [None, 5, [], [["pt"]], ["pt", None], {"pt": 1}, False, ["pt", False], "pt,th", ""])
def test_values_that_name_no_target_are_refused(given: object):
    with pytest.raises(ValueError, match=r"lang=th|in quotes|not in the table"):
        targets(given)


@pytest.mark.parametrize(
    ("tag", "flores"),
    {
        "zh-TW": "zho_Hant",
        "zh_Hant": "zho_Hant",
        "zh-Hant-TW": "zho_Hant",
        "cmn-Hant": "zho_Hant",
        "zh-CN": "zho_Hans",
        "yue-HK": "yue_Hant",
        "pt-BR": "por_Latn",
        "th-TH": "tha_Thai",
        "tha-Thai": "tha_Thai",
        "kk-Cyrl": "kaz_Cyrl",
        "sr-Cyrl-RS": "srp_Cyrl",
        "iw": "heb_Hebr",
        "in": "ind_Latn",
        "jw": "jav_Latn",
        "ji": "ydd_Hebr",
        "mo": "ron_Latn",
        "fa-AF": "prs_Arab",
        "hi-Latn": "hin_Latn",
        "ks-Deva": "kas_Deva",
        "ar-Latn": "arb_Latn",
        "ko-Kore": "kor_Hang",
        "sat-Olck": "sat_Beng",
        "ace-ID": "ace_Latn",
        "Thai": "tha_Thai",
        "haitian creole": "hat_Latn",
        "Chinese (Traditional)": "zho_Hant",
        "ไทย": "tha_Thai",
    }.items(),
)
def test_tags_and_names_as_people_write_them(tag: str, flores: str):
    assert language(tag).flores == flores


@pytest.mark.parametrize(
    ("tag", "message"),
    {
        "sr-Latn": "the table does not have it in the script Latn; it has sr (Cyrl)",
        "sh": "the table does not have it in the script Latn; it has sr (Cyrl)",
        "uz-Cyrl": "the table does not have it in the script Cyrl; it has uz (Latn)",
        "pa-PK": "the table does not have it in the script Arab; it has pa (Guru)",
        "zh-Hani": "it has zh (Hans) or zho_Hant (Hant)",
        "zh-HK": "for the region HK; write zho_Hant (Chinese (Traditional)) or yue (Yue Chinese)",
        "zh-Hans-TW": "for the region TW; write zh (Chinese (Simplified))",
        "ar-MA": "for the region MA; write ar (Modern Standard Arabic) or ary (Moroccan Arabic)",
        "pt-PT": "for the region PT; write pt (Portuguese)",
        "de-1996": "with 1996; write de (German)",
    }.items(),
)
def test_a_script_or_region_without_a_row_is_never_taken_for_another(tag: str, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        language(tag)


def test_every_tag_of_a_row_with_its_script_leads_to_the_row():
    for entry in languages():
        # `Jpan` and `Hang` are what CLDR has for the scripts of Japanese and Korean, or near it.
        script = "Kore" if entry.script == "Hang" else entry.script
        tag = f"{entry.iso639_1 or entry.iso639_3}-{script}"
        assert language(tag) is entry, tag
