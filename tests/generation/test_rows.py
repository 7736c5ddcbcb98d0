"""Completions: the tokens of plain greedy decoding, and identical after a resume."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sdx import InputError
from sdx.config import Precision, TemplateKind
from sdx.generation.base import Completion, _line_ends
from sdx.generation.decode import decode
from sdx.generation.hf import HFGenerator
from sdx.models.backbone import load_model, load_tokenizer
from sdx.models.batches import cut
from sdx.models.template import prompt_ids
from sdx.store.files import read_rows
from tests.kit.generated import generate_rows
from tests.kit.tiny import tiny_gemma, tiny_model, tiny_tokenizer

PROMPTS = [
    "How many legs does a dog have?",
    "a",
    "ประเทศไทย " * 4,
    "Which gas do plants take in? Answer at length, and give your reasons.",
    "Quantas patas tem um cão?",
    "The quick brown fox",
    "Translate the sentence into Portuguese: the dog is lazy.",
]
ROWS = [{"id": f"r{number}", "prompt": prompt} for number, prompt in enumerate(PROMPTS)]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "chat")


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass
class Fake:
    """Answers with the prompt's first word, and dies before call number `dies`."""

    batch_size: int = 2
    dies: int = 99
    calls: list[list[str]] = field(default_factory=list)
    precision = Precision.fp32
    engine = None

    def load(self, model_dir: Path, template: TemplateKind) -> None:
        assert self.dies, "nothing is left to do"

    def batches(self, instructions: list[str], max_new_tokens: int) -> list[slice]:
        return list(cut([0.0] * len(instructions), 1.0, self.batch_size))

    def prompt(self, instruction: str) -> str:
        return instruction

    def complete(self, instructions: list[str], max_new_tokens: int, **_: Any) -> list[Completion]:
        if len(self.calls) == self.dies:
            raise KeyboardInterrupt
        self.calls.append(instructions)
        return [Completion(text.split()[0], len(text.split()), len(text) < 60) for text in instructions]


class Counting(HFGenerator):
    """Remembers which prompts it completed."""

    dies = 99

    def complete(self, instructions: list[str], max_new_tokens: int, **_: Any) -> list[Completion]:
        self.seen = getattr(self, "seen", [])
        if len(self.seen) >= self.dies:
            raise KeyboardInterrupt
        self.seen += instructions
        return super().complete(instructions, max_new_tokens)


def test_rows_come_out_in_their_order_and_batches_longest_first(tmp_path: Path):
    fake = Fake()
    counts = generate_rows(fake, tmp_path, ROWS, tmp_path / "out", 8)
    rows = read_rows(tmp_path / "out" / "rows.jsonl")
    assert [row["id"] for row in rows] == [row["id"] for row in ROWS]
    assert list(rows[0]) == ["id", "prompt", "text", "tokens", "finished"]
    assert rows[0] == {**ROWS[0], "text": "How", "tokens": 7, "finished": True}
    sizes = [len(text.encode()) for call in fake.calls for text in call]
    assert sizes == sorted(sizes, reverse=True)
    assert [len(call) for call in fake.calls] == [2, 2, 2, 1]
    assert counts == {"rows": 7, "tokens": sum(row["tokens"] for row in rows), "cut": 1, "too_long": 0}


def test_a_log_with_all_rows_is_published_without_the_model(tmp_path: Path):
    out = tmp_path / "out"
    first = generate_rows(Fake(), tmp_path, ROWS, out, 8)
    published = (out / "rows.jsonl").read_bytes()
    assert generate_rows(Fake(dies=0), tmp_path, ROWS, out, 8) == first
    (out / "rows.jsonl").unlink()
    assert generate_rows(Fake(dies=0), tmp_path, ROWS, out, 8) == first
    assert (out / "rows.jsonl").read_bytes() == published


def test_no_rows_need_no_model(tmp_path: Path):
    assert generate_rows(Fake(dies=0), tmp_path, [], tmp_path / "out", 8)["rows"] == 0


@pytest.mark.parametrize("torn", [False, True])
def test_resume_equals_an_undisturbed_run(model_dir: Path, tmp_path: Path, torn: bool):
    def generator() -> Counting:
        return Counting(batch_size=2, precision=Precision.bf16)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    generate_rows(generator(), model_dir, ROWS, whole, 12)
    first, second = generator(), generator()
    first.dies = 4
    with pytest.raises(KeyboardInterrupt):
        generate_rows(first, model_dir, ROWS, cut, 12)
    [log] = cut.glob("rows*.log")
    if torn:  # the kill hit the last batch
        log.write_bytes(log.read_bytes()[:-7])
    generate_rows(second, model_dir, ROWS, cut, 12)
    assert (cut / "rows.jsonl").read_bytes() == (whole / "rows.jsonl").read_bytes()
    lost = first.seen[2:] if torn else []
    assert sorted(first.seen + second.seen) == sorted(PROMPTS + lost)


