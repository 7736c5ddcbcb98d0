"""The states of a shared beginning: the answers equal those without it, whatever the batch and earlier calls."""

from pathlib import Path
from typing import Any

import pytest

from sdx.config import Precision, TemplateKind
from sdx.generation.decode import decode
from sdx.generation.hf import HFGenerator
from sdx.generation.prefix import MIN_TOKENS, Prefix, common, reusable
from sdx.models import residency
from sdx.models.backbone import load_model, load_tokenizer
from tests.kit.prompts import SHOTS, TEXTS
from tests.kit.tiny import tiny_gemma, tiny_model

pytestmark = pytest.mark.whole

FEWER = ["".join(SHOTS[:4]) + "English: The fox and the dog, " + "and the dog " * 9 + "\nThai:"]


@pytest.fixture(scope="module", params=[tiny_model, tiny_gemma], ids=["llama", "gemma, window of 8"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    path = request.param(tmp_path_factory.mktemp("models"))
    return path, load_model(path, Precision.fp32), load_tokenizer(path, TemplateKind.auto)


class Fed:
    """Notes the shape of each forward pass's tokens, `[batch, seq]`."""

    def __init__(self, model: Any) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self._hook = model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, model: Any, arguments: Any, named: Any) -> None:
        self.shapes.append(tuple(named["input_ids"].shape))

    def __enter__(self) -> "Fed":
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[1:2], TEXTS + FEWER], ids=["batch", "alone", "fewer shots"])
def test_tokens_are_those_without_a_prefix(loaded: tuple[Path, Any, Any], texts: list[str]):
    """Rows differ in length and end at different steps, so that the batch shrinks."""
    _, model, tokenizer = loaded
    prompts = [tokenizer(text).input_ids for text in texts]
    stops = set(range(0, 400, 16))
    limits = [30 + 3 * row for row in range(len(prompts))]

    def ended(answer: list[int]) -> bool:
        return answer[-1] in stops

    with Fed(model) as plain:
        expected = decode(model, prompts, ended, tokenizer.pad_token_id, limits)
    prefix = Prefix(model, tokenizer("".join(SHOTS)).input_ids)
    known = prefix.shared_by(prompts)
    assert known >= len(tokenizer("".join(SHOTS[: 4 if texts[-1] in FEWER else 6])).input_ids) - 1
    with Fed(model) as reused:
        assert decode(model, prompts, ended, tokenizer.pad_token_id, limits, prefix) == expected
    longest = max(map(len, prompts))
    assert plain.shapes[0] == (len(prompts), longest)
    assert reused.shapes[:2] == [(1, len(prefix.ids)), (len(prompts), longest - known)]
    assert reused.shapes[2:] == plain.shapes[1:]
    if len(prompts) > 1:
        assert len({rows for rows, _ in plain.shapes}) > 2  # rows left the batch
    with Fed(model) as again:
        assert decode(model, prompts, ended, tokenizer.pad_token_id, limits, prefix) == expected
    assert again.shapes == reused.shapes[1:]  # the prefix is not computed twice


def test_states_stand_where_the_padded_batch_has_them(loaded: tuple[Path, Any, Any]):
    import torch
    from transformers import DynamicCache

    _, model, tokenizer = loaded
    prompts = [tokenizer(text).input_ids for text in TEXTS]
    longest = max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    batch = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
    positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    prefix = Prefix(model, tokenizer("".join(SHOTS)).input_ids)
    known = prefix.shared_by(prompts)
    with torch.inference_mode():
        ordinary = model(**batch, position_ids=positions, past_key_values=DynamicCache()).past_key_values
        ours = prefix.cache(known, padding)
    assert max(padding) > 0
    for mine, theirs in zip(ours.layers, ordinary.layers, strict=True):
        assert mine.keys.shape == theirs.keys[:, :, :known].shape
        for row, left in enumerate(padding):
            assert not mine.keys[row, :, :left].any()
            assert not mine.values[row, :, :left].any()
            torch.testing.assert_close(mine.keys[row, :, left:], theirs.keys[row, :, left:known])
            torch.testing.assert_close(mine.values[row, :, left:], theirs.values[row, :, left:known])


@pytest.mark.parametrize("precision", [Precision.bf16, Precision.fp32])
def test_answers_do_not_depend_on_what_was_completed_before(loaded: tuple[Path, Any, Any], precision: Precision):
    """As after a kill, when a new process begins with the second batch."""
    path, *_ = loaded
    beginning = "".join(SHOTS)

    def generator() -> HFGenerator:
        made = HFGenerator(8, precision)
        made.load(path, TemplateKind.auto)
        return made

    one, limits = generator(), [20] * len(TEXTS)
    one.complete_lines(TEXTS[:2] + FEWER, [9] * 3, beginning)
    one.complete_lines(TEXTS[3:], [9] * 3, beginning)
    lines, answers = one.complete_lines(TEXTS, limits, beginning), one.complete(TEXTS, 20, beginning)
    residency.release()
    assert lines == generator().complete_lines(TEXTS, limits, beginning)
    assert answers == generator().complete(TEXTS, 20, beginning)
    if precision is Precision.fp32:
        assert lines == generator().complete_lines(TEXTS, limits)
        assert answers == generator().complete(TEXTS, 20)


