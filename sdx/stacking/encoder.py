"""The multilingual encoder of a stack, as a directory in Hugging Face format: packaged, from the hub, or local.

Of an encoder-decoder only the encoder is built and loaded: given the new names of the weights, transformers extracts it
from the whole model's checkpoint, also when ZeRO-3 shards it.
"""

import inspect
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdx import InputError
from sdx.config import EncoderConfig
from sdx.models.hub import PYTORCH, SAFETENSORS, check_model, local, model_step
from sdx.models.loading import check_link, load_errors, pretrained
from sdx.models.shape import shape_of
from sdx.offline.e5 import convert
from sdx.process.quiet import unreported
from sdx.store.files import read_json
from sdx.store.step import Step

if TYPE_CHECKING:
    import torch

PACKAGED = {"e5_small": 512}
"""Packaged encoders and the longest sequence of each, in tokens."""
TOKENIZERS = ("tokenizer.json", "vocab.txt", "*.model", "*.spm")
LOCAL = "for an encoder of your own: encoder=path encoder.path=/its/directory"
OFFLINE = f"offline, take the packaged encoder=e5_small; {LOCAL}"
ENCODERS = {
    "bart": "BartEncoder",
    "m2m_100": "M2M100Encoder",
    "marian": "MarianEncoder",
    "mbart": "MBartEncoder",
    "mt5": "MT5EncoderModel",
    "t5": "T5EncoderModel",
    "umt5": "UMT5EncoderModel",
}
"""Class of the encoder by type of encoder-decoder. NLLB-200 is an M2M-100."""
OPTIONAL = {"marian": ("embed_positions.weight",)}
"""Weights that may be missing, by type: a table of sines, only in old checkpoints; under ZeRO-3 transformers fails on a
checkpoint that has it."""
SLOW_TOKENIZERS = ("M2M100Tokenizer", "MarianTokenizer")
"""Classes of transformers that do not say which characters a token consists of. A tokenizer.json does."""
POSITIONS_AFTER_PAD = ("camembert", "roberta", "xlm-roberta", "xlm-roberta-xl")
"""Types whose first position is the one after the padding token's id."""


def check(config: EncoderConfig) -> None:
    """Raises InputError for a source that cannot work, without loading it or asking the network."""
    check_model(config, "encoder", LOCAL, packaged=PACKAGED, tokenizers=TOKENIZERS)
    if config.path:
        _check_kind(f"encoder.path={config.path}", read_json(local(config.path) / "config.json"))


def encoder_step(config: EncoderConfig) -> Step:
    """Publishes `model/` (config, weights, tokenizer) and `source.json`."""
    check(config)
    weights = (SAFETENSORS, PYTORCH)
    return model_step(config, "encoder", weights, OFFLINE, _try, config.name, ("*.bin", convert))


def _try(model_dir: Path, what: str, again: str) -> None:
    """Raises InputError for a directory without an encoder and a tokenizer. Weights are not loaded."""
    from sdx.models import load_check

    kind = _check_kind(what, load_check.check_model_type(model_dir, what).to_dict())
    model_class, options = _class(model_dir, kind)
    optional = OPTIONAL.get(kind, ())
    model = load_check.load_without_weights(
        model_class, model_dir, what, again, optional=optional, warns_of_unused=False, **options
    )
    tokenizer = _tokenizer(model_dir, what)
    rows = model.get_input_embeddings().weight.shape[0]
    with load_errors(what):
        if not tokenizer("a", add_special_tokens=False)["input_ids"]:
            raise InputError(f"{what}: the tokenizer returns no tokens for a text; {again}")
        load_check.check_vocabulary(tokenizer, rows, what)


def load_encoder(model_dir: Path, dtype: "torch.dtype") -> Any:
    """The encoder in eval mode, on the CPU or the device of a `torch.device` context, sharded if ZeRO-3 is on.

    Called with `input_ids` and `attention_mask` [batch, seq] it returns an object with `last_hidden_state`
    [batch, seq, hidden]. NLLB and XLM-R number positions by which ids are not `config.pad_token_id`: pad with that, on
    the right.

    Raises:
        InputError: weights are missing, or the model has no encoder.
    """
    check_link(model_dir)
    kind = _check_kind(str(model_dir), read_json(model_dir / "config.json"))
    model_class, options = _class(model_dir, kind)
    with unreported():  # the decoder's weights are unused
        model, report = pretrained(model_class, model_dir, dtype=dtype, output_loading_info=True, **options)
    missing = sorted(set(report["missing_keys"]) - set(OPTIONAL.get(kind, ())))
    if missing:
        raise InputError(f"{model_dir} lacks {len(missing)} weights, such as {missing[0]}; get its files again")
    return model


