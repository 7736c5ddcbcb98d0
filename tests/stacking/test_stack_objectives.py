"""Objectives of a stack: packs, padded rows and micro-batches give one loss, and the teacher is the plain LLM."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from transformers import AutoModel, LlamaConfig, LlamaModel

from sdx.stacking.inference import example_id, text_examples
from sdx.stacking.model import StackForMultipleChoice, StackForSequenceClassification, StackModel
from sdx.stacking.objectives import Alignment, Classification, Collator, Distillation, Probe, TextExample
from sdx.training.attention import PACKED
from sdx.training.hidden_states import pooled
from tests.kit.tiny_stack import tiny_stack

PAD, LLM_PAD = 1, 3
COLLATORS = {"stack": Collator({"encoder": PAD, "llm": LLM_PAD}), "llm": Collator({"llm": LLM_PAD})}
VARIANCES = (0.5, 2.0)
GOALS = ("classification", "choice", "distillation", "sequences", "words")


@pytest.fixture(scope="module")
def models(encoder_dir: Path, llm_dir: Path) -> Mapping[tuple[str, str, bool], Any]:
    class Made(dict[tuple[str, str, bool], Any]):
        def __missing__(self, key: tuple[str, str, bool]) -> Any:
            who, goal, bidirectional = key
            kind = {"classification": StackForSequenceClassification, "choice": StackForMultipleChoice}
            kind["distillation"] = kind["choice"]
            encoder = encoder_dir if who == "stack" else None
            head = kind.get(goal, StackModel)
            self[key] = tiny_stack(encoder, llm_dir, head, bidirectional=bidirectional, start_token=encoder and 5)
            return self[key]

    return Made()


@pytest.fixture(autouse=True)
def ordinary(models: Any) -> Iterator[None]:
    yield
    for model in models.values():
        model.llm.set_attn_implementation("sdpa")
        model.eval()


def texts(count: int = 7, spans: int = 0, words: bool = False) -> list[TextExample]:
    """Texts of many lengths, one of a single token.

    Args:
        spans: vectors of a text; 0: one of the whole.
        words: with what the teacher reads, and words, the last text without any.
    """
    random, found = Random(1), []
    for number in range(count):
        size, own = 1 if number == 2 and not spans else random.randint(6, 24), random.randint(6, 20)
        places: list[tuple[int, int]] = [(0, size)]
        own_places: list[tuple[int, int]] = [(0, own)]
        if spans:
            places = [(2 * k + 1, 2 * k + 2 + k % 2) for k in range(spans)]
        elif words and size > 1 and number < count - 1:
            places += [(1, 3), (3, 4)][: 1 + number % 2]
            own_places += [(0, 1), (1, 4)][: 1 + number % 2]
        found.append(
            TextExample(
                id=f"t{number}",
                input_ids=[random.randrange(6, 200) for _ in range(size)],
                spans=places,
                label=number % 3 if not spans else number % spans,
                llm_ids=[random.randrange(6, 400) for _ in range(own)] if words else [],
                llm_spans=own_places if words else [],
            )
        )
    return found


def stored(rows: Sequence[TextExample]) -> dict[str, torch.Tensor]:
    """A teacher's vectors."""
    draw = torch.Generator().manual_seed(7)
    return {row.id: torch.randn(len(row.spans), 64, generator=draw) for row in rows}


def case(who: str, goal: str) -> tuple[Any, list[TextExample]]:
    """The objective and texts for it."""
    collator = COLLATORS[who]
    if goal in ("sequences", "words"):
        return Alignment(collator, VARIANCES, goal == "words"), texts(words=True)
    if goal == "distillation":
        return Distillation(collator, stored(texts(spans=2)), 0.7), texts(spans=2)
    return Classification(collator), texts(spans=2 if goal == "choice" else 0)


