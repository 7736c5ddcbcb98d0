"""The backbone as its own translator: the prompt it gets, one line for each sentence, in their order."""

import json
from pathlib import Path

import pytest

from sdx.artifacts import Step, Store, write_rows
from sdx.config import InputError, Precision, TemplateKind
from sdx.generation.hf import HFGenerator
from sdx.translation.base import Surroundings
from sdx.translation.self_translation import SelfTranslation
from tests.tiny import tiny_model

PAIRS = [{"source": f"The dog has {n} legs.", "target": f"สุนัขมี {n} ขา"} for n in range(12)]
EN, TH = "eng_Latn", "tha_Thai"


class Watched(HFGenerator):
    """Remembers the prompts that reach the model."""

    prompts: list[str]

    def _answers(self, prompts, stops, limits):
        tokenizer = self._ready()[1]
        self.prompts = getattr(self, "prompts", []) + [tokenizer.decode(prompt) for prompt in prompts]
        return super()._answers(prompts, stops, limits)


def placed(tmp_path: Path, chat: bool, shots: int = 2, file: str | None = None) -> tuple[SelfTranslation, Watched]:
    model = tiny_model(tmp_path / "tiny", chat)

    def kept_aside(work) -> None:
        write_rows(work.dir / "demonstrations.jsonl", PAIRS)

    backbone = Step("backbone", lambda work: (work.dir / "model").symlink_to(model, target_is_directory=True))
    pairs = Step("parallel", kept_aside)
    generator = Watched(batch_size=2, precision=Precision.fp32)
    translator = SelfTranslation(shots, file)
    around = Surroundings(backbone, TemplateKind.auto, generator, lambda source, target: pairs, None)
    translator.place(around)
    store = Store(tmp_path / "cache")
    translator.prepare({name: store.realise(step) for name, step in translator.needs(EN, TH).items()})
    return translator, generator


def test_a_base_model_continues_a_list_of_pairs(tmp_path: Path):
    translator, generator = placed(tmp_path, chat=False)
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
    translator, generator = placed(tmp_path, chat=False, shots=12)
    translator.translate(["The fox and the dog " * 15], EN, TH)  # one long sentence
    long = max(generator.prompts, key=len)
    assert 0 < long.count("Thai: ") < 12
    translator.translate(["The cat."], EN, TH)
    assert generator.prompts[-1].count("Thai: ") == 12


def test_a_chat_model_gets_the_list_in_an_instruction(tmp_path: Path):
    translator, generator = placed(tmp_path, chat=True)
    translator.translate(["The fox."], EN, TH)
    assert generator.prompts[0].startswith("<|im_start|>user\nTranslate from English into Thai.")
    assert generator.prompts[0].endswith("Thai:<|im_end|>\n<|im_start|>assistant\n")


def test_demonstrations_from_a_file(tmp_path: Path):
    file = tmp_path / "shots-th.jsonl"
    file.write_text(json.dumps({"source": "Good\nday.", "target": "สวัสดี"}) + "\n")
    translator, generator = placed(tmp_path, chat=False, shots=8, file=f"{tmp_path}/shots-{{target}}.jsonl")
    translator.translate(["The fox."], EN, TH)
    assert "English: Good day.\nThai: สวัสดี\n\nEnglish: The fox.\nThai:" in generator.prompts[0]
    file.write_text('{"source": "Good day."}\n')
    with pytest.raises(InputError, match="line 1 has no text in `target`"):
        placed(tmp_path, chat=False, file=str(file))


def test_it_translates_no_test_items_and_needs_examples():
    assert not SelfTranslation(8, None).independent
    with pytest.raises(InputError, match=r"translator\.shots=0"):
        SelfTranslation(0, None)
    translator = SelfTranslation(8, None)
    generator = HFGenerator(1, Precision.fp32)
    translator.place(Surroundings(Step("x", print), TemplateKind.auto, generator, lambda *_: None, None))
    assert "parallel=" in (translator.obstacle(EN, TH) or "")
