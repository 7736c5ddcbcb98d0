"""A multilingual encoder stacked under an LLM (MT-LLM, arXiv 2406.12739), as models of transformers.

    hidden = LLM(inputs_embeds=bridge(encoder(ids)))      with the encoder's mask
    vector = mean of a text's hidden states

The LLM reads none of its own tokens, as in the paper, or only its start token in place of the encoder's (ours).

The encoder is frozen; the LLM has LoRA adapters. Either part may be left out, so the baselines are the same model with
one part less: without the encoder the LLM reads its own tokens; without the LLM the encoder's states are pooled, and
adapters, if any, are the encoder's.

Importing this module registers the models with the Auto classes of transformers. `save_pretrained` writes what was
trained (adapters, bridge, head) and the names of the two models.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import SAFE_WEIGHTS_NAME, ModelOutput
from transformers.utils.hub import cached_file

from sdx import InputError
from sdx.languages import Language, language
from sdx.models.loading import four_bits, keep_layout, load_errors, padded, pretrained
from sdx.process.quiet import unreported
from sdx.stacking.batches import in_batches
from sdx.stacking.encoder import load_encoder
from sdx.stacking.encoder_languages import encoder_tokenizer
from sdx.stacking.parts import part_directory
from sdx.stacking.sequences import SequenceTokenizer, llm_tokenizer

BRIDGE, HEAD = "bridge.", "classifier."
"""Prefixes of the names of weights that are stored beside the adapters."""
LONGEST_TOKENS = 512
FIX = "give shorter texts or take a GPU with more memory"
UNSUPPORTED_OPTIONS = {
    *("attn_implementation", "load_in_4bit", "load_in_8bit", "max_memory", "offload_folder", "output_loading_info"),
    *("quantization_config", "tp_plan"),
}
"""Options of transformers' `from_pretrained` that do not reach a stack's parts."""
HUB_OPTIONS = ("revision", "token", "cache_dir", "subfolder", "local_files_only", "force_download")
"""Options of `from_pretrained` that say where files are."""


class StackConfig(PretrainedConfig):  # type: ignore[misc]
    """The parts and options of a stack. `PretrainedConfig` makes a dataclass of it."""

    model_type = "sdx_stack"

    encoder: dict[str, Any] | None = None
    """See `sdx.stacking.parts.part_source`; None if the part is left out."""
    llm: dict[str, Any] | None = None
    encoder_size: int = 0
    """Width of the hidden states."""
    llm_size: int = 0
    lora: dict[str, Any] | None = None
    """Rank, alpha and dropout of the adapters on all linear layers of the LLM, or of an encoder alone; None before any
    training."""
    bidirectional: bool = False
    """The LLM's tokens also see those after them (LLM2Vec)."""
    bias: bool = False
    """Of the bridge's projection."""
    start_token: int | None = None
    """Of the LLM, read in place of the state of the encoder's start token; None: every state is read."""
    head_bias: bool = True
    """Of the head on the vectors."""
    quantised: bool = False
    """The LLM's weights are in 4 bits, see `sdx.models.loading.four_bits`."""

    @property
    def hidden_size(self) -> int:
        """Width of a text's vector."""
        return self.llm_size if self.llm else self.encoder_size


