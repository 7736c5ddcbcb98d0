"""A multilingual encoder stacked under an LLM (MT-LLM, arXiv 2406.12739), as models of transformers.

    hidden = LLM(inputs_embeds=bridge(encoder(ids)))      the encoder's mask
    vector = mean of the hidden states of a text

The LLM reads no tokens of its own, as in the paper, or its start token alone, in place of the encoder's (ours).

The encoder is frozen, the LLM has LoRA adapters. Either part may be left out: without the encoder the LLM reads its own
tokens, without the LLM the encoder's states are pooled, and the adapters, if there are any, are the encoder's. So the
baselines are the same model, less a part.

After `import sdx.stacking.model` the Auto classes of transformers know all three models. What `save_pretrained` writes
is what was trained (adapters, bridge, head) and the names of the two models it was trained on.
"""

from collections.abc import Iterator, Mapping, Sequence
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
from sdx.stacking.encoder_languages import encoder_segments
from sdx.stacking.parts import Part, directory
from sdx.stacking.segments import Segments, llm_segments

TRAINED = ("bridge.", "classifier.")
"""Beginnings of the names of weights that are stored, beside those of the adapters."""
ADAPTER = ".lora_"
LONGEST_TOKENS = 512
SHORTER = "give shorter texts or take a GPU with more memory"
ONE_FILE = "1TB"
"""As large as a file of weights may be: adapters are never so large."""
LOADING = {
    *("attn_implementation", "load_in_4bit", "load_in_8bit", "max_memory", "offload_folder", "output_loading_info"),
    *("quantization_config", "tp_plan"),
}
"""Options of transformers' `from_pretrained` that do not reach a stack's parts."""
HUB = ("revision", "token", "cache_dir", "subfolder", "local_files_only", "force_download")
"""Options of `from_pretrained` that say where files are."""


class StackConfig(PretrainedConfig):  # type: ignore[misc]
    """What a stack is made of.

    Args:
        encoder, llm: the two models, as `sdx.stacking.parts.Part`; none where it is left out.
        encoder_size, llm_size: width of their states.
        lora: rank, alpha and dropout of the adapters on all linear layers of the LLM, or of an encoder alone; none
            before any training.
        bidirectional: the LLM's tokens see those after them, too (LLM2Vec).
        bias: of the bridge's projection.
        start_token: of the LLM, whose embedding it reads in place of a text's first state, that of the encoder's own
            start; none: it reads every state.
        head_bias: of the head on the vectors.
        quantised: the LLM's weights are in 4 bits, see `sdx.models.loading.four_bits`.
    """

    model_type = "sdx_stack"

    def __init__(
        self,
        encoder: Mapping[str, Any] | None = None,
        llm: Mapping[str, Any] | None = None,
        encoder_size: int = 0,
        llm_size: int = 0,
        lora: Mapping[str, Any] | None = None,
        bidirectional: bool = False,
        bias: bool = False,
        start_token: int | None = None,
        head_bias: bool = True,
        quantised: bool = False,
        **others: Any,
    ) -> None:
        self.encoder, self.llm = encoder and dict(encoder), llm and dict(llm)
        self.encoder_size, self.llm_size = encoder_size, llm_size
        self.lora = lora and dict(lora)
        self.bidirectional, self.bias, self.start_token = bidirectional, bias, start_token
        self.head_bias, self.quantised = head_bias, quantised
        super().__init__(**others)

    @property
    def hidden_size(self) -> int:
        """Width of the vector of a text."""
        return self.llm_size if self.llm else self.encoder_size


