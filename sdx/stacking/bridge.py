"""The first stack: an encoder and an LLM with a bridge between them that is fitted, not trained.

The encoder's states are standardised per dimension. `up_proj` is drawn at random, or fitted by least squares from the
states of words to the LLM's input embeddings of the same words; either is scaled so that the bridge's output has the
standard deviation of these embeddings. The same texts give the variance of what the LLM says of sequences and of words,
by which the loss of the alignment is divided.
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
from sdx.models.loading import pretrained
from sdx.options import fields
from sdx.process.ranks import device
from sdx.stacking.encoder_languages import encoder_segments
from sdx.stacking.parts import Part, PartsStep, directories
from sdx.stacking.texts import read_texts
from sdx.stacking.tokens import aligned
from sdx.stacking.work import cut, one_pass
from sdx.store.estimate import Estimate, Plan
from sdx.store.files import read_json, write_json
from sdx.store.step import Step, Workspace, runtime

FIT = "fit.json"
FIT_TEXTS = 512
"""Enough for 384 to 4096 dimensions: some ten thousand words. Ours."""
RIDGE = 1e-2
"""Of the mean variance, added to each dimension's. Ours."""
BATCH_TEXTS = 16
MOST_WORDS = 32_768
"""Of long texts not all: each is a row of the least squares."""


class Projection(str, Enum):
    """How `up_proj` begins."""

    random = "random"
    least_squares = "least_squares"


@dataclass
class BridgeConfig:
    """What stands between the encoder and the LLM."""

    projection: Projection = Projection.least_squares
    """At random, or fitted to the LLM's input embeddings of the same words."""
    standardise: bool = False
    """Standardise the encoder's states per dimension, and let the projection give values around 1 that are scaled to
    the LLM's embeddings after it. The paper does not; states that all lie in one direction, as those of e5, teach
    nothing otherwise, and weights that make small embeddings have large gradients. The option is ours."""
    bias: bool = False
    """Of the projection."""
    start_token: bool = False
    """The LLM reads its own start token in place of the encoder's. Most LLMs let their attention rest on the first
    token, whose state is a hundred times as large as others; what a bridge makes of an encoder's start is now one and
    now none while it learns, and so is what stands next to it. Of encoders that put nothing in front of a text (Marian,
    mT5) every state is read. The paper's stack has none; the option is ours."""
    scale: float = fields.number(1.0, above=0, at_most=1000)
    """Standard deviation of what the LLM is given at first, over that of its input embeddings. The larger, the more of
    the encoder's states reaches the top through the LLM's residual stream unchanged. Ours."""


@dataclass(frozen=True, eq=False)
class StackStep(PartsStep):
    """Publishes `model/`, a stack or a part of one, without adapters yet, and `fit.json`, of a stack."""

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
    """Languages that the encoder has to know; whoever else uses the step may ask for others."""

    @property
    def config(self) -> Mapping[str, Any]:
        encoder, llm, bridge = self.parts.encoder, self.parts.backbone, self.bridge
        decides: dict[str, Any] = {"bidirectional": self.bidirectional}
        if llm and self.quantised:  # the key is that of the time when there was nothing else
            decides["quantised"] = True
        if encoder:  # the LLM alone is taken as it is
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

        from sdx.models.loading import dtype_of
        from sdx.process.quiet import quiet
        from sdx.stacking.encoder import hidden_size
        from sdx.stacking.model import StackConfig, StackModel

        quiet()
        residency.release()
        found, prefix = directories(work), self.parts.prefix
        for spoken in self.languages if "encoder" in found else ():  # what only the encoder's files tell
            encoder_segments(found["encoder"], prefix, spoken)
        sizes: dict[str, Any] = {f"{part}_size": hidden_size(path) for part, path in found.items()}
        start_token = _start_token(found, prefix) if self.bridge.start_token and len(found) == 2 else None
        config = StackConfig(
            encoder=Part.of(work.inputs["encoder"], prefix).written() if "encoder" in found else None,
            llm=Part.of(work.inputs["backbone"]).written() if "llm" in found else None,
            bidirectional=self.bidirectional,
            quantised=self.quantised and "llm" in found,
            bias=self.bridge.bias,
            start_token=start_token,
            dtype="bfloat16",
            **sizes,
        )
        torch.manual_seed(self.seed)
        model = StackModel(config, found, dtype_of(self.parts.precision)).eval()
        if model.encoder is not None:
            _fit_bridge(work, model, self.bridge, self.max_tokens)
        model.save_pretrained(work.dir / "model")


def _start_token(parts: Mapping[str, Path], prefix: str) -> int | None:
    """The LLM's BOS, or its EOS where it has none; none where the encoder puts nothing in front of a text."""
    from transformers import AutoTokenizer

    own = pretrained(AutoTokenizer, parts["llm"])
    found: int | None = own.eos_token_id if own.bos_token_id is None else own.bos_token_id
    return found if encoder_segments(parts["encoder"], prefix, language(ENGLISH)).before else None