def test_another_model_replaces_the_first(model_dir: Path, tmp_path: Path):
    generator = HFGenerator(4, Precision.fp32)
    generator.load(model_dir, TemplateKind.auto)
    before = generator.complete(PROMPTS[:2], 8)
    generator.load(tiny_model(tmp_path, seed=1), TemplateKind.auto)
    assert generator.complete(PROMPTS[:2], 8) != before
    generator.load(model_dir, TemplateKind.auto)
    assert generator.complete(PROMPTS[:2], 8) == before


@pytest.mark.parametrize("make", [tiny_model, tiny_gemma])
def test_tokens_are_those_of_generate(make: Any, tmp_path: Path):
    """Rows end at different steps, so that the batch shrinks several times."""
    import torch

    path = make(tmp_path)
    tokenizer, model = load_tokenizer(path, TemplateKind.auto), load_model(path, Precision.fp32)
    prompts = [prompt_ids(tokenizer, prompt) for prompt in PROMPTS]
    limit, stops = 40, set(range(0, 400, 16))
    answers = decode(model, prompts, lambda answer: answer[-1] in stops, tokenizer.pad_token_id, [limit] * len(prompts))
    assert len({len(answer) for answer in answers}) > 3
    batch = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
    with torch.inference_mode():
        output = model.generate(
            **batch,
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=sorted(stops),
            pad_token_id=tokenizer.pad_token_id,
        )
    for answer, row in zip(answers, output[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
        end = next((place + 1 for place, token in enumerate(row) if token in stops), limit)
        assert answer == row[:end]


def test_completion_says_whether_it_ended_by_itself(model_dir: Path, monkeypatch: pytest.MonkeyPatch):
    tokenizer = load_tokenizer(model_dir, TemplateKind.auto)
    ended = tokenizer(" four <|im_end|>").input_ids
    in_a_character = tokenizer("é", add_special_tokens=False).input_ids
    halves = [
        *tokenizer("four").input_ids,
        *tokenizer.convert_tokens_to_ids(["à"]),
    ]  # the first byte of a Thai letter
    assert in_a_character
    monkeypatch.setattr("sdx.generation.hf.decode", lambda *_: [ended, halves])
    generator = HFGenerator(2, Precision.fp32)
    generator.load(model_dir, TemplateKind.auto)
    first, second = generator.complete(["a", "b"], 8)
    assert first == Completion("four", len(ended), True)
    assert second == Completion("four", len(halves), False)


def test_a_base_model_s_answer_ends_where_it_begins_another_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    generator = HFGenerator(2, Precision.fp32)
    generator.load(tiny_model(tmp_path, chat=False), TemplateKind.auto)
    tokenizer = generator._ready().tokenizer
    ids = tokenizer("A watershed.\n## Not this\n\n### Answer:\nA watershed.", add_special_tokens=False).input_ids

    def written(model, prompts, ended, *_):
        return [next(ids[:end] for end in range(1, len(ids)) if ended(ids[:end])) for _ in prompts]

    monkeypatch.setattr("sdx.generation.hf.decode", written)
    [answer] = generator.complete(["What is it?"], 100)
    assert (answer.text, answer.finished) == ("A watershed.\n## Not this", True)


def test_a_line_ends_at_a_line_feed_and_at_no_maltese_letter():
    class Vocabulary:
        pieces = ("a", "\n", "\n\n", "<0x0A>", "▁Ċina", "Ċ")

        def get_vocab(self) -> dict[str, int]:
            return {piece: id_ for id_, piece in enumerate(self.pieces)}

        def convert_tokens_to_string(self, tokens: list[str]) -> str:
            return "".join(tokens).replace("<0x0A>", "\n").replace("▁", " ")

    assert _line_ends(Vocabulary()) == {1, 2, 3}
    tokenizer = tiny_tokenizer()  # byte-level
    assert set(tokenizer("\n").input_ids) <= _line_ends(tokenizer)


def test_errors_name_the_key(model_dir: Path, tmp_path: Path):
    generator = HFGenerator(2, Precision.fp32)
    prompt = "The quick brown fox jumps over the lazy dog."
    with pytest.raises(InputError, match=r"scale\.max_new_tokens=1010 leaves no room for any of the 1 prompts"):
        generate_rows(generator, model_dir, [{"id": "a", "prompt": prompt}], tmp_path / "out", 1010)


def test_a_prompt_that_does_not_fit_is_passed_over(model_dir: Path, tmp_path: Path):
    generator = HFGenerator(2, Precision.fp32)
    rows = [{"id": "long", "prompt": "word " * 2000}, {"id": "short", "prompt": "The quick brown fox"}]
    counts = generate_rows(generator, model_dir, rows, tmp_path / "out", 8)
    assert (counts["rows"], counts["too_long"]) == (2, 1)
    long, short = read_rows(tmp_path / "out" / "rows.jsonl")
    assert (long["text"], long["finished"]) == ("", False)
    assert short["tokens"] > 0