@dataclass
class Classified(ModelOutput):  # type: ignore[misc]
    """Output of the models with a head."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    """`[texts, labels]`, or `[texts, choices]`."""
    vectors: Tensor | None = None
    """`[texts, hidden]`, or for multiple choice `[texts, choices, hidden]`; fp32."""


class Bridge(nn.Module):
    """Maps the encoder's states to the LLM's input embeddings: standardised per dimension, projected, and scaled.

    Without an LLM the states are only standardised. Raw states of some encoders all point in one direction, which
    drowns the differences between tokens. `mean` and `std` are measured on English text by `sdx.stacking.bridge`;
    `gain` is the standard deviation of the LLM's input embeddings. The paper has 0, 1 and 1. If `up_proj` contains the
    gain, its weights are so small that their gradient is 99 % of the norm that all gradients are clipped to, and its
    spikes hide the adapters' gradients. Ours.
    """

    mean: Tensor
    std: Tensor
    gain: Tensor | None

    def __init__(self, encoder_size: int, llm_size: int, bias: bool) -> None:
        super().__init__()
        self.up_proj = nn.Linear(encoder_size, llm_size, bias=bias) if llm_size else nn.Identity()
        self.register_buffer("mean", torch.zeros(encoder_size))
        self.register_buffer("std", torch.ones(encoder_size))
        self.register_buffer("gain", torch.ones(1) if llm_size else None)

    def forward(self, states: Tensor) -> Tensor:
        """`[..., encoder_size]` -> `[..., llm_size]`."""
        projected: Tensor = self.up_proj((states - self.mean) / self.std)
        return projected if self.gain is None else projected * self.gain


class StackModel(PreTrainedModel):  # type: ignore[misc]
    """Gives the hidden states of the topmost part, and each text's vector.

    Args:
        parts: directories of the parts by "encoder" and "llm", used instead of what the config names.
        dtype: of the weights.
    """

    config_class = StackConfig
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    head_size = 0  # outputs of a head per vector

    def __init__(
        self, config: StackConfig, parts: Mapping[str, Path] | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(config)
        sources = {"encoder": config.encoder, "llm": config.llm}
        self.directories = {kind: part_directory(kind, source, parts) for kind, source in sources.items() if source}
        self.encoder: Any = None
        self.llm: Any = None
        if config.encoder:
            self.encoder = load_encoder(self.directories["encoder"], dtype).requires_grad_(False).eval()
        if config.llm:
            with unreported():  # an untied head is left over
                options = {"dtype": dtype, **(four_bits(dtype) if config.quantised else {})}
                self.llm = self.load_llm(options).requires_grad_(False)
            if config.quantised:
                keep_layout(self.llm)
            if config.bidirectional:
                _make_bidirectional(self.llm)
        if config.encoder:
            self.bridge = Bridge(config.encoder_size, config.llm_size, config.bias).to(dtype)
        if config.lora:
            self.add_lora()
        if self.head_size:
            self.classifier = nn.Linear(config.hidden_size, self.head_size, bias=config.head_bias).to(dtype)

    def load_llm(self, options: Mapping[str, Any]) -> Any:
        """The LLM without its head."""
        return pretrained(AutoModel, self.directories["llm"], **options)

    def add_lora(self) -> None:
        """Puts adapters on all linear layers of the trained part, in its own dtype; they change nothing yet."""
        from peft import LoraConfig

        lora, part = self.config.lora, self.encoder if self.llm is None else self.llm
        options = {"r": lora["rank"], "lora_alpha": lora["alpha"], "lora_dropout": lora["dropout"]}
        part.add_adapter(LoraConfig(**options, target_modules="all-linear"))

    def train(self, mode: bool = True) -> "StackModel":
        """A frozen encoder stays in eval mode."""
        super().train(mode)
        if self.encoder is not None and not self.trains_encoder:
            self.encoder.eval()
        return self

    @property
    def trains_encoder(self) -> bool:
        """Whether the adapters are the encoder's."""
        return self.llm is None and self.config.lora is not None

    def hidden_states(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_index: Tensor | None = None, **pack: Any
    ) -> Tensor:
        """Hidden states of the topmost part, `[batch, seq, hidden]`, or of a pack `[1, tokens, hidden]`.

        Args:
            input_ids: `[batch, seq]`, the encoder's tokens, padded on the right; without an encoder the LLM's, padded
                or packed.
            attention_mask: `[batch, seq]`.
            token_index: `[tokens]`, the flattened batch without its padding; the LLM reads these states as a pack.
            pack: what the LLM gets for a pack, see `sdx.training.packing.join`.
        """
        if self.encoder is None:
            return self.llm_hidden_states(input_ids, attention_mask, **pack)
        states = self.soft_prompt(input_ids, attention_mask)
        if self.llm is None:
            return states
        if token_index is not None:
            states, attention_mask = states.flatten(0, 1).index_select(0, token_index)[None], None
        return self._run_llm(inputs_embeds=states, attention_mask=attention_mask, **pack)

    def soft_prompt(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The LLM's input embeddings from the encoder, `[batch, seq, hidden]`; without an LLM the encoder's states."""
        with nullcontext() if self.trains_encoder else torch.no_grad():
            states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        embeds: Tensor = self.bridge(states)
        if self.config.start_token is None:
            return embeds
        start = self.llm.get_input_embeddings()(torch.full_like(input_ids[:, :1], self.config.start_token))
        return torch.cat([start.to(embeds.dtype), embeds[:, 1:]], 1)

    def llm_hidden_states(self, input_ids: Tensor, attention_mask: Tensor | None = None, **pack: Any) -> Tensor:
        """Hidden states of the LLM reading its own tokens; see `hidden_states`."""
        return self._run_llm(input_ids=input_ids, attention_mask=attention_mask, **pack)

    def _run_llm(self, **inputs: Any) -> Tensor:
        states: Tensor = self.llm(**inputs, use_cache=False).last_hidden_state
        return states

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **pack: Any
    ) -> BaseModelOutputWithPooling:
        """The hidden states and, unless they are packed, each text's vector, `[batch, hidden]` in fp32."""
        states = self.hidden_states(input_ids, attention_mask, **pack)
        vectors = None if pack else masked_mean(states, attention_mask)
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=vectors)

    @torch.no_grad()
    def encode(self, texts: Sequence[str | Sequence[str]], lang: str, batch_size: int | None = None) -> Tensor:
        """Vectors of texts in a language, `[texts, hidden]`, in fp32 on the CPU. Texts are cut at `LONGEST_TOKENS`.

        Args:
            texts: each a text, or several that are read as one sequence, such as a premise and a hypothesis.
            lang: any code of languages.csv; raises as `sequence_tokenizer` does.
            batch_size: most texts in a batch.
        """

        def vectors(ids: Sequence[list[int]]) -> Tensor:
            inputs = self._padded(ids)
            return masked_mean(self.hidden_states(**inputs), inputs["attention_mask"]).cpu()

        found = self._for_each(texts, lang, vectors, batch_size)
        return torch.stack(found) if found else torch.empty(0, self.config.hidden_size)

    def _for_each(
        self,
        texts: Sequence[str | Sequence[str]],
        lang: str,
        work: Callable[[Sequence[list[int]]], Iterable[Any]],
        batch_size: int | None,
        max_tokens: int = LONGEST_TOKENS,
        max_new_tokens: int = 0,
    ) -> list[Any]:
        """What `work`, which gets the ids of a batch, returns for each text."""
        self.eval()
        rows = [[text] if isinstance(text, str) else list(text) for text in texts]
        encoded = self.sequence_tokenizer(lang).encode(rows, max_tokens, offsets=False)
        found = [None] * len(texts)
        lengths = [len(text.ids) + max_new_tokens for text in encoded]

        def of_batch(indices: list[int]) -> Iterable[Any]:
            return work([encoded[index].ids for index in indices])

        for indices, results in in_batches(self, lengths, of_batch, FIX, batch_size, max_new_tokens > 0):
            for index, result in zip(indices, results, strict=True):
                found[index] = result
        return found

    def _padded(self, ids: Sequence[list[int]]) -> dict[str, Tensor]:
        return {name: tensor.to(self.device) for name, tensor in padded(ids, self.pad_id).items()}

    def sequence_tokenizer(self, lang: str) -> SequenceTokenizer:
        """The tokenizer of the part that reads the text, set up for a language.

        Raises:
            InputError: the encoder does not know the language.
            ValueError: the language is unknown.
        """
        return tokenizer_of(self.config, self.directories, language(lang))

    @property
    def pad_id(self) -> int:
        """The padding token of the part that reads; some encoders number their positions by it."""
        first = self.llm if self.encoder is None else self.encoder
        return int(first.config.pad_token_id or 0)

    def trained_weights(self) -> dict[str, Tensor]:
        """What `save_pretrained` writes: adapters, bridge and head."""
        return {name: tensor for name, tensor in self.state_dict().items() if is_trained(name)}

    def save_pretrained(
        self, save_directory: Any, state_dict: Mapping[str, Tensor] | None = None, **options: Any
    ) -> None:
        """Writes what was trained, and a config with the names of the parts. Takes transformers' own options."""
        weights = {name: tensor for name, tensor in (state_dict or self.state_dict()).items() if is_trained(name)}
        options["max_shard_size"] = "1TB"  # one file
        super().save_pretrained(save_directory, state_dict=weights, **options)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *_args: Any,
        config: StackConfig | None = None,
        parts: Mapping[str, Path] | None = None,
        dtype: torch.dtype | str | None = None,
        **options: Any,
    ) -> "StackModel":
        """Loads the parts and what was trained, from a directory or the hub, in eval mode.

        Args:
            parts: directories of the parts by "encoder" and "llm", used instead of what the config names.
            options: of transformers. `device_map` is one device, or "auto" for the GPU if there is one.

        Raises:
            InputError: a part is not available; an option does not apply to a stack; the directory lacks weights or
                has those of another model.
        """
        options.pop("adapter_kwargs", None)
        if unknown := sorted(UNSUPPORTED_OPTIONS & options.keys()):
            raise InputError(
                f"from_pretrained({unknown[0]}=...) does not reach the parts of a stack; load the stack without it and "
                "change model.llm"
            )
        device = options.pop("device_map", None)
        where = {key: options.pop(key) for key in HUB_OPTIONS if key in options}
        config = config or StackConfig.from_pretrained(pretrained_model_name_or_path, **where, **options)
        given = config.dtype if dtype in (None, "auto") else dtype
        wanted = getattr(torch, given) if isinstance(given, str) else given or torch.float32
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        with nullcontext() if device is None else torch.device(device):  # parts are loaded directly onto the device
            model = cls(config, parts, wanted)
        file = cached_file(
            pretrained_model_name_or_path, SAFE_WEIGHTS_NAME, _raise_exceptions_for_missing_entries=False, **where
        )  # a part alone has no trained weights at first
        with load_errors(str(pretrained_model_name_or_path)):
            model.load_trained_weights(load_file(file) if file else {}, str(pretrained_model_name_or_path))
        model.eval()
        return model

    def load_trained_weights(self, weights: Mapping[str, Tensor], where: str) -> None:
        """Sets the stored weights. A head may be missing, which leaves the model's own, or superfluous.

        Raises:
            InputError: adapters, bridge or head are of another model.
        """
        own = self.trained_weights()
        missing = sorted(name for name in own.keys() - weights.keys() if not name.startswith(HEAD))
        unknown = {name for name in weights.keys() - own.keys() if not name.startswith(HEAD)}
        unknown |= {name for name in weights.keys() & own.keys() if weights[name].shape != own[name].shape}
        if missing or unknown:
            raise InputError(
                f"{where} does not fit its config: {[*missing, *sorted(unknown)][0]} is "
                f"{'missing' if missing else 'of another model'}; copy the directory again"
            )
        self.load_state_dict({name: weights[name] for name in own if name in weights}, strict=False)


