"""An instruction model as translator: the prompts that reach it, its answers, its languages, a run."""

from pathlib import Path
from typing import Any

import pytest

from sdx import InputError
from sdx.cli import main
from sdx.config import Precision, TemplateKind
from sdx.generation.base import Completion
from sdx.generation.hf import HFGenerator
from sdx.run import build_translator
from sdx.store.files import read_rows
from sdx.store.store import Store
from sdx.translation.base import TranslationContext
from sdx.translation.llm import LLM
from tests.kit.configs import composed
from tests.kit.plain_step import PlainStep
from tests.kit.tiny import tiny_model
from tests.kit.workplace import SDRRL, UNSEEN, Workplace

PRESETS = ("hy_mt2_7b", "tower_plus_2b", "translategemma_4b")
EN, PT, TH = "eng_Latn", "por_Latn", "tha_Thai"
SENTENCE = "The dog has four legs."


class Watched(HFGenerator):
    """Remembers the prompts that reach the model, and may answer in its place."""

    reply: str | None = None

    def _complete(self, texts: list[str], special: bool, *rest: Any, **options: Any) -> list[Completion]:
        self.prompts = [*getattr(self, "prompts", []), *texts]
        answers = super()._complete(texts, special, *rest, **options)
        return answers if self.reply is None else [Completion(self.reply, 3, True) for _ in texts]


def prepared(path: Path, *options: str) -> tuple[LLM, Watched]:
    """A translator of a configuration with a tiny model in place of its own."""
    model = tiny_model(path / "tiny")
    if "translator=translategemma_4b" in options:
        (model / "chat_template.jinja").write_text("{{ raise_exception('User role must provide a list') }}")
    here = (f"translator.path={model}", "translator.hub_id=null", "translator.revision=null")
    translator = build_translator(composed(*options, *here).translator)
    assert isinstance(translator, LLM)
    generator = Watched(2, Precision.fp32)
    nothing = PlainStep("backbone", print)
    for step in translator.needs(EN, PT).values():
        step.check()
    translator.attach(TranslationContext(nothing, TemplateKind.auto, generator, lambda *_: None, None))
    store = Store(path / "cache")
    translator.prepare({name: store.realise(step) for name, step in translator.needs(EN, PT).items()})
    return translator, generator


def test_the_prompt_and_what_is_taken_of_the_answer(tmp_path: Path):
    translator, generator = prepared(
        tmp_path, "translator=llm", "translator.prompt='{source_code}-{target}: {text} {x'"
    )
    generator.reply = "สุนัข X1"
    translated = translator.translate(["- The fox {text}.\n- `x = 1`", "The fox {text}."], EN, TH)
    assert generator.prompts == ["<|im_start|>user\nen-Thai: The fox X1. {x<|im_end|>\n<|im_start|>assistant\n"]
    assert translated == ["- สุนัข {text}\n- `x = 1`", "สุนัข {text}"]
    generator.reply = "Here is the translation:\n\nPortuguese: «O cão tem quatro patas.»\n\nI hope this helps!"
    assert translator.translate([SENTENCE], EN, PT) == ["O cão tem quatro patas."]
    generator.reply = ""
    assert translator.translate([SENTENCE], EN, PT) == [SENTENCE]


def test_the_presets_write_what_their_model_cards_say(tmp_path: Path):
    prompts = {}
    for name in PRESETS:
        translator, generator = prepared(tmp_path / name, f"translator={name}")
        generator.reply = "O cão."
        assert translator.translate([SENTENCE], EN, PT) == ["O cão."]
        [prompts[name]] = generator.prompts
    begin, end = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    assert prompts == {
        "hy_mt2_7b": f"{begin}Translate the following text into Portuguese. Note that you should only output the "
        f"translated result without any additional explanation:\n\n{SENTENCE}{end}",
        "tower_plus_2b": f"{begin}Translate the following English source text to Portuguese (Portugal):\n"
        f"English: {SENTENCE}\nPortuguese (Portugal): {end}",
        "translategemma_4b": "<start_of_turn>user\nYou are a professional English (en) to Portuguese (pt) translator. "
        "Your goal is to accurately convey the meaning and nuances of the original English text while adhering to "
        "Portuguese grammar, vocabulary, and cultural sensitivities.\nProduce only the Portuguese translation, without "
        "any additional explanations or commentary. Please translate the following English text into Portuguese:\n\n\n"
        f"{SENTENCE}<end_of_turn>\n<start_of_turn>model\n",
    }


@pytest.mark.parametrize(("name", "languages"), [("hy_mt2_7b", 38), ("tower_plus_2b", 24), ("translategemma_4b", 52)])
def test_the_languages_of_a_preset(name: str, languages: int):
    translator = build_translator(composed(f"translator={name}").translator)
    assert isinstance(translator, LLM)
    assert len(translator._known) == languages  # no two codes are one language
    assert translator.supports(EN, PT)
    reason = translator.why_unsupported(EN, "quy_Latn") or ""
    assert reason.startswith("cannot translate Ayacucho Quechua (qu): ")
    assert "give another translator or lang" in reason


def test_a_model_of_ones_own_is_asked_for_any_language(tmp_path: Path):
    translator, _ = prepared(tmp_path, "translator=llm")
    assert translator.supports(EN, "quy_Latn")
    with pytest.raises(InputError, match=r"translator\.served_as=it names a model of generator=server"):
        prepared(tmp_path, "translator=llm", "translator.served_as=it")


def test_another_prompt_is_another_key(tmp_path: Path):
    model = tiny_model(tmp_path / "tiny")

    def version(*options: str) -> str:
        translator = build_translator(composed("translator=llm", f"translator.path={model}", *options).translator)
        none = PlainStep("backbone", print)
        translator.attach(
            TranslationContext(none, TemplateKind.auto, Watched(2, Precision.fp32), lambda *_: None, None)
        )
        return translator.version

    assert version() == version()
    others = ("translator.prompt='{text}'", "translator.end='<end>'", "+translator.languages={en: English}")
    assert len({version(), *map(version, others)}) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["translator.prompt='{source}'"], r"does not have \{text\} once; it may have"),
        (["translator.prompt='{text} {src}'"], r"has \{src\}; it may have \{source\}"),
        (["+translator.languages={xx: No}"], r'translator\.languages: language "xx" is not in the table'),
        (["translator.path=null"], r"give exactly one of translator\.hub_id and translator\.path"),
        (["translator.path=null", "translator.hub_id=a/b"], r"translator\.revision=None does not pin"),
    ],
)
def test_options_that_cannot_work(tmp_path: Path, options: list[str], message: str):
    model = tiny_model(tmp_path / "tiny")
    config = composed("translator=llm", f"translator.path={model}", *options).translator
    with pytest.raises(InputError, match=message):
        build_translator(config)


@pytest.mark.long
def test_a_run_with_a_translator_of_its_own(tmp_path: Path):
    place = Workplace(tmp_path)
    other = tiny_model(tmp_path / "translator", seed=1)
    given = ("translator=llm", f"translator.path={other}", "task=mmlu_human", "stages=prepare")
    run, printed = place.sdx(*SDRRL, *given, UNSEEN)
    print(printed, run)
    rows = [row for path in tmp_path.glob("cache/artifacts/translate/*/rows.jsonl") for row in read_rows(path)]
    assert len(rows) == 12  # six instructions and their answers
    assert all(row["text"] not in ("", row["source"]) for row in rows)


@pytest.fixture(autouse=True, scope="module")
def registered() -> None:
    main.register()