def test_the_states_are_kept_until_the_text_or_the_model_changes(loaded: tuple[Path, Any, Any], tmp_path: Path):
    path, *_ = loaded
    generator = HFGenerator(8, Precision.fp32)
    generator.load(path, TemplateKind.auto)
    beginning = "".join(SHOTS)
    with Fed(generator._ready().model) as fed:
        for _ in range(2):
            generator.complete(TEXTS[:3], 1, beginning)
            generator.load(path, TemplateKind.auto)
        assert [rows for rows, _ in fed.shapes] == [1, 3, 3]
        fed.shapes.clear()
        generator.complete([text.replace("dog", "cat") for text in TEXTS[:3]], 1, beginning.replace("dog", "cat"))
        generator.complete(TEXTS[:3], 1, beginning)
        assert [rows for rows, _ in fed.shapes] == [1, 3, 1, 3]
        fed.shapes.clear()
        generator.complete(TEXTS[:3], 1)
        assert [rows for rows, _ in fed.shapes] == [3]
        assert generator._ready().prefix is None  # and takes no memory
    generator.complete(TEXTS[:3], 8, beginning)
    generator.load(tiny_model(tmp_path / "other", seed=1), TemplateKind.auto)
    written = generator.complete(TEXTS, 8, beginning)
    residency.release()
    assert written == generator.complete(TEXTS, 8, beginning)


def test_a_batch_with_little_in_common_shares_nothing():
    prefix = Prefix(None, list(range(100)))
    assert prefix.shared_by([[*range(100), 7], [*range(100), 8, 9]]) == 100
    assert prefix.shared_by([[*range(60), 7, 7], [*range(100), 8]]) == 60  # nested
    assert prefix.shared_by([list(range(50))]) == 49  # a token is left to feed
    assert prefix.shared_by([[*range(MIN_TOKENS), 777]]) == MIN_TOKENS
    assert prefix.shared_by([[*range(MIN_TOKENS - 1), 777]]) == 0
    assert prefix.shared_by([[*range(40), *[7] * 40], [*range(40), 7]]) == 40  # 39 places of padding
    assert prefix.shared_by([[*range(40), *[7] * 42], [*range(40), 7]]) == 0  # 41: one would be fed
    assert common([1, 2, 3], [1, 2, 4, 5]) == [1, 2]
    assert common([1], []) == []


def test_a_beginning_ends_where_what_follows_cannot_change_its_tokens(loaded: tuple[Path, Any, Any]):
    """`The quick` has other tokens than `The qu` followed by `ick`."""
    path, _, tokenizer = loaded
    generator = HFGenerator(8, Precision.fp32)
    generator.load(path, TemplateKind.auto)
    shared = "".join(SHOTS) + "English: The qu"
    generator.complete_lines([f"{shared}ick brown fox", f"{shared}antas"], [4, 4], shared)
    assert generator._ready().prefix
    for rest in ("ick brown fox", "antas", "a", "1"):
        ids = tokenizer(shared + rest).input_ids
        assert len(common(generator._ready().prefix.ids, ids)) >= len(generator._ready().prefix.ids) - 2
    known = generator._ready().prefix.ids
    residency.release()
    again = HFGenerator(8, Precision.fp32)
    again.load(path, TemplateKind.auto)
    again.complete_lines([f"{shared}x"], [4], shared)
    assert again._ready().prefix
    assert again._ready().prefix.ids == known  # of the text alone, not of the batch


def test_only_plain_attention_is_reused():
    import torch
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        MambaConfig,
        MambaForCausalLM,
        Qwen3NextConfig,
        Qwen3NextForCausalLM,
        T5Config,
        T5ForConditionalGeneration,
    )

    small = {"hidden_size": 32, "num_hidden_layers": 4, "vocab_size": 40, "intermediate_size": 32}
    longrope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [2.0] * 4,
        "original_max_position_embeddings": 64,
        "factor": 2.0,
    }
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    with torch.device("meta"):
        assert reusable(LlamaForCausalLM(LlamaConfig(**small, **heads)))
        assert not reusable(LlamaForCausalLM(LlamaConfig(**small, **heads, rope_parameters=longrope)))
        assert not reusable(MambaForCausalLM(MambaConfig(**small)))
        hybrid = Qwen3NextConfig(**small, **heads, num_experts=2, moe_intermediate_size=8)
        assert not reusable(Qwen3NextForCausalLM(hybrid))
        assert not reusable(T5ForConditionalGeneration(T5Config(d_model=32, d_ff=32, num_layers=1, vocab_size=40)))


@pytest.mark.parametrize("end", [" ### ", "###", "\n\n"])
def test_a_line_also_ends_at_what_parts_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str):
    generator = HFGenerator(2, Precision.fp32)
    generator.load(tiny_model(tmp_path, chat=False), TemplateKind.auto)
    tokenizer = generator._ready().tokenizer
    ids = tokenizer(f" A dog ## one.{end}English: The", add_special_tokens=False).input_ids

    def written(model, prompts, ended, *_):
        return [next(ids[:size] for size in range(1, len(ids)) if ended(ids[:size])) for _ in prompts]

    monkeypatch.setattr("sdx.generation.hf.decode", written)
    [answer] = generator.complete_lines(["What is it?"], [100], end=end)
    assert (answer.text, answer.finished) == ("A dog ## one.", True)
    assert answer.tokens < len(ids) - 3
