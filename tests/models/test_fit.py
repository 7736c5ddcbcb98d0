"""Batches of a GPU, planned by its memory and halved where that does not suffice: results are those of whole ones."""

import logging
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sdx import InputError
from sdx.config import Precision, TemplateKind
from sdx.evaluation import log_probs
from sdx.generation import hf
from sdx.generation.hf import HFGenerator
from sdx.languages import language
from sdx.models import fit
from sdx.models.backbone import load_model
from sdx.models.batches import Most
from sdx.stacking.generation import StackForCausalLM
from sdx.stacking.inference import encode_rows, generated_batches, pooled_batches
from sdx.stacking.model import StackForSequenceClassification
from sdx.store.batch_log import BatchLog
from sdx.store.files import read_rows
from sdx.translation.seq2seq import Seq2Seq
from tests.kit.generated import generate_rows
from tests.kit.memory import limit_rows
from tests.kit.stack_steps import labelled
from tests.kit.tiny import tiny_encoder, tiny_model, tiny_nllb
from tests.kit.tiny_stack import tiny_stack

pytestmark = pytest.mark.whole

PROMPTS = [f"{'The quick brown fox. ' * length}How many legs does a dog have?" for length in range(9)]
ROWS = [{"id": f"r{number}", "prompt": prompt} for number, prompt in enumerate(PROMPTS)]
EN, TH = "eng_Latn", "tha_Thai"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "llm": tiny_model(folder / "llm"),
        "nllb": tiny_nllb(folder / "nllb"),
        "encoder": tiny_encoder(folder / "encoder", "xlm-roberta"),
    }


def generating(places: dict[str, Path]) -> tuple[Any, Callable[[], Any]]:
    generator = HFGenerator(None, Precision.fp32)
    generator.load(places["llm"], TemplateKind.auto)
    return generator._ready().model, lambda: generator.complete(PROMPTS, 8)


def translating(places: dict[str, Path]) -> tuple[Any, Callable[[], Any]]:
    nllb = Seq2Seq(None, None, str(places["nllb"]), None, Precision.fp32, 2)
    nllb._model_dir = places["nllb"]
    sentences = [f"A fox {'and a dog ' * (number % 3)}{number}." for number in range(9)]
    return nllb._ready()[0], lambda: nllb.translate_sentences(sentences, EN, TH)


def scoring(places: dict[str, Path]) -> tuple[Any, Callable[[], Any]]:
    model = load_model(places["llm"], Precision.fp32)
    lengths = range(38, 29, -1)
    questions = [
        log_probs.question([4, *range(20, 20 + length)], [[7, 8][: 1 + length % 2]], 100) for length in lengths
    ]

    def score() -> Any:
        batches = log_probs.batches(model, questions)
        found = [log_probs.scored(model, [questions[number] for number in batch], 100) for batch in batches]
        return [pytest.approx(value, abs=1e-4) for batch in found for [(value, _)] in batch]

    return model, score


def reading(places: dict[str, Path]) -> tuple[Any, Callable[[], Any]]:
    model = tiny_stack(places["encoder"], places["llm"], StackForSequenceClassification)

    def read() -> Any:
        found = {}
        for rows, (vectors, logits) in pooled_batches(
            model, labelled(), encode_rows(model, labelled(), language("th"), 64)
        ):
            found |= dict(zip(rows, zip(vectors.tolist(), logits.tolist(), strict=True), strict=True))
        return [pytest.approx([*found[row][0][0], *found[row][1]], abs=1e-4) for row in range(len(labelled()))]

    return model.llm, read


def writing(places: dict[str, Path]) -> tuple[Any, Callable[[], Any]]:
    model = tiny_stack(places["encoder"], places["llm"], StackForCausalLM)

    def write() -> Any:
        batches = generated_batches(model, encode_rows(model, labelled(), language("th"), 64), 6)
        return sorted(pair for rows, texts in batches for pair in zip(rows, texts, strict=True))

    return model.llm, write


def encoding(places: dict[str, Path]) -> tuple[Any, Callable[[], Any]]:
    model = tiny_stack(places["encoder"], places["llm"])
    texts = [text["segments"] for text in labelled()]
    return model.llm, lambda: [pytest.approx(vector, abs=1e-4) for vector in model.encode(texts, "th").tolist()]


KINDS = [generating, translating, scoring, reading, writing, encoding]
ADVICE = {
    generating: r"a prompt of \d+ tokens with an answer of up to 8 .* lower scale\.max_new_tokens",
    translating: r"a sentence of \d+ tokens .* lower translator\.num_beams=2",
    scoring: r"a prompt of \d+ tokens .* lower backbone\.context_tokens=100",
    reading: r"a text of \d+ tokens .* lower scale\.max_length_tokens",
    writing: r"a text of \d+ tokens .* lower scale\.max_length_tokens",
    encoding: r"a text of \d+ tokens .* give shorter texts",
}


