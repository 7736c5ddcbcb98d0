"""Language codes, separators and prefixes in the ids of each kind of encoder: never <unk>, never two texts as one."""

import json
from pathlib import Path

import pytest

from sdx import InputError
from sdx.config import EncoderConfig
from sdx.languages import language
from sdx.models.language_codes import language_code, language_codes
from sdx.stacking.encoder import load_tokenizer
from sdx.stacking.encoder_languages import check_languages, encoder_tokenizer
from tests.kit.tiny import ENCODER_TEMPLATES, tiny_encoder, tiny_nllb

THAI, SWAHILI = language("th"), language("sw")
KINDS = ("nllb", *ENCODER_TEMPLATES)
FRAMES = {
    "nllb": (["tha_Thai"], ["</s>"], ["</s>"]),
    "m2m_100": (["__th__"], ["</s>"], ["</s>"]),
    "mbart": ([], ["</s>"], ["</s>", "th_TH"]),
    "mbart50": (["th_TH"], ["</s>"], ["</s>"]),
    "bert": (["<s>"], ["</s>", "</s>"], ["</s>"]),
    "xlm-roberta": (["<s>"], ["</s>", "</s>"], ["</s>"]),
    "marian": ([], ["</s>"], ["</s>"]),
    "mt5": ([], ["</s>"], ["</s>"]),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("encoders")
    return {"nllb": tiny_nllb(folder / "nllb")} | {kind: tiny_encoder(folder / kind, kind) for kind in KINDS[1:]}


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_around_and_between_texts(models: dict[str, Path], kind: str):
    before, between, after = FRAMES[kind]
    segments = encoder_tokenizer(models[kind], "", THAI)
    pair, one = segments.encode([("ab", "c"), ("ก",)], 64)
    tokens = segments.tokenizer.convert_ids_to_tokens(pair.ids)
    assert tokens == [*before, "▁", "a", "b", *between, "▁", "c", *after]
    assert [tokens[start:end] for start, end in pair.spans] == [["▁", "a", "b"], ["▁", "c"]]
    assert segments.tokenizer.convert_ids_to_tokens(one.ids) == [*before, "▁", "ก", *after]
    assert segments.tokenizer.unk_token_id not in pair.ids + one.ids


@pytest.mark.parametrize("kind", KINDS)
def test_the_prefix_is_as_the_tokenizer_would_have_it(models: dict[str, Path], kind: str):
    segments = encoder_tokenizer(models[kind], "query: ", THAI)
    pair, one = segments.encode([("ab", "c"), ("ก d",)], 64)
    joined = segments.tokenizer("query: ก d", add_special_tokens=False).input_ids
    start = len(one.ids) - len(joined) - len(segments.after)
    assert one.ids[start : start + len(joined)] == joined
    [(first, end)] = one.spans
    assert one.ids[first:end] == joined[-(end - first) :]  # the prefix is outside the span
    assert segments.tokenizer.convert_ids_to_tokens(pair.ids).count("q") == 1  # in front of the first text only


@pytest.mark.parametrize("kind", ["nllb", "m2m_100", "mbart", "mbart50"])
def test_a_language_without_code_is_an_error(models: dict[str, Path], kind: str):
    with pytest.raises(InputError, match=rf"{models[kind]} has no code for Swahili \(swh_Latn\); .*encoder=e5_small"):
        encoder_tokenizer(models[kind], "", SWAHILI)
    config = EncoderConfig(name="mine", path=str(models[kind]))
    check_languages(config, [THAI, language("en")])
    message = r"encoder=mine has no code for Swahili \(swh_Latn\), French \(fra_Latn\); "
    with pytest.raises(InputError, match=message):
        check_languages(config, [THAI, SWAHILI, language("fr")])


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "marian", "mt5"])
def test_a_model_without_codes_takes_any_language(models: dict[str, Path], kind: str):
    encoder_tokenizer(models[kind], "", SWAHILI)
    check_languages(EncoderConfig(name="mine", path=str(models[kind])), [SWAHILI])


def test_languages_of_a_hub_model_that_is_not_here():
    nllb = EncoderConfig(name="nllb_600m", hub_id="facebook/nllb-200-distilled-600M", revision="0" * 40)
    check_languages(nllb, [THAI, SWAHILI])
    with pytest.raises(InputError, match=r"encoder=nllb_600m has no code for Hindi \(Romanized\) \(hin_Latn\)"):
        check_languages(nllb, [THAI, language("hin_Latn")])
    check_languages(EncoderConfig(name="x", hub_id="someone/else", revision="0" * 40), [language("hin_Latn")])
    check_languages(EncoderConfig(name="e5_small", asset="e5_small"), [language("hin_Latn")])


