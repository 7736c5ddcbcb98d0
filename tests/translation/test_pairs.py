"""Which pairs a directory translates, by its files, and the ids that its texts become."""

from pathlib import Path

import pytest

from sdx import InputError
from sdx.config import Precision, Runtime
from sdx.languages import language
from sdx.store.files import read_json, write_json
from sdx.translation.pairs import Frame, frame
from sdx.translation.seq2seq import Seq2Seq
from sdx.translation.vocabulary import load_vocabulary
from tests.kit.tiny import tiny_encoder
from tests.kit.tiny_seq2seq import tiny_m2m, tiny_marian, tiny_mbart

EN, FR, TH, HI, ZH = (language(code) for code in ("en", "fr", "th", "hi", "zh"))


def marian(path: Path, *targets: str, **settings: str) -> Path:
    """The files that name the languages."""
    path.mkdir()
    write_json(path / "config.json", {"model_type": "marian"})
    write_json(path / "vocab.json", {token: id_ for id_, token in enumerate(("</s>", *targets))})
    if settings:
        write_json(path / "tokenizer_config.json", settings)
    return path


def test_marian_of_one_pair(tmp_path: Path):
    settings = {"source_lang": "fr", "target_lang": "en"}
    for path in (marian(tmp_path / "mine", **settings), marian(tmp_path / "opus-mt-fr-en")):
        assert frame(path, "it", FR, EN) == Frame(None, None)
        assert frame(path, "it", FR, TH) == "cannot translate into Thai (tha_Thai): it translates into en"
        assert frame(path, "it", TH, EN) == "cannot translate from Thai (tha_Thai): it translates from fr"
    assert "does not know which languages it translates" in str(frame(marian(tmp_path / "x"), "it", FR, EN))


def test_marian_of_many_sources_and_targets(tmp_path: Path):
    path = marian(tmp_path / "opus-mt-tc-big-en-mul", ">>tha<<", ">>hin_Deva<<", ">>zho_Hans<<", ">>zho_Hant<<")
    assert frame(path, "it", EN, TH) == Frame(">>tha<<", None)
    assert frame(path, "it", EN, HI) == Frame(">>hin_Deva<<", None)
    assert frame(path, "it", EN, ZH) == Frame(">>zho_Hans<<", None)
    assert "into French (fra_Latn): it translates into hin_Deva, mul, tha, zho_Hans" in str(frame(path, "it", EN, FR))
    assert "from French" in str(frame(path, "it", FR, TH))
    group = marian(tmp_path / "group", source_lang="mul", target_lang="en")
    assert frame(group, "it", TH, EN) == frame(group, "it", FR, EN) == Frame(None, None)


def test_codes_of_m2m_100_and_mbart(tmp_path: Path):
    m2m, mbart = tiny_m2m(tmp_path / "m2m"), tiny_mbart(tmp_path / "mbart")
    assert frame(m2m, "it", FR, TH) == Frame("__fr__", "__th__")
    assert frame(mbart, "it", TH, EN) == Frame("th_TH", "en_XX")
    assert "Hindi (hin_Deva): it has no code for it" in str(frame(mbart, "it", EN, HI))


def test_an_mbart_with_its_code_behind_the_text_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"translator\.path=.* tokenizer_class=MBart50Tokenizer; only mBART-50"):
        Seq2Seq(None, None, str(tiny_encoder(tmp_path / "mbart", "mbart")), None, Precision.fp32, 1)


def test_the_ids_of_sentencepiece_files_are_those_of_the_models_own_tokenizer(tmp_path: Path):
    from transformers import M2M100Tokenizer, MarianTokenizer

    text = "How many legs does a dog have? Ż"
    path = tiny_marian(tmp_path / "marian", (">>tha<<",), source_lang="en", target_lang="mul")
    theirs, ours = MarianTokenizer.from_pretrained(path), load_vocabulary(path)
    [ids] = ours.encode([text])
    assert [ours.ids[">>tha<<"], *ids, ours.ids["</s>"]] == theirs(f">>tha<<{text}")["input_ids"]
    assert ours.decode([[*ids, 0, ours.ids["<pad>"]]]) == [theirs.decode(ids, skip_special_tokens=True)]

    path = tiny_m2m(tmp_path / "m2m")
    theirs, ours = M2M100Tokenizer.from_pretrained(path, src_lang="th"), load_vocabulary(path)
    [ids] = ours.encode([text])
    assert [ours.ids["__th__"], *ids, ours.ids["</s>"]] == theirs(text)["input_ids"]
    assert ours.decode([[ours.ids["__fr__"], *ids, 2, 1]]) == [theirs.decode(ids, skip_special_tokens=True)]


def test_special_tokens_in_a_text_are_text(tmp_path: Path):
    path = tiny_marian(tmp_path / "marian", (">>tha<<",), source_lang="en", target_lang="mul")
    vocabulary = load_vocabulary(path)
    [ids] = vocabulary.encode(["</s> >>tha<< dog"])
    assert not {vocabulary.ids[token] for token in ("</s>", ">>tha<<")} & set(ids)


def test_files_that_do_not_fit_together_are_found_before_the_run(tmp_path: Path):
    def check(path: Path) -> None:
        translator = Seq2Seq(None, None, str(path), None, Precision.fp32, 1, Runtime.ctranslate2)
        translator.needs("eng_Latn", "tha_Thai")["translator"].check()

    path = tiny_marian(tmp_path / "marian", source_lang="en", target_lang="th")
    check(path)
    vocabulary = read_json(path / "vocab.json")
    write_json(path / "vocab.json", {**vocabulary, "one": 999})
    with pytest.raises(InputError, match=r"translator\.path=.*: the token 'one' has the id 999 of \d+"):
        check(path)
    write_json(path / "vocab.json", vocabulary)
    (path / "target.spm").write_bytes(b"x")
    with pytest.raises(InputError, match=r"translator\.path=.* cannot be loaded"):
        check(path)