@dataclass
class Classified(ModelOutput):  # type: ignore[misc]
    """What the models with a head give."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    """`[texts, labels]`, or `[texts, choices]`."""
    vectors: Tensor | None = None
    """`[texts, hidden]`, or of multiple choice `[texts, choices, hidden]`; fp32."""


class Bridge(nn.Module):
    """From the encoder's states to the LLM's input embeddings: each dimension standardised, projected, and scaled.

    Without an LLM they are not projected.

    Raw states of some encoders all lie in one direction, and what tells tokens apart would be lost in it. `mean` and
    `std` are measured on English text by `sdx.stacking.bridge`, and `gain` is the standard deviation of the LLM's input
    embeddings; as in the paper they are 0, 1 and 1. With the gain among the weights of `up_proj` these were so small
    that their gradient was 99 % of the norm to which all gradients are clipped, and spikes of it hid the adapters'.
    Ours.
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
        config: says what the parts are.
        parts: directories to load them from, by "encoder" and "llm", in place of where the config says they are.
        dtype: of the weights.
    """

    config_class = StackConfig
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    outputs = 0  # numbers that a head gives for a vector

    def __init__(
        self, config: StackConfig, parts: Mapping[str, Path] | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(config)
        self.directories = {
            kind: directory(kind, Part.read(given), parts)
            for kind, given in (("encoder", config.encoder), ("llm", config.llm))
            if given
        }
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
                _see_both_ways(self.llm)
        if config.encoder:
            self.bridge = Bridge(config.encoder_size, config.llm_size, config.bias).to(dtype)
        if config.lora:
            self.add_lora()
        if self.outputs:
            self.classifier = nn.Linear(config.hidden_size, self.outputs, bias=config.head_bias).to(dtype)

    def load_llm(self, options: Mapping[str, Any]) -> Any:
        """The LLM without its head."""
        return pretrained(AutoModel, self.directories["llm"], **options)

    def add_lora(self) -> None:
        """Puts adapters on all linear layers of what is trained, in its own dtype; they change nothing yet."""
        from peft import LoraConfig

        lora, part = self.config.lora, self.encoder if self.llm is None else self.llm
        part.add_adapter(
            LoraConfig(
                r=lora["rank"], lora_alpha=lora["alpha"], lora_dropout=lora["dropout"], target_modules="all-linear"
            )
        )

    def train(self, mode: bool = True) -> "StackModel":
        """The encoder stays in eval mode where it is frozen."""
        super().train(mode)
        if self.encoder is not None and not self.trains_encoder:
            self.encoder.eval()
        return self

    @property
    def trains_encoder(self) -> bool:
        """Whether the adapters are the encoder's."""
        return self.llm is None and self.config.lora is not None

    def states(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, places: Tensor | None = None, **pack: Any
    ) -> Tensor:
        """Hidden states of the topmost part, `[batch, seq, hidden]`; of a pack `[1, tokens, hidden]`.

        Args:
            input_ids: `[batch, seq]` of the encoder's tokens, padded on the right; without an encoder of the LLM's, a
                pack among them.
            attention_mask: `[batch, seq]`.
            places: `[tokens]`, the states that are no padding, counted through the batch: the LLM reads them as a pack.
            pack: what the LLM is told of a pack.
        """
        if self.encoder is None:
            return self.states_of_llm(input_ids, attention_mask, **pack)
        soft = self.soft(input_ids, attention_mask)
        if self.llm is None:
            return soft
        if places is not None:
            soft, attention_mask = soft.flatten(0, 1).index_select(0, places)[None], None
        return self._read(attention_mask, pack, inputs_embeds=soft)

    def soft(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """What the LLM reads in place of its input embeddings, `[batch, seq, hidden]`; of an encoder alone its states.

        Args: as of `states`.
        """
        with nullcontext() if self.trains_encoder else torch.no_grad():
            states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        bridged: Tensor = self.bridge(states)
        if self.config.start_token is None:
            return bridged
        firsts = torch.full_like(input_ids[:, :1], self.config.start_token)
        return torch.cat([self.llm.get_input_embeddings()(firsts).to(bridged.dtype), bridged[:, 1:]], 1)

    def states_of_llm(self, input_ids: Tensor, attention_mask: Tensor | None = None, **pack: Any) -> Tensor:
        """Those of the LLM that reads its own tokens, as `states`."""
        return self._read(attention_mask, pack, input_ids=input_ids)

    def _read(self, attention_mask: Tensor | None, pack: Mapping[str, Any], **inputs: Tensor) -> Tensor:
        if attention_mask is not None:
            pack = {**pack, "attention_mask": attention_mask}
        states: Tensor = self.llm(**inputs, **pack, use_cache=False).last_hidden_state
        return states

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **pack: Any
    ) -> BaseModelOutputWithPooling:
        """The states, and of a batch that is no pack each text's vector, `[batch, hidden]` in fp32."""
        states = self.states(input_ids, attention_mask, **pack)
        pooled = None if pack else masked_mean(states, attention_mask)
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=pooled)

    @torch.no_grad()
    def encode(self, texts: Sequence[str | Sequence[str]], lang: str, batch_size: int | None = None) -> Tensor:
        """Vectors of texts in a language, `[texts, hidden]`, in fp32 on the CPU.

        Args:
            texts: each a text, or several that are read as one sequence, such as a premise and a hypothesis.
            lang: any code of languages.csv.
            batch_size: texts at once, at most.

        Raises:
            InputError: the encoder does not know the language.
            ValueError: no language is called so.
        """

        found = self._ids(texts, lang, LONGEST_TOKENS)

        def read(places: list[int]) -> Tensor:
            ids = [found[place] for place in places]
            inputs = {name: its.to(self.device) for name, its in padded(ids, self.pad_id).items()}
            return masked_mean(self.states(**inputs), inputs["attention_mask"]).cpu()

        self.eval()
        vectors = torch.empty(len(texts), self.config.hidden_size)
        for places, its in in_batches(self, [len(ids) for ids in found], read, SHORTER, batch_size):
            vectors[places] = its
        return vectors

    def _ids(self, texts: Sequence[str | Sequence[str]], lang: str, max_tokens: int) -> list[list[int]]:
        rows = [[text] if isinstance(text, str) else list(text) for text in texts]
        return [one.ids for one in self.segments(lang).encode(rows, max_tokens, offsets=False)]

    def segments(self, lang: str) -> Segments:
        """The tokenizer of what reads the text, set up for a language.

        Raises:
            InputError: the encoder does not know the language.
            ValueError: no language is called so.
        """
        return segments_of(self.config, self.directories, language(lang))

    @property
    def pad_id(self) -> int:
        """What the first part takes for padding: some encoders number their positions by it."""
        first = self.llm if self.encoder is None else self.encoder
        return int(first.config.pad_token_id or 0)

    def trained(self) -> dict[str, Tensor]:
        """What `save_pretrained` writes: adapters, bridge and head."""
        return {name: tensor for name, tensor in self.state_dict().items() if is_trained(name)}

    def save_pretrained(
        self, save_directory: Any, state_dict: Mapping[str, Tensor] | None = None, **options: Any
    ) -> None:
        """Writes what was trained, and a config with the names of the parts. Takes transformers' own options."""
        weights = {name: tensor for name, tensor in (state_dict or self.trained()).items() if is_trained(name)}
        super().save_pretrained(save_directory, state_dict=weights, **{**options, "max_shard_size": ONE_FILE})

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
            parts: directories of the parts, by "encoder" and "llm", in place of where the config says they are.
            options: of transformers. `device_map` is one device, or "auto" for the GPU if there is one.

        Raises:
            InputError: a part cannot be had; an option cannot be of a stack; the directory has no weights, or not
                those of this model.
        """
        options.pop("adapter_kwargs", None)
        if unknown := sorted(LOADING & options.keys()):
            raise InputError(
                f"from_pretrained({unknown[0]}=...) does not reach the parts of a stack; load it without, and change "
                "model.llm"
            )
        device = options.pop("device_map", None)
        where = {key: options.pop(key) for key in HUB if key in options}
        config = config or StackConfig.from_pretrained(pretrained_model_name_or_path, **where, **options)
        given = config.dtype if dtype in (None, "auto") else dtype
        wanted = getattr(torch, given) if isinstance(given, str) else given or torch.float32
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        with nullcontext() if device is None else torch.device(device):  # the parts are loaded straight onto it
            model = cls(config, parts, wanted)
        file = cached_file(
            pretrained_model_name_or_path, SAFE_WEIGHTS_NAME, _raise_exceptions_for_missing_entries=False, **where
        )  # of a part alone nothing was trained at first
        with load_errors(str(pretrained_model_name_or_path)):
            model.load_trained(load_file(file) if file else {}, str(pretrained_model_name_or_path))
        model.eval()
        return model

    def load_trained(self, weights: Mapping[str, Tensor], where: str) -> None:
        """Sets the stored weights. A head that is not stored stays as it is, one that is not asked for is passed over.

        Raises:
            InputError: other adapters, another bridge or another head are stored.
        """
        own = {name: tensor.shape for name, tensor in self.state_dict().items() if is_trained(name)}
        stored = {name: tensor for name, tensor in weights.items() if name in own}
        missing = {name for name in own.keys() - stored.keys() if not name.startswith("classifier.")}
        unknown = {name for name in weights.keys() - own.keys() if not name.startswith("classifier.")}
        unknown |= {name for name, tensor in stored.items() if tensor.shape != own[name]}
        if missing or unknown:
            name = sorted(missing or unknown)[0]
            raise InputError(
                f"{where} does not fit its config: {name} is {'missing' if missing else 'of another model'}; "
                "copy the directory again"
            )
        self.load_state_dict(stored, strict=False)


class StackForSequenceClassification(StackModel):
    """A linear head on the vector of a text or of texts read as one."""

    @property
    def outputs(self) -> int:  # type: ignore[override]
        return int(self.config.num_labels)

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> Classified:
        """Logits `[batch, labels]`; with `labels` `[batch]` the mean cross-entropy, too."""
        return self.classified(masked_mean(self.states(input_ids, attention_mask), attention_mask), labels)

    def classified(self, vectors: Tensor, labels: Tensor | None) -> Classified:
        logits = self.classify(vectors)
        return Classified(None if labels is None else cross_entropy(logits, labels), logits, vectors)

    def classify(self, vectors: Tensor) -> Tensor:
        """`[texts, hidden]` -> `[texts, labels]`, in fp32."""
        logits: Tensor = self.classifier(vectors.to(self.classifier.weight.dtype))
        return logits.float()


class StackForMultipleChoice(StackForSequenceClassification):
    """All choices in one sequence; each choice's tokens are pooled and given one number (MT-LLM, Belebele)."""

    outputs = 1

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        spans: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Classified:
        """Logits `[batch, choices]`; with `labels` `[batch]` the mean cross-entropy, too.

        Args:
            spans: `[batch, choices, 2]`, the first token of each choice and the one after its last.
        """
        assert spans is not None
        states = self.states(input_ids, attention_mask)
        place = torch.arange(states.shape[1], device=states.device)
        inside = (place >= spans[..., :1]) & (place < spans[..., 1:])  # [batch, choices, seq]
        weights = inside / inside.sum(-1, keepdim=True)
        return self.classified(weights.to(torch.float32) @ states.float(), labels)

    def classify(self, vectors: Tensor) -> Tensor:
        """`[texts, choices, hidden]` -> `[texts, choices]`, in fp32."""
        return super().classify(vectors).squeeze(-1)


