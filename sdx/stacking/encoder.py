"""The multilingual encoder of a stack, as a directory in Hugging Face format: packaged, from the hub, or local.

Of an encoder-decoder only the encoder is made and loaded: the classes of transformers take it out of the whole
model's checkpoint when its weights are renamed on the way, also where ZeRO-3 shards them.
"""

import inspect
from functools import lru_cache
from importlib import import_module
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdx import InputError
from sdx.config import EncoderConfig
from sdx.models.hub import PYTORCH, SAFETENSORS, check_model, local, model_step
from sdx.models.loading import check_link, load_errors, pretrained
from sdx.offline.e5 import convert
from sdx.process.quiet import unreported
from sdx.store.files import read_json
from sdx.store.step import Step

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

log = getLogger("sdx")

PACKAGED = {"e5_small": 512}
"""Packaged encoders, and the longest sequence that each takes."""
WEIGHTS = (SAFETENSORS, PYTORCH)
TOKENIZERS = ("tokenizer.json", "vocab.txt", "*.model", "*.spm")
OWN = "for an encoder of your own: encoder=path encoder.path=/its/directory"
OFFLINE = f"offline, take the packaged encoder=e5_small; {OWN}"
ENCODERS = {
    "bart": "BartEncoder",
    "m2m_100": "M2M100Encoder",
    "marian": "MarianEncoder",
    "mbart": "MBartEncoder",
    "mt5": "MT5EncoderModel",
    "t5": "T5EncoderModel",
    "umt5": "UMT5EncoderModel",
}
"""Of encoder-decoders, by type: the class of the encoder. NLLB-200 is an M2M-100."""
PART = {r"^(?:model\.)?shared\.": "embed_tokens.", r"^(?:model\.)?encoder\.": ""}
"""Names in a whole model's checkpoint -> names in its encoder alone."""
OPTIONAL = {"marian": ("embed_positions.weight",)}
"""Weights that may be missing, by type: a table of sines, in old checkpoints only; under ZeRO-3 transformers fails on a
checkpoint that has it."""
WIDTHS = ("hidden_size", "d_model", "n_embd", "dim")
"""What configs call the width of the states."""
SLOW_TOKENIZERS = ("M2M100Tokenizer", "MarianTokenizer")
"""Of transformers: they do not tell which characters a token is made of. One with a tokenizer.json does."""
POSITIONS_AFTER_PAD = ("camembert", "roberta", "xlm-roberta", "xlm-roberta-xl")
"""Their first position is the one after the padding token's id."""


def check(config: EncoderConfig) -> None:
    """Raises InputError for a source that cannot work. Loads nothing and asks no network."""
    check_model(config, "encoder", OWN, packaged=PACKAGED, tokenizers=TOKENIZERS)
    if config.path:
        _check_kind(f"encoder.path={config.path}", read_json(local(config.path) / "config.json"))


def encoder_step(config: EncoderConfig) -> Step:
    """Publishes `model/` (config, weights, tokenizer) and `source.json`."""
    check(config)
    return model_step(config, "encoder", WEIGHTS, OFFLINE, _try, config.name, ("*.bin", convert))


def _try(model_dir: Path, what: str, again: str) -> None:
    """Raises InputError for a directory that gives no encoder and tokenizer. Weights are not loaded."""
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
            raise InputError(f"{what}: the tokenizer makes nothing of a text; {again}")
        load_check.check_vocabulary(tokenizer, rows, what)


def load_encoder(model_dir: Path, dtype: "torch.dtype") -> "PreTrainedModel":
    """The encoder in eval mode, on the CPU or the device of a `torch.device` context, or sharded where ZeRO-3 is on.

    Called with `input_ids` and `attention_mask` [batch, seq] it returns an object with `last_hidden_state`
    [batch, seq, hidden]. NLLB and XLM-R number positions by which ids are not `config.pad_token_id`: pad with that, on
    the right.

    Raises:
        InputError: weights are missing, or it is a kind of model that gives no encoder.
    """
    import transformers

    check_link(model_dir)
    kind = _check_kind(str(model_dir), read_json(model_dir / "config.json"))
    model_class, options = _class(model_dir, kind)
    with unreported():  # the decoder's weights are left over
        model, report = pretrained(model_class, model_dir, dtype=dtype, output_loading_info=True, **options)
    missing = sorted(set(report["missing_keys"]) - set(OPTIONAL.get(kind, ())))
    if missing:
        raise InputError(f"{model_dir} lacks {len(missing)} weights, such as {missing[0]}; get its files again")
    assert isinstance(model, transformers.PreTrainedModel)
    return model