def test_languages_of_a_hub_model_in_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    revision = "0123456789" * 4
    snapshot = tmp_path / "models--someone--mine" / "snapshots" / revision
    tiny_nllb(snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    mine = EncoderConfig(name="mine", hub_id="someone/mine", revision=revision)
    check_languages(mine, [THAI])
    with pytest.raises(InputError, match="encoder=mine has no code for Swahili"):
        check_languages(mine, [SWAHILI])


def test_codes_in_the_files_of_a_tokenizer_without_tokenizer_json(models: dict[str, Path], tmp_path: Path):
    """As the hub's M2M-100 has them."""
    (tmp_path / "config.json").write_text('{"model_type": "m2m_100"}')
    check_languages(EncoderConfig(name="x", path=str(tmp_path)), [SWAHILI])  # nothing is said
    names = {"additional_special_tokens": ["__en__", "__th__"]}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(names))
    with pytest.raises(InputError, match="Swahili"):
        check_languages(EncoderConfig(name="x", path=str(tmp_path)), [THAI, SWAHILI])
    (tmp_path / "special_tokens_map.json").write_text("{")
    with pytest.raises(InputError, match=r"special_tokens_map\.json cannot be read"):
        check_languages(EncoderConfig(name="x", path=str(tmp_path)), [THAI])


def test_codes_that_a_tokenizer_keeps_apart(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    """As transformers' own tokenizer of M2M-100 does."""
    tokenizer = load_tokenizer(models["m2m_100"])
    vocabulary = tokenizer.get_vocab()
    apart = {token: vocabulary.pop(token) for token in ("__en__", "__th__")}
    monkeypatch.setattr(tokenizer, "get_vocab", lambda: dict(vocabulary))
    monkeypatch.setattr(tokenizer, "lang_token_to_id", apart, raising=False)
    monkeypatch.setattr("sdx.stacking.encoder_languages.load_tokenizer", lambda _: tokenizer)
    assert encoder_tokenizer(models["m2m_100"], "", THAI).before == [apart["__th__"]]
    with pytest.raises(InputError, match="Swahili"):
        encoder_tokenizer(models["m2m_100"], "", SWAHILI)


def test_codes_of_languages(tmp_path: Path):
    for kind, tokens, expected in (
        ("m2m_100", {"tha_Thai", "<s>"}, {"tha_Thai"}),
        ("m2m_100", {"__th__", "<s>"}, {"__th__"}),
        ("m2m_100", {"<s>"}, set()),
        ("mbart", {"th_TH", "<s>"}, {"th_TH"}),
        ("xlm-roberta", {"tha_Thai"}, None),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        assert language_codes(tmp_path, tokens) == expected
    assert language_code({"__ast__", "__zh__"}, language("ast_Latn")) == "__ast__"
    assert language_code({"__ast__", "__zh__"}, language("zh")) == "__zh__"
    assert language_code({"__zh__"}, language("zho_Hant")) is None  # another script
    assert language_code({"zh_CN", "en_XX"}, language("en")) == "en_XX"
    assert language_code({"zh_CN", "en_XX"}, language("zho_Hant")) is None
    assert language_code({"arb_Arab"}, language("arb_Latn")) is None  # empty in the table


def test_special_tokens_in_a_text_are_text(models: dict[str, Path]):
    segments = encoder_tokenizer(models["nllb"], "", THAI)
    [encoded] = segments.encode([("a</s>tha_Thai",)], 64)
    assert encoded.ids.count(segments.tokenizer.eos_token_id) == 1
    assert encoded.ids.count(segments.before[0]) == 1


def test_a_tokenizer_whose_template_has_the_code_behind(tmp_path: Path):
    """As in an older tokenizer.json of NLLB-200 on the hub; in training the code comes first."""
    path = tiny_nllb(tmp_path)
    content = json.loads((path / "tokenizer.json").read_text())
    for key in ("single", "pair"):
        content["post_processor"][key].append(content["post_processor"][key].pop(0))
    (path / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = load_tokenizer(path)
    assert tokenizer.convert_ids_to_tokens(tokenizer("a").input_ids)[-1] == "eng_Latn"
    segments = encoder_tokenizer(path, "", THAI)
    assert tokenizer.convert_ids_to_tokens([*segments.before, *segments.after]) == ["tha_Thai", "</s>"]