@lru_cache(maxsize=1)
def load_tokenizer(model_dir: Path) -> Any:
    """The encoder's tokenizer, kept for the next language. `</s>` in a text means these four characters.

    Raises InputError if the tokenizer cannot be read.
    """
    return _tokenizer(model_dir)


def _tokenizer(model_dir: Path, what: str | None = None) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    # Not what transformers builds from a tokenizer.json by the model's type, which depends on the version.
    fast = (model_dir / "tokenizer.json").is_file()
    return pretrained(PreTrainedTokenizerFast if fast else AutoTokenizer, model_dir, what, split_special_tokens=True)


def hidden_size(model_dir: Path) -> int:
    """Width of the last hidden states of an encoder or an LLM. Raises InputError if the config does not say."""
    if size := shape_of(read_json(model_dir / "config.json")).hidden_size:
        return size
    raise InputError(
        f"{model_dir}/config.json has none of hidden_size, d_model, n_embd, dim; a stack needs the width of its states"
    )


def context_tokens(model_dir: Path) -> int | None:
    """Longest sequence for the encoder's positions, with special tokens; None: no limit."""
    config = read_json(model_dir / "config.json")
    positions = config.get("max_position_embeddings")
    if not positions:
        return None
    unused = config.get("pad_token_id", 1) + 1 if config.get("model_type") in POSITIONS_AFTER_PAD else 0
    return int(positions) - unused


def check_length(config: EncoderConfig, key: str, max_tokens: int) -> None:
    """Raises InputError if texts may be longer than the encoder's positions allow; `key` names the limit.

    Loads nothing and asks no network; an encoder on the hub is not checked.
    """
    context = context_tokens(local(config.path)) if config.path else PACKAGED.get(config.asset or "")
    if context and max_tokens > context:
        raise InputError(f"{key}={max_tokens} exceeds the context of encoder={config.name}, {context}; lower it")


def has_character_offsets(config: EncoderConfig) -> bool:
    """Whether the tokenizer says which characters a token consists of, as far as known before it is fetched."""
    if not config.path:
        return config.characters
    settings = local(config.path) / "tokenizer_config.json"
    if settings.with_name("tokenizer.json").is_file() or not settings.is_file():
        return True
    return read_json(settings).get("tokenizer_class") not in SLOW_TOKENIZERS


def _check_kind(what: str, config: dict[str, Any]) -> str:
    """The model's type. Raises InputError for an encoder-decoder whose encoder cannot be extracted."""
    kind = str(config.get("model_type"))
    if config.get("is_encoder_decoder") and kind not in ENCODERS:
        raise InputError(f"{what} holds a model of type {kind}; use an encoder, or one of {', '.join(ENCODERS)}")
    return kind


def _class(model_dir: Path, kind: str) -> tuple[Any, dict[str, Any]]:
    """The class that loads the encoder, and its options."""
    from transformers import MODEL_MAPPING, AutoConfig, AutoModel

    if kind in ENCODERS:
        module = import_module(f"transformers.models.{kind}.modeling_{kind}")
        names = {r"^(?:model\.)?encoder\.embed_positions\.": "unused_positions."} if kind == "marian" else {}
        names |= {r"^(?:model\.)?shared\.": "embed_tokens.", r"^(?:model\.)?encoder\.": ""}
        return getattr(module, ENCODERS[kind]), {} if "t5" in kind else {"key_mapping": names}  # T5's need no mapping
    config = pretrained(AutoConfig, model_dir)
    if type(config) not in MODEL_MAPPING:
        raise InputError(
            f"{model_dir.resolve()} holds a model of type {kind}, which has no hidden states; give an encoder"
        )
    model_class = MODEL_MAPPING[type(config)]
    pools = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
    return AutoModel, {"add_pooling_layer": False} if pools else {}