def loss_of(objective: Any, model: Any, rows: Sequence[TextExample], packed: bool) -> torch.Tensor:
    model.llm.set_attn_implementation(PACKED if packed else "sdpa")
    loss, count = objective.loss(model, objective.collate(rows, packed))
    assert float(count) == len(rows)
    return loss


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("who", COLLATORS)
def test_packs_and_padded_rows_give_the_same(
    models: Mapping[tuple[str, str, bool], Any], who: str, goal: str, bidirectional: bool
):
    objective, rows = case(who, goal)
    model = models[who, goal, bidirectional]
    with torch.no_grad():
        vectors = []
        for packed in (False, True):
            model.llm.set_attn_implementation(PACKED if packed else "sdpa")
            batch = objective.collate(rows, packed)
            assert ("cu_seq_lens_q" in batch["inputs"]) is packed
            vectors.append(pooled(model.hidden_states(**batch["inputs"]), batch))
        torch.testing.assert_close(vectors[1], vectors[0], atol=2e-5, rtol=1e-4)
        whole = loss_of(objective, model, rows, packed=False)
        for packed in (False, True):
            torch.testing.assert_close(loss_of(objective, model, rows, packed), whole, atol=1e-4, rtol=1e-5)
            cut = sum(loss_of(objective, model, rows[a:b], packed) for a, b in ((0, 1), (1, 3), (3, 7)))
            torch.testing.assert_close(cut, whole, atol=1e-4, rtol=1e-5)
            scores = [objective.score(model, objective.collate(its, packed)) for its in (rows[:2], rows[2:], rows)]
            torch.testing.assert_close(scores[0][0] + scores[1][0], scores[2][0], atol=1e-4, rtol=1e-5)
            assert [float(count) for _, count in scores] == [2, 5, 7]


@pytest.mark.parametrize("who", COLLATORS)
def test_gradients_of_packs_and_padded_rows(models: Mapping[tuple[str, str, bool], Any], who: str):
    objective, rows = case(who, "words")
    model = models[who, "words", False]
    found = []
    for packed in (False, True):
        model.zero_grad()
        loss_of(objective, model, rows, packed).backward()
        found.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    model.zero_grad()
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-4, rtol=1e-3)


def test_an_encoder_alone_is_never_packed(encoder_dir: Path):
    model = tiny_stack(encoder_dir, None, StackForSequenceClassification)
    objective, rows = Classification(Collator({"encoder": PAD})), texts()
    ours, theirs = (objective.loss(model, objective.collate(rows, packed))[0] for packed in (True, False))
    assert torch.equal(ours, theirs)


# Alignment


def test_the_loss_by_hand(models: Mapping[tuple[str, str, bool], Any], llm_dir: Path):
    """A third of the sequences' error and two of the words', each text's words averaged, as shares of variances."""
    model, rows = models["stack", "words", False], texts(words=True)
    plain = AutoModel.from_pretrained(llm_dir)
    sequences, words = [], []
    with torch.no_grad():
        for row in rows:
            student = model.hidden_states(torch.tensor([row.input_ids]))[0]
            teacher = plain(torch.tensor([row.llm_ids])).last_hidden_state[0]
            errors = [
                float((student[a:b].mean(0) - teacher[c:d].mean(0)).square().mean())
                for (a, b), (c, d) in zip(row.spans, row.llm_spans, strict=True)
            ]
            sequences.append(errors[0])
            words.append(sum(errors[1:]) / max(1, len(errors) - 1))
        both, alone = (
            float(loss_of(Alignment(COLLATORS["stack"], VARIANCES, given), model, rows, False))
            for given in (True, False)
        )
    assert alone == pytest.approx(sum(sequences) / 0.5, rel=1e-4)
    assert both == pytest.approx(sum(sequences) / 0.5 / 3 + sum(words) / 2.0 * 2 / 3, rel=1e-4)
    assert [len(row.spans) for row in rows] == [2, 3, 1, 3, 2, 3, 1]  # some without a word
    alone = Alignment(COLLATORS["stack"], VARIANCES, False).collate(rows, False)
    assert len(alone["sizes"]) == len(alone["teacher"]["sizes"]) == len(rows)  # none is pooled for nothing


@pytest.mark.parametrize("packed", [False, True])
def test_the_teacher_is_the_plain_llm_and_learns_nothing(
    models: Mapping[tuple[str, str, bool], Any], llm_dir: Path, packed: bool, monkeypatch: pytest.MonkeyPatch
):
    model, rows = models["stack", "words", False], texts(words=True)
    objective = Alignment(COLLATORS["stack"], VARIANCES, True)
    seen: list[torch.Tensor] = []
    llm_hidden_states = model.llm_hidden_states

    def noted(**inputs: Any) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        states: torch.Tensor = llm_hidden_states(**inputs)
        seen.append(states)
        return states

    monkeypatch.setattr(model, "llm_hidden_states", noted)
    model.train()
    batch = objective.collate(rows, packed)
    loss_of(objective, model, rows, packed)
    [taught] = seen
    assert not taught.requires_grad
    plain = AutoModel.from_pretrained(llm_dir)
    expected = [plain(torch.tensor([row.llm_ids])).last_hidden_state[0] for row in rows]
    whole = pooled(taught, batch["teacher"]).index_select(0, batch["sequences"])
    torch.testing.assert_close(whole, torch.stack([states.mean(0) for states in expected]), atol=2e-5, rtol=1e-4)
    student = pooled(model.hidden_states(**batch["inputs"]), batch).index_select(0, batch["sequences"])
    assert not torch.allclose(student, whole, atol=0.1)