class StackForSequenceClassification(StackModel):
    """A linear head on a text's vector."""

    @property
    def head_size(self) -> int:  # type: ignore[override]
        return int(self.config.num_labels)

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> Classified:
        """Logits `[batch, labels]`; with `labels` `[batch]` also the mean cross-entropy."""
        return self._output(masked_mean(self.hidden_states(input_ids, attention_mask), attention_mask), labels)

    def _output(self, vectors: Tensor, labels: Tensor | None) -> Classified:
        logits = self.classify(vectors)
        return Classified(None if labels is None else cross_entropy(logits, labels), logits, vectors)

    def classify(self, vectors: Tensor) -> Tensor:
        """`[texts, hidden]` -> `[texts, labels]`, in fp32."""
        logits: Tensor = self.classifier(vectors.to(self.classifier.weight.dtype))
        return logits.float()


class StackForMultipleChoice(StackForSequenceClassification):
    """All choices in one sequence; the head gives each choice's mean one logit (MT-LLM, Belebele)."""

    head_size = 1

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        spans: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Classified:
        """Logits `[batch, choices]`; with `labels` `[batch]` also the mean cross-entropy.

        Args:
            spans: `[batch, choices, 2]`, the first token of each choice and the one after its last.
        """
        assert spans is not None
        states = self.hidden_states(input_ids, attention_mask)
        tokens = torch.arange(states.shape[1], device=states.device)
        inside = (tokens >= spans[..., :1]) & (tokens < spans[..., 1:])  # [batch, choices, seq]
        return self._output(masked_mean(states, inside), labels)

    def classify(self, vectors: Tensor) -> Tensor:
        """`[texts, choices, hidden]` -> `[texts, choices]`, in fp32."""
        return super().classify(vectors).squeeze(-1)