@lru_cache(maxsize=1)
def load_tokenizer(model_dir: Path) -> Any:
    """The encoder's tokenizer, kept for the next language: its tokenizer.json as it is, where it has one, for what
    transformers builds from the same file by the model's type depends on the version. A text with `</s>` in it means
    these four characters.

    Raises:
        InputError: it cannot be read.
    """
    return _tokenizer(model_dir, str(model_dir.resolve()))


def _tokenizer(model_dir: Path, what: str) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    fast = (model_dir / "tokenizer.json").is_file()
    return pretrained(PreTrainedTokenizerFast if fast else AutoTokenizer, model_dir, what, split_special_tokens=True)


def hidden_size(model_dir: Path) -> int:
    """Width of the last hidden states of an encoder, or of an LLM.

    Raises:
        InputError: its config does not say.
    """
    config = read_json(model_dir / "config.json")
    config = config.get("text_config") or config
    for name in WIDTHS:
        if name in config:
            return int(config[name])
    raise InputError(f"{model_dir}/config.json has none of {', '.join(WIDTHS)}; a stack needs the width of its states")


def context_tokens(model_dir: Path) -> int | None:
    """The longest sequence that the encoder's positions reach, special tokens included; none: no limit."""
    config = read_json(model_dir / "config.json")
    positions = config.get("max_position_embeddings")
    if not positions:
        return None
    unused = config.get("pad_token_id", 1) + 1 if config.get("model_type") in POSITIONS_AFTER_PAD else 0
    return int(positions) - unused


def check_length(config: EncoderConfig, key: str, max_tokens: int) -> None:
    """Raises InputError for texts that may be longer than what the encoder's positions reach. Loads nothing and asks
    no network: of an encoder on the hub nothing is said.

    Args:
        key: of the limit.
    """
    context = context_tokens(local(config.path)) if config.path else PACKAGED.get(config.asset or "")
    if context and max_tokens > context:
        raise InputError(f"{key}={max_tokens} exceeds the context of encoder={config.name}, {context}; lower it")


def tells_characters(config: EncoderConfig) -> bool:
    """Whether the encoder's tokenizer tells which characters a token is made of, as far as is known before it is
    there."""
    if not config.path:
        return config.characters
    directory = local(config.path)
    named = directory / "tokenizer_config.json"
    if (directory / "tokenizer.json").is_file() or not named.is_file():
        return True
    return read_json(named).get("tokenizer_class") not in SLOW_TOKENIZERS


def _check_kind(what: str, config: dict[str, Any]) -> str:
    """The type of the model. Raises InputError for an encoder-decoder whose encoder cannot be taken out."""
    kind = str(config.get("model_type"))
    if config.get("is_encoder_decoder") and kind not in ENCODERS:
        raise InputError(
            f"{what} holds a model of type {kind}; of encoder-decoders those of type {', '.join(ENCODERS)} give an "
            "encoder"
        )
    return kind


def _class(model_dir: Path, kind: str) -> tuple[Any, dict[str, Any]]:
    """What loads the encoder, and with which options."""
    from transformers import MODEL_MAPPING, AutoConfig, AutoModel

    if kind in ENCODERS:
        module = import_module(f"transformers.models.{kind}.modeling_{kind}")
        own = {r"^(?:model\.)?encoder\.embed_positions\.": "unused_positions."} if kind == "marian" else {}
        mapping = {} if "t5" in kind else {"key_mapping": own | PART}  # T5's reads the whole checkpoint as it is
        return getattr(module, ENCODERS[kind]), mapping
    config = pretrained(AutoConfig, model_dir)
    if type(config) not in MODEL_MAPPING:
        raise InputError(f"{model_dir.resolve()} holds a model of type {kind}, which gives no states; give an encoder")
    model_class = MODEL_MAPPING[type(config)]
    pools = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
    return AutoModel, {"add_pooling_layer": False} if pools else {}
