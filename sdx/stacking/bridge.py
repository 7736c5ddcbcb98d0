"""The first stack: an encoder and an LLM with a bridge between them that is fitted, not trained.

The encoder's states are standardised per dimension. `up_proj` is random, or fitted by least squares from the states of
words to the LLM's input embeddings of the same words; either is scaled so that the bridge's output has the standard
deviation of these embeddings. The same texts give the variance of the LLM's vectors of sequences and of words, which
divides the loss of the alignment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from sdx import InputError
from sdx.languages import ENGLISH, Language, language
from sdx.models import residency
from sdx.models.loading import dtype_of, padded, pretrained
from sdx.options import fields
from sdx.process.quiet import quiet
from sdx.process.ranks import device
from sdx.stacking.alignment_data import aligned_words
from sdx.stacking.encoder import hidden_size
from sdx.stacking.encoder_languages import encoder_tokenizer
from sdx.stacking.english_texts import read_texts
from sdx.stacking.parts import PartsStep, directories, part_source
from sdx.stacking.sequences import llm_tokenizer
from sdx.stacking.work import cut, one_pass
from sdx.store.estimate import Estimate, Plan
from sdx.store.files import write_json
from sdx.store.step import Step, Workspace, runtime

FIT = "fit.json"
FIT_TEXTS = 512
"""Some ten thousand words, enough for 384 to 4096 dimensions. Ours."""
BATCH_TEXTS = 16
MOST_WORDS = 32_768
"""Limit for long texts: each word is a row of the least squares."""


class Projection(str, Enum):
    random = "random"
    least_squares = "least_squares"


@dataclass
class BridgeConfig:
    """The bridge between encoder and LLM."""

    projection: Projection = Projection.least_squares
    """How `up_proj` is initialised: random, or fitted to the LLM's input embeddings of the same words."""
    standardise: bool = False
    """Standardise the encoder's states per dimension, and scale the projection's output, which is around 1, to the
    LLM's embeddings. The paper does not; but with states that all point in one direction, as e5's, nothing is learnt
    otherwise, and weights that produce small embeddings have large gradients. The option is ours."""
    bias: bool = False
    """Of the projection."""
    start_token: bool = False
    """The LLM reads its own start token in place of the encoder's. Most LLMs rest their attention on the first token,
    whose state is a hundred times as large as others. While a bridge learns, its output for an encoder's start token is
    such a state at times and at times not, which changes its neighbours too. If the encoder puts nothing before a text
    (Marian, mT5), every state is read. The paper's stack has none; the option is ours."""
    scale: float = fields.number(1.0, above=0, at_most=1000)
    """Standard deviation of the bridge's first output, relative to that of the LLM's input embeddings. The larger, the
    more of the encoder's states reaches the top of the LLM's residual stream unchanged. Ours."""


@dataclass(frozen=True, eq=False)
class StackStep(PartsStep):
    """Publishes `model/`, a stack or a part of one, without adapters yet, and of a stack `fit.json`."""

    name: ClassVar[str] = "stack"
    version: ClassVar[int] = 3
    trains: ClassVar[bool] = True

    texts: Step
    """English texts as `rows.jsonl`; an LLM alone reads none."""
    bridge: BridgeConfig
    bidirectional: bool
    quantised: bool
    """The LLM's weights are in 4 bits."""
    max_tokens: int
    """Longest text, as in the alignment."""
    seed: int
    _: KW_ONLY
    languages: Sequence[Language] = runtime()
    """Languages that the encoder must know; other users of the step may need others."""

    @property
    def config(self) -> Mapping[str, Any]:
        encoder, llm, bridge = self.parts.encoder, self.parts.backbone, self.bridge
        decides: dict[str, Any] = {"bidirectional": self.bidirectional}
        if llm and self.quantised:  # not in the keys of older caches
            decides["quantised"] = True
        if encoder:  # an LLM alone is not changed
            decides |= {"standardise": bridge.standardise, "prefix": self.parts.prefix, "max_tokens": self.max_tokens}
            decides |= self.parts.decides
        if encoder and llm:
            decides |= {"projection": bridge.projection.value, "bias": bridge.bias, "scale": bridge.scale}
            decides |= {"seed": self.seed, "start_token": bridge.start_token}
        return decides

    @property
    def inputs(self) -> Mapping[str, Step]:
        return {**self.parts.inputs, **({"texts": self.texts} if self.parts.encoder else {})}

    @property
    def about(self) -> str:
        return self.parts.system.value

    def estimate(self, plan: Plan) -> Estimate:
        if not self.parts.encoder:  # the LLM alone is taken as it is
            return Estimate()
        texts = plan.rows(self.texts)
        rows, tokens = min(texts.count, FIT_TEXTS), cut(texts.of("text"), self.max_tokens)
        return Estimate(rows, rows * tokens, work=one_pass(plan, self.parts, rows, tokens, tokens))

    def run(self, work: Workspace) -> None:
        import torch

        from sdx.stacking.model import StackConfig, StackModel

        quiet()
        residency.release()
        parts, prefix = directories(work), self.parts.prefix
        for spoken in self.languages if "encoder" in parts else ():  # only the encoder's files say which it knows
            encoder_tokenizer(parts["encoder"], prefix, spoken)
        config = StackConfig(
            encoder=part_source(work.inputs["encoder"], prefix) if "encoder" in parts else None,
            llm=part_source(work.inputs["backbone"]) if "llm" in parts else None,
            bidirectional=self.bidirectional,
            quantised=self.quantised and "llm" in parts,
            bias=self.bridge.bias,
            start_token=_start_token(parts, prefix) if self.bridge.start_token and len(parts) == 2 else None,
            dtype="bfloat16",
            **{f"{part}_size": hidden_size(path) for part, path in parts.items()},
        )
        torch.manual_seed(self.seed)
        model = StackModel(config, parts, dtype_of(self.parts.precision)).eval()
        if model.encoder is not None:
            texts = list(islice(read_texts(work.inputs["texts"]), FIT_TEXTS))
            model.to(device())
            with torch.no_grad():
                figures, words = _fit(model, texts, self.bridge, self.max_tokens)
            write_json(work.dir / FIT, figures)
            work.counts.update(texts=len(texts), words=words, **figures)
        model.save_pretrained(work.dir / "model")


