"""The LLM that a study improves, as a directory in Hugging Face format: packaged, from the hub, or local."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdx import InputError
from sdx.config import BackboneConfig, Precision, TemplateKind
from sdx.models import adapters
from sdx.models.hub import SAFETENSORS, check_model, model_step
from sdx.models.loading import dtype_of, gpu_options, load_errors, pretrained
from sdx.models.residency import Resident, resident
from sdx.models.template import install_pad, install_template
from sdx.offline.gguf import convert
from sdx.store.files import read_json
from sdx.store.step import Step

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PACKAGED = ("smollm2_135m", "gemma3_270m")
OFFLINE = f"offline, set backbone.path to a local copy or take a packaged backbone ({', '.join(PACKAGED)})"
OWN_MODEL = "for a model of your own: backbone=path backbone.path=/its/directory"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")


def check(config: BackboneConfig) -> None:
    """Raises InputError for a source that cannot work. Loads nothing and asks no network."""
    check_model(config, "backbone", OWN_MODEL, packaged=PACKAGED, tokenizers=TOKENIZERS, pickles=False)
    adapters.check(config.adapters)


def backbone_step(config: BackboneConfig) -> Step:
    """Publishes `model/` (config, weights in safetensors, tokenizer) and `source.json`."""
    check(config)
    tried, packed = partial(trial, template=config.template), ("*.gguf", convert)
    base = model_step(config, "backbone", (SAFETENSORS,), OFFLINE, tried, config.name, packed)
    return adapters.merged_step(base, config.adapters, config.name)


def trial(model_dir: Path, what: str, again: str, template: TemplateKind) -> None:
    """Raises InputError if causal LM and tokenizer cannot be loaded. Weights are not loaded."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

    from sdx.models import load_check

    config = load_check.check_model_type(model_dir, what)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise InputError(f"{what} holds a model of type {config.model_type}, which is no causal LM; give one")
    model = load_check.load_without_weights(AutoModelForCausalLM, model_dir, what, again)
    tokenizer = _tokenizer(model_dir, what, template)
    load_check.check_template(tokenizer, what)
    with load_errors(what):
        install_pad(tokenizer)
    load_check.check_tokenizer(tokenizer, model.get_input_embeddings().weight.shape[0], what)


def check_length(model_dir: Path, max_length_tokens: int) -> None:
    """Raises InputError if training examples may be longer than the model's context."""
    config = read_json(model_dir / "config.json")
    context = config.get("max_position_embeddings") or config.get("text_config", {}).get("max_position_embeddings")
    if context and max_length_tokens > context:
        raise InputError(
            f"scale.max_length_tokens={max_length_tokens} exceeds the model's context of {context}; lower it"
        )


def load_model(model_dir: Path, precision: Precision) -> "PreTrainedModel":
    """The causal LM, for inference, on this process' GPU if it has one."""
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = pretrained(AutoModelForCausalLM, model_dir, dtype=dtype_of(precision), **gpu_options())
    return model.eval()


def loaded(model_dir: Path, precision: Precision) -> Resident:
    """`load_model`, loaded once for all consecutive users."""
    return resident(("backbone", model_dir, precision), lambda: load_model(model_dir, precision))


def load_tokenizer(model_dir: Path, template: TemplateKind) -> Any:
    """The tokenizer with a pad token and, by `install_template`, a chat template, which `save_pretrained` keeps."""
    what = str(model_dir.resolve())
    tokenizer = _tokenizer(model_dir, what, template)
    with load_errors(what):
        install_pad(tokenizer)
    return tokenizer


def _tokenizer(model_dir: Path, what: str, template: TemplateKind) -> Any:
    """The tokenizer with a chat template, which has not been rendered yet."""
    from transformers import AutoTokenizer

    tokenizer = pretrained(AutoTokenizer, model_dir, what)
    if tokenizer.eos_token is None:
        raise InputError(f"{what}: the tokenizer names no EOS token; set eos_token in tokenizer_config.json")
    with load_errors(what):
        install_template(tokenizer, template)
    return tokenizer