def test_the_teacher_has_no_dropout(llm_dir: Path, encoder_dir: Path, tmp_path: Path):
    """Some LLMs' configs have dropout, and the student would learn its noise."""
    base = LlamaModel.from_pretrained(llm_dir)
    config = LlamaConfig.from_pretrained(llm_dir, attention_dropout=0.5)
    dropping = LlamaModel(config)
    dropping.load_state_dict(base.state_dict())
    dropping.save_pretrained(tmp_path)
    model = tiny_stack(encoder_dir, tmp_path).train()
    states = model.llm_hidden_states(torch.tensor([[10, 20, 30]]))
    assert not torch.equal(states, model.llm_hidden_states(torch.tensor([[10, 20, 30]])))
    objective, rows = case("stack", "sequences")
    seen = []
    llm_hidden_states = model.llm_hidden_states
    model.llm_hidden_states = lambda **inputs: seen.append(llm_hidden_states(**inputs)) or seen[-1]
    for _ in range(2):
        loss_of(objective, model, rows, packed=False)
    assert torch.equal(*seen)
    assert all(module.training for module in model.llm.modules())


class Echo(torch.nn.Module):
    """An encoder whose states are another model's input embeddings."""

    def __init__(self, embeddings: torch.nn.Module) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.config = None

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return type("Output", (), {"last_hidden_state": self.embeddings(input_ids)})


@pytest.mark.parametrize("packed", [False, True])
def test_a_student_that_reads_what_the_teacher_reads_has_no_loss(encoder_dir: Path, llm_dir: Path, packed: bool):
    """New adapters change nothing."""
    model = tiny_stack(encoder_dir, llm_dir)
    model.encoder = Echo(model.llm.get_input_embeddings())
    model.bridge.up_proj = torch.nn.Identity()
    model.bridge.mean, model.bridge.std, model.bridge.gain = torch.zeros(64), torch.ones(64), torch.ones(1)
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            weight.data.zero_()
    rows = [
        TextExample(row.id, row.llm_ids, row.llm_spans, llm_ids=row.llm_ids, llm_spans=row.llm_spans)
        for row in texts(words=True)
    ]
    objective = Alignment(COLLATORS["stack"], VARIANCES, True)
    assert float(loss_of(objective, model, rows, packed)) < 1e-8
    score, _ = objective.score(model, objective.collate(rows, packed))
    assert -1e-8 < float(score) <= 0


def test_one_vector_for_all_texts_explains_nothing(encoder_dir: Path, llm_dir: Path, monkeypatch: pytest.MonkeyPatch):
    model = tiny_stack(encoder_dir, llm_dir)
    rows = texts(60, words=True)
    batch = Alignment(COLLATORS["stack"], (1.0, 1.0), False).collate(rows, False)
    with torch.no_grad():
        plain = AutoModel.from_pretrained(llm_dir)
        taught = pooled(plain(**batch["teacher"]["inputs"]).last_hidden_state, batch["teacher"])
    objective = Alignment(COLLATORS["stack"], (float(taught.var(0).mean()), 1.0), False)
    mean = taught.mean(0)
    monkeypatch.setattr(model, "hidden_states", lambda input_ids, **_: mean.expand(*input_ids.shape, -1))
    loss, count = objective.loss(model, batch)
    assert float(loss / count) == pytest.approx(1, abs=0.02)
    score, count = objective.score(model, batch)
    assert float(score / count) == pytest.approx(-1, abs=0.02)


# Tasks


