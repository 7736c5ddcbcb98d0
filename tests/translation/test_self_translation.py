"""The backbone as its own translator: the prompt it gets, one line for each sentence, in their order."""

import json
from pathlib import Path

import pytest

from sdx import InputError
from sdx.config import Precision, TemplateKind
from sdx.generation.hf import HFGenerator
from sdx.models import residency
from sdx.store.files import write_rows
from sdx.store.store import Store
from sdx.translation.base import TranslationContext
from sdx.translation.self_translation import SelfTranslation
from tests.kit.plain_step import PlainStep
from tests.kit.tiny import tiny_model

pytestmark = pytest.mark.whole

PAIRS = [{"source": f"The dog has {n} legs.", "target": f"สุนัขมี {n} ขา"} for n in range(12)]
EN, TH = "eng_Latn", "tha_Thai"


class Watched(HFGenerator):
    """Remembers the prompts that reach the model."""

    prompts: list[str]

    def _answers(self, prompts, *rest):
        tokenizer = self._ready().tokenizer
        self.prompts = getattr(self, "prompts", []) + [tokenizer.decode(prompt) for prompt in prompts]
        return super()._answers(prompts, *rest)


def attached(
    tmp_path: Path, chat: bool, shots: int = 2, file: str | None = None, delimiter: str = "\n\n"
) -> tuple[SelfTranslation, Watched]:
    model = tiny_model(tmp_path / "tiny", chat)

    def kept_aside(work) -> None:
        write_rows(work.dir / "demonstrations.jsonl", PAIRS)

    backbone = PlainStep("backbone", lambda work: (work.dir / "model").symlink_to(model, target_is_directory=True))
    pairs = PlainStep("parallel", kept_aside)
    generator = Watched(batch_size=2, precision=Precision.fp32)
    translator = SelfTranslation(shots, file, delimiter)
    around = TranslationContext(backbone, TemplateKind.auto, generator, lambda source, target: pairs, None)
    translator.attach(around)
    store = Store(tmp_path / "cache")
    translator.prepare({name: store.realise(step) for name, step in translator.needs(EN, TH).items()})
    return translator, generator


def test_a_base_model_continues_a_list_of_pairs(tmp_path: Path):
    translator, generator = attached(tmp_path, chat=False)
    texts = ["How many legs does a dog have?", "- The fox.\n- The lazy dog. The cat.", "12"]
    translated = translator.translate(texts, EN, TH)
    assert translated[2] == "12"
    assert translated[1].count("\n") == 1  # the layout stays, so each sentence gave one line
    assert translated[1].startswith("- ")
    sentences = {prompt.rsplit("English: ", 1)[1] for prompt in generator.prompts}
    assert "How many legs does a dog have?\nThai:" in sentences
    shots = "".join(f"English: {row['source']}\nThai: {row['target']}\n\n" for row in PAIRS[:2])
    assert all(prompt == f"<|begin|>{shots}English: {prompt.rsplit('English: ', 1)[1]}" for prompt in generator.prompts)
    assert translator.translate(texts[:1], EN, TH) == translated[:1]  # nothing depends on the neighbours


def test_as_many_examples_as_the_context_holds(tmp_path: Path):
    translator, generator = attached(tmp_path, chat=False, shots=12)
    translator.translate(["The fox and the dog " * 15], EN, TH)  # one long sentence
    long = max(generator.prompts, key=len)
    assert 0 < long.count("Thai: ") < 12
    translator.translate(["The cat."], EN, TH)
    assert generator.prompts[-1].count("Thai: ") == 12


def test_a_chat_model_gets_the_list_in_an_instruction(tmp_path: Path):
    translator, generator = attached(tmp_path, chat=True)
    translator.translate(["The fox."], EN, TH)
    assert generator.prompts[0].startswith("<|im_start|>user\nTranslate from English into Thai.")
    assert generator.prompts[0].endswith("Thai:<|im_end|>\n<|im_start|>assistant\n")


def test_demonstrations_from_a_file(tmp_path: Path):
    file = tmp_path / "shots-th.jsonl"
    file.write_text(json.dumps({"source": "Good\nday.", "target": "สวัสดี"}) + "\n")
    translator, generator = attached(tmp_path, chat=False, shots=8, file=f"{tmp_path}/shots-{{target}}.jsonl")
    translator.translate(["The fox."], EN, TH)
    assert "English: Good day.\nThai: สวัสดี\n\nEnglish: The fox.\nThai:" in generator.prompts[0]
    file.write_text('{"source": "Good day."}\n')
    with pytest.raises(InputError, match="line 1 has no text in `target`"):
        attached(tmp_path, chat=False, file=str(file))


