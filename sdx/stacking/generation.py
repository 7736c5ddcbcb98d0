"""A stack that writes: the encoder's states are a soft prompt, and the LLM's own tokens follow them. Ours.

    bridge(encoder(ids)) "\\nAnswer:" and then what the LLM writes, token after token

The text is not there a second time in the LLM's own tokens: behind the soft prompt they gained nothing (of MMLU's
subjects, in points with 95 % intervals: Thai -2.0 [-7.0, 3.0], Portuguese -5.5 [-11.5, 0.0], Hindi -6.0 [-11.0, -1.5])
and doubled what is read. Without an encoder the LLM reads the text in its own tokens alone.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.modeling_outputs import CausalLMOutput

from sdx.models.loading import padded, pretrained
from sdx.stacking.batches import in_batches
from sdx.stacking.model import LONGEST_TOKENS, SHORTER, StackConfig, StackModel

CUE = "\nAnswer:"
"""What the LLM reads between a text and what it writes."""


class StackForCausalLM(StackModel):
    """The LLM's own head on its states. It is frozen, and not stored: it is the LLM's."""

    def load_llm(self, options: Mapping[str, Any]) -> Any:
        writer = pretrained(AutoModelForCausalLM, self.directories["llm"], **options)
        self.lm_head = writer.get_output_embeddings().requires_grad_(False)
        writer.generation_config = GenerationConfig()  # its own may have penalties
        self.__dict__["writer"] = writer  # no module of its own: it is `llm` and `lm_head`, and can generate
        return writer.base_model

    def get_output_embeddings(self) -> Any:
        return self.lm_head

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        written: Tensor | None = None,
        order: Tensor | None = None,
        use_cache: bool = False,
        **pack: Any,
    ) -> CausalLMOutput:
        """Logits of the next token, `[batch, seq, vocabulary]`.

        Args:
            input_ids: `[batch, read]`, what the encoder reads, padded on the right; without an encoder all that the LLM
                reads, as `states` takes it.
            attention_mask: `[batch, read]`.
            written: `[tokens]`, the LLM's own tokens behind the texts, those of the first text first.
            order: `[batch, seq]`, what the LLM reads: places in the encoder's states, counted through the batch with
                its padding, and behind them in `written`.
            pack: what the LLM is told of these, a mask as `llm_mask` among it.
        """
        assert not use_cache
        if order is None:
            return CausalLMOutput(logits=self.lm_head(self.states(input_ids, attention_mask, **pack)))
        assert written is not None
        mask = pack.pop("llm_mask", None)
        known = self.soft(input_ids, attention_mask).flatten(0, 1)
        rows = torch.cat([known, self.llm.get_input_embeddings()(written).to(known.dtype)])
        embeds = rows.index_select(0, order.flatten()).view(*order.shape, -1)
        return CausalLMOutput(logits=self.lm_head(self._read(mask, pack, inputs_embeds=embeds)))

    @torch.no_grad()
    def generate(
        self,
        texts: Sequence[str | Sequence[str]],
        lang: str,
        max_new_tokens: int = 64,
        batch_size: int | None = None,
        max_tokens: int = LONGEST_TOKENS,
    ) -> list[str]:
        """What is written after each text, greedily, without the end.

        Args:
            texts: each a text, or several that are read as one sequence.
            lang: of the texts; any code of languages.csv.
            batch_size: texts at once, at most.
            max_tokens: longest text; a longer one loses its end.

        Raises:
            InputError: the encoder does not know the language.
            ValueError: no language is called so.
        """
        self.eval()
        answers = [""] * len(texts)
        read = self._ids(texts, lang, max_tokens)
        done = in_batches(
            self,
            [len(ids) + max_new_tokens for ids in read],
            lambda places: self.write([read[place] for place in places], max_new_tokens),
            SHORTER,
            batch_size,
            writes=True,
        )
        for places, written in done:
            for place, text in zip(places, written, strict=True):
                answers[place] = text
        return answers

    @torch.no_grad()
    def write(self, read: Sequence[list[int]], max_new_tokens: int) -> list[str]:
        """What is written after each text of a batch.

        Args:
            read: texts as ids of what reads them.
        """
        tokenizer = self.tokenizer
        embeds, mask = self._prompts(read, cue(tokenizer))
        ids = self.writer.generate(
            inputs_embeds=embeds,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
        return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]

    @cached_property
    def tokenizer(self) -> Any:
        """The LLM's."""
        return pretrained(AutoTokenizer, self.directories["llm"])

    def _prompts(self, read: Sequence[list[int]], tail: list[int]) -> tuple[Tensor, Tensor]:
        """Embeddings `[batch, seq, hidden]` and their mask, padded on the left."""
        inputs = {name: its.to(self.device) for name, its in padded(read, self.pad_id).items()}
        embed = self.llm.get_input_embeddings()
        known = embed(inputs["input_ids"]) if self.encoder is None else self.soft(**inputs)
        end = embed(torch.tensor(tail, device=self.device)).to(known.dtype)
        rows = [torch.cat([row[: len(ids)], end]) for row, ids in zip(known, read, strict=True)]
        longest = max(map(len, rows))
        embeds = torch.stack([torch.cat([row.new_zeros(longest - len(row), row.shape[1]), row]) for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=self.device)
        return embeds, mask


def answer(tokenizer: Any, label: str) -> list[int]:
    """A label in the LLM's tokens, as it is written: its words, and the end."""
    return [*tokenizer(f" {words(label)}", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def words(label: str) -> str:
    """A label as it is written."""
    return label.replace("_", " ")


def cue(tokenizer: Any) -> list[int]:
    """`CUE` in the LLM's tokens."""
    return list(tokenizer(CUE, add_special_tokens=False)["input_ids"])


AutoModelForCausalLM.register(StackConfig, StackForCausalLM)