def segments_of(config: StackConfig, parts: Mapping[str, Path], spoken: Language) -> Segments:
    """The tokenizer of what reads the text, set up for a language.

    Args:
        parts: directories of the parts.

    Raises:
        InputError: the encoder does not know the language.
    """
    if config.encoder:
        return encoder_segments(parts["encoder"], Part.read(config.encoder).prefix, spoken)
    return llm_segments(pretrained(AutoTokenizer, parts["llm"]))


def is_trained(name: str) -> bool:
    """Whether a weight of the model is one that `save_pretrained` writes."""
    return name.startswith(TRAINED) or ADAPTER in name


def masked_mean(states: Tensor, attention_mask: Tensor | None) -> Tensor:
    """`[batch, seq, hidden]` -> `[batch, hidden]`, in fp32."""
    if attention_mask is None:
        return states.float().mean(1)
    weights = attention_mask.float() / attention_mask.sum(1, keepdim=True)
    return (weights[:, None] @ states.float()).squeeze(1)


@contextmanager
def without_adapters(llm: nn.Module) -> Iterator[None]:
    """The LLM as it was before training, without dropout. PEFT's own switch also changes what has gradients."""
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


def _see_both_ways(llm: Any) -> None:
    """Transformers makes the masks by the config and chooses attention's kernel by the module."""
    llm.config.is_causal = False
    if getattr(llm.config, "sliding_window", None):
        llm.config.sliding_window -= 1  # a mask to both sides has one token more than one to the left, a kernel has not
    for module in llm.modules():
        if hasattr(module, "is_causal"):
            module.is_causal = False


AutoConfig.register(StackConfig.model_type, StackConfig)
AutoModel.register(StackConfig, StackModel)
AutoModelForSequenceClassification.register(StackConfig, StackForSequenceClassification)
AutoModelForMultipleChoice.register(StackConfig, StackForMultipleChoice)