def _fit_bridge(work: Workspace, model: Any, options: BridgeConfig, max_tokens: int) -> None:
    """Sets the bridge by what the two models say of some texts."""
    import torch

    texts = list(islice(read_texts(work.inputs["texts"]), FIT_TEXTS))
    model.to(device())
    found = _Readings(model, max_tokens)
    with torch.no_grad():
        for start in range(0, len(texts), BATCH_TEXTS):
            found.read(texts[start : start + BATCH_TEXTS])
        mean, std = _standardised(model.bridge, torch.cat(found.states), options)
        figures = {} if model.llm is None else _projected(model.bridge, found, mean, std, options)
    write_json(work.dir / FIT, figures)
    work.counts.update(texts=len(texts), words=len(found.words), **figures)


class _Readings:
    """Of texts, in fp32: every token's state from the encoder `[d]`; by word the mean of these states, of the LLM's
    input embeddings and of its states, `[h]`; the mean of its states by sequence."""

    def __init__(self, model: Any, max_tokens: int) -> None:
        from transformers import AutoTokenizer

        from sdx.stacking.segments import llm_segments

        self.model, self.max_tokens = model, max_tokens
        self.segments = model.segments(ENGLISH)
        self.own = model.llm and llm_segments(pretrained(AutoTokenizer, model.directories["llm"]))
        self.states: list[Any] = []
        self.words: list[tuple[Any, Any, Any]] = []
        self.sequences: list[Any] = []

    def read(self, texts: Sequence[str]) -> None:
        from sdx.models.loading import padded

        model, batch = self.model, [[text] for text in texts]
        ones = self.segments.encode(batch, self.max_tokens)
        ids, mask = (part.to(model.device) for part in padded([one.ids for one in ones], model.pad_id).values())
        states = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float().cpu()
        self.states.append(states[mask.bool().cpu()])
        if model.llm is None:
            return
        others = self.own.encode(batch, self.max_tokens)
        ids, mask = (part.to(model.device) for part in padded([one.ids for one in others], 0).values())
        embedded = model.llm.get_input_embeddings()(ids).float().cpu()
        taught = model.states_of_llm(ids, mask).float().cpu()
        for number, (text, one, other) in enumerate(zip(texts, ones, others, strict=True)):
            self.sequences.append(taught[number, : len(other.ids)].mean(0))
            for (a, b), (c, d) in aligned(text, one, other) if len(self.words) < MOST_WORDS else ():
                word = states[number, a:b].mean(0), embedded[number, c:d].mean(0), taught[number, c:d].mean(0)
                self.words.append(word)


def _standardised(bridge: Any, states: Any, options: BridgeConfig) -> tuple[Any, Any]:
    """Mean and standard deviation by dimension, `[d]`, as set in the bridge."""
    if options.standardise:
        bridge.mean.copy_(states.mean(0))
        bridge.std.copy_(states.std(0).clamp(min=1e-6))
    return bridge.mean.float().cpu(), bridge.std.float().cpu()


def _projected(bridge: Any, found: _Readings, mean: Any, std: Any, options: BridgeConfig) -> dict[str, float]:
    """Sets the projection; what was found of the texts."""
    import torch

    sequences = torch.stack(found.sequences)
    if found.words:
        inner, embeddings, taught = (torch.stack(rows) for rows in zip(*found.words, strict=True))
    elif options.projection is Projection.random:  # the encoder's tokenizer does not know its characters
        inner, embeddings, taught = torch.zeros(0, len(mean)), sequences, sequences
    else:
        raise InputError(
            "method.bridge.projection=least_squares needs an encoder whose tokenizer knows the characters of its "
            "tokens, and this one does not; give method.bridge.projection=random"
        )
    r2 = 0.0
    if options.projection is Projection.least_squares:
        weight, r2 = _least_squares((inner - mean) / std, embeddings)
    else:
        weight = torch.randn(bridge.up_proj.weight.shape)
    outputs = ((torch.cat(found.states) - mean) / std) @ weight.T
    deviation = options.scale * embeddings.std()
    if options.standardise:
        bridge.gain.fill_(deviation)
    bridge.up_proj.weight.copy_(weight * (deviation / (outputs.std() * bridge.gain.cpu())))
    if bridge.up_proj.bias is not None:
        bridge.up_proj.bias.copy_(embeddings.mean(0) / bridge.gain.cpu())
    return {
        "variance_sequences": float(sequences.var(0).mean()),
        "variance_words": float(taught.var(0).mean()),
        "r2": round(r2, 4),
    }


def _least_squares(inputs: Any, outputs: Any) -> tuple[Any, float]:
    """Weights `[h, d]` from inputs `[words, d]` to outputs `[words, h]` around their mean, and R^2 on these."""
    import torch

    x, y = inputs.double(), (outputs - outputs.mean(0)).double()
    covariance = x.T @ x
    ridge = RIDGE * covariance.diagonal().mean()
    weight = torch.linalg.solve(covariance + ridge * torch.eye(len(covariance), dtype=x.dtype), x.T @ y)
    left = (y - x @ weight).square().sum() / y.square().sum()
    return weight.T.float(), 1 - float(left)


def fitted(step_dir: Path) -> dict[str, float]:
    """What `StackStep` found."""
    figures: dict[str, float] = read_json(step_dir / FIT)
    return figures