def test_vectors_are_joined_by_id():
    """In whatever order the vectors are stored."""

    class Segmented:
        def encode(self, rows: Any, _limit: int, offsets: bool) -> list[Any]:
            from sdx.stacking.sequences import Encoded

            return [Encoded([5, 6], [(0, 1), (1, 2)], [[], []]) for _ in rows]

    rows = [{"id": f"r{n}", "segments": ["a", "b"], "choices": 0, "label": 0} for n in range(5)]
    learnt = {example_id("train", f"r{n}"): torch.full((1, 64), float(n)) for n in (3, 0, 4, 2, 1)}
    learnt |= {example_id("validation", f"r{n}"): torch.full((1, 64), 10.0 + n) for n in range(5)}  # of the same ids
    found = text_examples(rows, Segmented(), 8, "train")  # type: ignore[arg-type]
    objective = Distillation(COLLATORS["llm"], learnt, 1.0)
    assert objective.collate([found[4], found[1]], False)["teacher"][:, 0, 0].tolist() == [4, 1]
    held = text_examples(rows, Segmented(), 8, "validation")  # type: ignore[arg-type]
    assert Probe(COLLATORS["llm"], learnt).collate([held[2]], False)["vectors"][0, 0, 0] == 12
    with pytest.raises(KeyError):
        objective.collate(text_examples([{**rows[0], "id": "unknown"}], Segmented(), 8, "train"), False)  # type: ignore[arg-type]
    [choices] = text_examples([{**rows[0], "choices": 1}], Segmented(), 8)  # type: ignore[arg-type]
    assert choices.spans == [(1, 2)]


def test_distillation_is_the_squared_error_as_a_share_of_the_variance(models: Mapping[tuple[str, str, bool], Any]):
    model, rows = models["stack", "choice", False], texts(spans=2)
    taught = stored(rows)
    objective = Distillation(COLLATORS["stack"], taught, 0.7)
    with torch.no_grad():
        expected = 0.0
        for row in rows:
            states = model.hidden_states(torch.tensor([row.input_ids]))[0]
            vectors = torch.stack([states[a:b].mean(0) for a, b in row.spans])
            expected += float((vectors - taught[row.id]).square().mean()) / 0.7
        assert float(loss_of(objective, model, rows, False)) == pytest.approx(expected, rel=1e-4)
        learnt = objective.vectors(model, objective.collate(rows, False))
    echo = Distillation(COLLATORS["stack"], {row.id: its for row, its in zip(rows, learnt, strict=True)}, 0.7)
    assert float(loss_of(echo, model, rows, False)) < 1e-8


def test_no_label_decides_the_distillation(models: Mapping[tuple[str, str, bool], Any]):
    model, rows = models["stack", "choice", False], texts(spans=2)
    objective = Distillation(COLLATORS["stack"], stored(rows), 0.7)
    other = [TextExample(row.id, row.input_ids, row.spans, label=1 - row.label) for row in rows]
    ours, theirs = (float(loss_of(objective, model, its, False)) for its in (rows, other))
    assert ours == theirs
    ours, theirs = (float(objective.score(model, objective.collate(its, False))[0]) for its in (rows, other))
    assert ours + theirs == len(rows)


@pytest.mark.parametrize("goal", ["classification", "choice"])
def test_a_higher_score_is_more_right_answers(models: Mapping[tuple[str, str, bool], Any], goal: str):
    model = models["stack", goal, False]
    objective, rows = case("stack", goal)
    with torch.no_grad():
        logits = model.classify(objective.vectors(model, objective.collate(rows, False)))
        for wrong in (0, 3, 7):
            labels = logits.argmax(-1)
            labels[:wrong] = logits.argmin(-1)[:wrong]
            labelled = [
                TextExample(row.id, row.input_ids, row.spans, label=int(label))
                for row, label in zip(rows, labels, strict=True)
            ]
            score, count = objective.score(model, objective.collate(labelled, False))
            assert (float(score), float(count)) == (7 - wrong, 7)


@pytest.mark.parametrize("goal", ["classification", "choice"])
def test_a_probe_reads_stored_vectors(models: Mapping[tuple[str, str, bool], Any], goal: str):
    model = models["stack", goal, False]
    _, rows = case("stack", goal)
    objective = Classification(COLLATORS["stack"])
    with torch.no_grad():
        vectors = objective.vectors(model, objective.collate(rows, False))
    probe = Probe(COLLATORS["stack"], {row.id: its.view(-1, 64) for row, its in zip(rows, vectors, strict=True)})
    bare = [TextExample(row.id, [], [], label=row.label) for row in rows]
    assert probe.tokens(bare[0]) == 1
    ours, _ = probe.loss(model, probe.collate(bare, packed=True))
    theirs = loss_of(objective, model, rows, packed=False)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
