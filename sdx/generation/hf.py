"""Greedy completions from a Hugging Face model in this process.

The loop is our own because `generate` keeps finished rows in the batch until the longest answer ends. Here
they leave it. SmolLM2 in batches of 32 on two CPU cores writes 345 tokens a second instead of 265, and 150 instead
of 101 where most answers are short and a few run to the limit; the tokens are the same.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdx.config import InputError, Precision, TemplateKind

KEEP = 0.75
"""Finished rows leave the batch when at most this share of it is unfinished: leaving copies the cache."""


@dataclass(frozen=True)
class Completion:
    text: str
    """Without special tokens and surrounding space."""
    tokens: int
    """Generated, the end of turn counted."""
    finished: bool
    """The model ended it, not the limit."""


class HFGenerator:
    """Completes instructions, written with the tokenizer's template.

    Args:
        batch_size: prompts at once.
        precision: of the forward pass. bf16 is twice as fast as fp32 on a CPU that has its instructions.
    """

    def __init__(self, batch_size: int, precision: Precision) -> None:
        if batch_size < 1:
            raise InputError(f"generator.batch_size={batch_size} is too small; give 1 or more")
        self.batch_size = batch_size
        self.precision = precision
        self._source: tuple[Path, TemplateKind] | None = None
        self._loaded: tuple[Any, Any, set[int]] | None = None

    def load(self, model_dir: Path, template: TemplateKind) -> None:
        """Says which model completes from now on. It is loaded when the first prompt needs it."""
        if self._source != (model_dir, template):
            self.unload()
            self._source = (model_dir, template)

    def unload(self) -> None:
        """Frees the model's memory."""
        if self._loaded is None:
            return
        import torch

        self._loaded = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def complete(self, instructions: list[str], max_new_tokens: int) -> list[Completion]:
        """One batch of completions, in the order of the instructions.

        Raises:
            InputError: a prompt leaves no room for the answer in the model's context, or the batch no memory.
        """
        import torch

        from sdx.models.template import prompt_ids

        model, tokenizer, stops = self._ready()
        prompts = [prompt_ids(tokenizer, instruction) for instruction in instructions]
        longest = max(map(len, prompts))
        context = getattr(model.config, "max_position_embeddings", None)
        if context and longest + max_new_tokens > context:
            raise InputError(
                f"scale.max_new_tokens={max_new_tokens} after a prompt of {longest} tokens exceeds the "
                f"model's context of {context}; lower it or drop the longest prompts"
            )
        try:
            answers = _greedy(model, prompts, stops, tokenizer.pad_token_id, max_new_tokens)
        except torch.OutOfMemoryError:
            raise InputError(
                f"generator.batch_size={self.batch_size} does not fit in the GPU's memory; give a smaller one"
            ) from None
        return [_completion(tokenizer, answer, stops) for answer in answers]

    def _ready(self) -> tuple[Any, Any, set[int]]:
        if self._loaded is None:
            from sdx.models.backbone import load_model, load_tokenizer
            from sdx.models.template import stop_ids

            assert self._source, "load() comes first"
            model_dir, template = self._source
            tokenizer = load_tokenizer(model_dir, template)
            model = load_model(model_dir, self.precision)
            named = model.generation_config.eos_token_id if model.generation_config else None
            also = named if isinstance(named, list) else [named]
            stops = {*stop_ids(tokenizer), *(id_ for id_ in also if id_ is not None)}
            self._loaded = (model, tokenizer, stops)
        return self._loaded


def _completion(tokenizer: Any, answer: list[int], stops: set[int]) -> Completion:
    finished = answer[-1] in stops
    text = tokenizer.decode(answer, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if not finished:
        text = text.rstrip("\ufffd")  # a character of which the limit cut off the last bytes
    return Completion(text.strip(), len(answer), finished)


def _greedy(model: Any, prompts: list[list[int]], stops: set[int], pad: int, limit: int) -> list[list[int]]:
    """At most `limit` tokens for each prompt, a stop token included, by argmax over a key-value cache."""
    import torch

    length = max(map(len, prompts))
    padded = [[pad] * (length - len(prompt)) + prompt for prompt in prompts]
    ids = torch.tensor(padded, device=model.device)  # [batch, seq]
    sizes = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
    mask = (torch.arange(length, device=model.device) >= length - sizes[:, None]).long()  # [batch, seq]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    answers: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))  # place in the batch -> prompt
    cache = None
    with torch.inference_mode():
        for _ in range(limit):
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            chosen = output.logits[:, -1].argmax(-1)  # [batch]
            for row, token in zip(rows, chosen.tolist(), strict=True):
                if not answers[row] or answers[row][-1] not in stops:
                    answers[row].append(token)
            open_ = [place for place, row in enumerate(rows) if answers[row][-1] not in stops]
            if not open_:
                break
            ids, positions = chosen[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            if len(open_) <= KEEP * len(rows):
                kept = torch.tensor(open_, device=model.device)
                cache.reorder_cache(kept)
                ids, mask, positions = ids[kept], mask[kept], positions[kept]
                rows = [rows[place] for place in open_]
    return answers