def _start_token(parts: Mapping[str, Path], prefix: str) -> int | None:
    """The LLM's BOS, else its EOS; None if the encoder puts nothing before a text."""
    from transformers import AutoTokenizer

    tokenizer = pretrained(AutoTokenizer, parts["llm"])
    token: int | None = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return token if encoder_tokenizer(parts["encoder"], prefix, language(ENGLISH)).before else None


def _fit(model: Any, texts: Sequence[str], options: BridgeConfig, max_tokens: int) -> tuple[dict[str, float], int]:
    """Sets the bridge; what is measured on the texts (nothing for an encoder alone), and the number of words."""
    import torch

    states, words, sequences = _measure(model, texts, max_tokens)
    bridge = model.bridge
    if options.standardise:
        bridge.mean.copy_(states.mean(0))
        bridge.std.copy_(states.std(0).clamp(min=1e-6))
    if model.llm is None:
        return {}, 0
    mean, std = bridge.mean.float().cpu(), bridge.std.float().cpu()
    if words:
        inputs, embeddings, word_vectors = (torch.stack(rows) for rows in zip(*words, strict=True))
    elif options.projection is Projection.random:  # the tokenizer does not know the characters of its tokens
        embeddings = word_vectors = torch.stack(sequences)
    else:
        raise InputError(
            "method.bridge.projection=least_squares needs an encoder whose tokenizer knows the characters of its "
            "tokens, and this one does not; give method.bridge.projection=random"
        )
    weight, r2 = torch.randn(bridge.up_proj.weight.shape), 0.0
    if options.projection is Projection.least_squares:
        weight, r2 = _least_squares((inputs - mean) / std, embeddings)
    deviation = options.scale * embeddings.std()
    if options.standardise:
        bridge.gain.fill_(deviation)
    outputs = ((states - mean) / std) @ weight.T
    bridge.up_proj.weight.copy_(weight * (deviation / (outputs.std() * bridge.gain.cpu())))
    if bridge.up_proj.bias is not None:
        bridge.up_proj.bias.copy_(embeddings.mean(0) / bridge.gain.cpu())
    variances = {"variance_sequences": torch.stack(sequences), "variance_words": word_vectors}
    return {**{name: float(rows.var(0).mean()) for name, rows in variances.items()}, "r2": round(r2, 4)}, len(words)


def _measure(model: Any, texts: Sequence[str], max_tokens: int) -> tuple[Any, list[tuple[Any, ...]], list[Any]]:
    """On texts, in fp32 on the CPU; an encoder alone has states only.

    Returns:
        The encoder's state of every token, `[tokens, d]`; of every word the means of these states `[d]`, of the LLM's
        input embeddings `[h]` and of its hidden states `[h]`; of every sequence the mean of its hidden states `[h]`.
    """
    import torch
    from transformers import AutoTokenizer

    tokenizer = model.sequence_tokenizer(ENGLISH)
    own = model.llm and llm_tokenizer(pretrained(AutoTokenizer, model.directories["llm"]))
    states: list[Any] = []
    words: list[tuple[Any, ...]] = []
    sequences: list[Any] = []
    for start in range(0, len(texts), BATCH_TEXTS):
        batch = [[text] for text in texts[start : start + BATCH_TEXTS]]
        ours = tokenizer.encode(batch, max_tokens)
        ids, mask = (part.to(model.device) for part in padded([text.ids for text in ours], model.pad_id).values())
        read = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float().cpu()
        states.append(read[mask.bool().cpu()])
        if model.llm is None:
            continue
        theirs = own.encode(batch, max_tokens)
        ids, mask = (part.to(model.device) for part in padded([text.ids for text in theirs], 0).values())
        embedded = model.llm.get_input_embeddings()(ids).float().cpu()
        hidden = model.llm_hidden_states(ids, mask).float().cpu()
        for row, ([text], our, their) in enumerate(zip(batch, ours, theirs, strict=True)):
            sequences.append(hidden[row, : len(their.ids)].mean(0))
            for (a, b), (c, d) in aligned_words(text, our, their) if len(words) < MOST_WORDS else ():
                words.append((read[row, a:b].mean(0), embedded[row, c:d].mean(0), hidden[row, c:d].mean(0)))
    return torch.cat(states), words, sequences


def _least_squares(inputs: Any, outputs: Any) -> tuple[Any, float]:
    """Weights `[h, d]` from inputs `[words, d]` to centred outputs `[words, h]`, and R^2 on these."""
    import torch

    x, y = inputs.double(), (outputs - outputs.mean(0)).double()
    covariance = x.T @ x
    ridge = 0.01 * covariance.diagonal().mean()  # added to each dimension's variance; ours
    weight = torch.linalg.solve(covariance + ridge * torch.eye(len(covariance), dtype=x.dtype), x.T @ y)
    unexplained = (y - x @ weight).square().sum() / y.square().sum()
    return weight.T.float(), 1 - float(unexplained)