def test_it_translates_no_test_items_and_needs_examples():
    assert not SelfTranslation(8, None, "\n\n").is_external
    translator = SelfTranslation(8, None, "\n\n")
    generator = HFGenerator(1, Precision.fp32)
    translator.attach(TranslationContext(PlainStep("x", print), TemplateKind.auto, generator, lambda *_: None, None))
    assert "parallel=" in (translator.why_unsupported(EN, TH) or "")


class Forgetful(Watched):
    """Computes the examples with every sentence, and remembers which it was told of."""

    def _answers(self, prompts, stop, limits, beginning, *rest):
        self.beginnings = [*getattr(self, "beginnings", []), tuple(beginning)]
        return super()._answers(prompts, stop, limits, [], *rest)


@pytest.mark.parametrize("chat", [False, True])
def test_the_examples_are_computed_once_and_the_translations_are_the_same(tmp_path: Path, chat: bool):
    short = ["The fox.", "How many legs does a dog have?", "12 dogs.", "สวัสดีครับ"]
    long = ["The fox and the dog " * 15, "The cat and the dog " * 14]  # with fewer examples, and not all of them many
    translator, generator = attached(tmp_path, chat, shots=8)
    plain, forgetful = attached(tmp_path, chat, shots=8)
    forgetful.__class__ = Forgetful
    written, computed = {}, {}
    for name, engine, its in (("reused", translator, generator), ("plain", plain, forgetful)):
        residency.release()
        its.load(engine._model_dir, TemplateKind.auto)
        fed: list[int] = []

        def note(_, __, named, fed=fed):
            fed.append(named["input_ids"].numel())

        its._ready().model.register_forward_pre_hook(note, with_kwargs=True)
        first = engine.translate(short, EN, TH)
        computed[name] = len(fed), sum(fed)
        written[name] = first, engine.translate(long + short, EN, TH)
        computed[f"{name} in all"] = len(fed)
    assert written["reused"] == written["plain"]
    assert computed["reused"][0] == computed["plain"][0] + 1
    assert computed["reused"][1] < 0.3 * computed["plain"][1]
    assert computed["reused in all"] == computed["plain in all"] + 1  # still of the first call
    assert len(set(forgetful.beginnings)) == 1


@pytest.mark.parametrize("delimiter", [" ### ", "\n---\n", "|"])
def test_what_stands_between_examples(tmp_path: Path, delimiter: str):
    file = tmp_path / "shots.jsonl"
    rows = [*PAIRS[:2], {"source": f"A cat{delimiter}or|not ### this.", "target": "แมว"}, *PAIRS[2:4]]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    translator, generator = attached(tmp_path, chat=False, shots=3, file=str(file), delimiter=delimiter)
    translator.translate(["The fox."], EN, TH)
    there = [PAIRS[0], PAIRS[1], rows[2] if "\n" in delimiter else PAIRS[2]]  # a demonstration that has it is left out
    there = [{side: " ".join(row[side].split()) for side in row} for row in there]
    shots = "".join(f"English: {row['source']}\nThai: {row['target']}{delimiter}" for row in there)
    assert generator.prompts[0] == f"<|begin|>{shots}English: The fox.\nThai:"


def test_no_demonstration_is_left(tmp_path: Path):
    with pytest.raises(InputError, match=r"translator\.delimiter='\.' is in every demonstration"):
        attached(tmp_path, chat=False, delimiter=".")


@pytest.mark.parametrize("delimiter", ["", " ", "abc", "๔๒", "12", ": ", r"\n\n"])
def test_a_delimiter_that_cannot_work(delimiter: str):
    with pytest.raises(InputError, match=r"translator\.delimiter=.*; give one with a line feed"):
        SelfTranslation(8, None, delimiter)


def test_the_version_says_what_decides_the_prompt(tmp_path: Path):
    versions = {
        attached(tmp_path / f"{number}", chat=False, shots=shots, delimiter=delimiter)[0].version
        for number, (shots, delimiter) in enumerate([(2, "\n\n"), (3, "\n\n"), (2, "\n"), (2, " ### ")])
    }
    assert len(versions) == 4
    assert all("prompt 3" in version for version in versions)


def test_rows_of_one_sentence_fill_the_batches(tmp_path: Path):
    translator, generator = attached(tmp_path, chat=False)
    assert translator.batch_rows == generator.most_rows == 2