def plain(value: Any) -> Any:
    """Without the tolerance of numbers."""
    return [one.expected if hasattr(one, "expected") else one for one in value]


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_fit_is_halved_once_and_the_results_are_the_same(
    kind: Any, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(log_probs, "QUESTIONS", Most(8, 8))
    module, work = kind(places)
    whole = work()
    tried = limit_rows(monkeypatch, module, 6 if kind is translating else 3)  # each sentence has two beams
    with caplog.at_level(logging.WARNING, "sdx"):
        assert plain(work()) == whole
        refused = len([rows for rows in tried if rows > (6 if kind is translating else 3)])
        assert 0 < refused <= 2  # 8 or 9 rows, then 4
        tried.clear()
        assert plain(work()) == whole
    assert max(tried) <= (6 if kind is translating else 3)  # what was learned holds
    assert len([record for record in caplog.records if "batches are halved" in record.message]) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_row_that_does_not_fit_names_the_key(
    kind: Any, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    module, work = kind(places)
    limit_rows(monkeypatch, module, 0)
    with pytest.raises(InputError, match=ADVICE[kind]):
        work()


class Model:
    """Stands for one, where only its name in a dictionary counts."""


def test_what_did_not_fit_is_freed_before_the_next_try(monkeypatch: pytest.MonkeyPatch):
    """The error's traceback holds the tensors of the frames that it came through. The GPU is a mock."""
    emptied, alive = [], []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(held()))

    def held() -> bool:
        return any(tensor() is not None for tensor in alive)

    def work(some: slice) -> int:
        assert not held()
        tensor = torch.zeros(9)
        alive.append(weakref.ref(tensor))
        if some.stop - some.start > 1:
            raise torch.OutOfMemoryError
        return some.start

    done = list(fit.pieces(Model(), [5.0] * 4, [slice(0, 4)], work, str, ""))
    assert [result for _, result in done] == [0, 1, 2, 3]
    assert emptied == [False, False]  # four rows, two


def test_the_learned_size_is_one_of_memory_so_that_short_rows_stay_together():
    model, sizes, tried = Model(), [100.0] * 4 + [10.0] * 8, []

    def work(some: slice) -> None:
        tried.append(some)
        if sum(sizes[some]) > 250:
            raise torch.OutOfMemoryError

    list(fit.pieces(model, sizes, [slice(0, 4), slice(4, 12)], work, str, ""))
    assert tried == [slice(0, 4), slice(0, 2), slice(2, 4), slice(4, 12)]
    tried.clear()
    unknown = fit.pieces(Model(), [0.0] * 4, [slice(0, 4)], lambda some: tried.append(some), str, "")
    assert [some for some, _ in unknown] == [slice(0, 4)]


def test_a_model_of_unknown_shape_is_halved_by_rows():
    def work(some: slice) -> None:
        if some.stop - some.start > 3:
            raise torch.OutOfMemoryError

    done = fit.pieces(Model(), [0.0] * 9, [slice(0, 9)], work, str, "")
    assert [some.stop - some.start for some, _ in done] == [2, 2, 2, 2, 1]


def test_the_room_is_what_card_and_weights_leave(monkeypatch: pytest.MonkeyPatch):
    card = SimpleNamespace(total_memory=24 * 2**30)  # of a GPU that is not there
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    model = SimpleNamespace(device=torch.device("cuda", 0), get_memory_footprint=lambda: 10**9)
    assert fit.room(model) == 0.85 * 24 * 2**30 - 10**9
    model.device = torch.device("cpu")
    assert fit.room(model) == float("inf")


def test_rows_are_planned_by_memory_and_a_killed_run_goes_on_with_the_same_batches(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """On the CPU, which is told to plan as a GPU with little memory."""
    generator, _ = HFGenerator(None, Precision.fp32), generating(places)
    generate_rows(generator, places["llm"], ROWS, tmp_path / "cpu", 8)
    monkeypatch.setattr(hf, "device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(fit, "room", lambda _: 3 * generator._sizes([100], [8])[0])
    batches: list[int] = []
    append = BatchLog.append

    def dying(log: BatchLog, rows: Any) -> Any:
        places = append(log, rows)
        batches.append(len(rows))
        if len(batches) == 2:
            raise KeyboardInterrupt
        return places

    monkeypatch.setattr(BatchLog, "append", dying)
    with pytest.raises(KeyboardInterrupt):
        generate_rows(generator, places["llm"], ROWS, tmp_path / "gpu", 8)
    generate_rows(generator, places["llm"], ROWS, tmp_path / "gpu", 8)
    cut, batches[:] = list(batches), [9, 9, 9]
    generate_rows(generator, places["llm"], ROWS, tmp_path / "again", 8)
    assert cut == batches[3:]
    assert cut == sorted(cut)
    assert 1 <= cut[0] < cut[-1]  # the longest first, and more of the shorter ones
    assert read_rows(tmp_path / "gpu" / "rows.jsonl") == read_rows(tmp_path / "cpu" / "rows.jsonl")
    capped = HFGenerator(2, Precision.fp32)
    capped.load(places["llm"], TemplateKind.auto)
    assert max(some.stop - some.start for some in capped.batches(PROMPTS, 8)) == 2