def tokenizer_of(config: StackConfig, parts: Mapping[str, Path], spoken: Language) -> SequenceTokenizer:
    """As `StackModel.sequence_tokenizer`, for parts in these directories."""
    if config.encoder:
        return encoder_tokenizer(parts["encoder"], config.encoder.get("prefix", ""), spoken)
    return llm_tokenizer(pretrained(AutoTokenizer, parts["llm"]))


def is_trained(name: str) -> bool:
    """Whether `save_pretrained` writes the weight of this name."""
    return name.startswith((BRIDGE, HEAD)) or ".lora_" in name


def masked_mean(states: Tensor, attention_mask: Tensor | None) -> Tensor:
    """`[batch, seq, hidden]` -> `[batch, hidden]` in fp32; with a mask `[batch, n, seq]` -> `[batch, n, hidden]`."""
    if attention_mask is None:
        return states.float().mean(1)
    weights = attention_mask.float() / attention_mask.sum(-1, keepdim=True)
    return torch.einsum("b...s,bsh->b...h", weights, states.float())


@contextmanager
def without_adapters(llm: nn.Module) -> Iterator[None]:
    """The LLM as before training, without dropout. PEFT's own switch also changes which weights have gradients."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted, training = [module for module in llm.modules() if isinstance(module, BaseTunerLayer)], llm.training
    llm.eval()
    for module in adapted:
        module._disable_adapters = True
    try:
        yield
    finally:
        llm.train(training)
        for module in adapted:
            module._disable_adapters = False


def _make_bidirectional(llm: Any) -> None:
    """Transformers makes the masks by the config and chooses attention's kernel by the module."""
    llm.config.is_causal = False
    if getattr(llm.config, "sliding_window", None):
        llm.config.sliding_window -= 1  # a mask to both sides is one token wider than one to the left, unlike a kernel
    for module in llm.modules():
        if hasattr(module, "is_causal"):
            module.is_causal = False


AutoConfig.register(StackConfig.model_type, StackConfig)
AutoModel.register(StackConfig, StackModel)
AutoModelForSequenceClassification.register(StackConfig, StackForSequenceClassification)
AutoModelForMultipleChoice.register(StackConfig, StackForMultipleChoice)
