"""The LLM that a study improves, as a directory in Hugging Face format: packaged, from the hub, or local.

Packaged weights are GGUF files. Their tokenizers are built here from the file's own tables: transformers 5.17
reads both wrongly (SmolLM2's EOS becomes `<|im_start|>`, Gemma loses BOS and merges in another order), 5.23
reads SmolLM2 without its split of numbers into digits.
"""

from functools import partial
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdx import InputError
from sdx.config import BackboneConfig, Precision, TemplateKind
from sdx.models import adapters
from sdx.models.hub import (
    SAFETENSORS,
    DirectoryStep,
    PackagedModel,
    check_link,
    check_model,
    hub_step,
    local,
)
from sdx.models.loading import dtype_of, named, pretrained, straight
from sdx.models.residency import Resident, resident
from sdx.process.quiet import quiet
from sdx.store.files import read_json
from sdx.store.step import Step

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = getLogger("sdx")

PACKAGED = ("smollm2_135m", "gemma3_270m")
OFFLINE = f"offline, set backbone.path to a local copy or take a packaged backbone ({', '.join(PACKAGED)})"
OWN = "for a model of your own: backbone=path backbone.path=/its/directory"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
CONTROL, USER_DEFINED = 3, 4
"""Token types of GGUF."""


def check(config: BackboneConfig) -> None:
    """Raises InputError for a source that cannot work. Loads nothing and asks no network."""
    check_model(config, "backbone", OWN, packaged=PACKAGED, tokenizers=TOKENIZERS, pickles=False)
    adapters.check(config.adapters)


def backbone_step(config: BackboneConfig) -> Step:
    """Publishes `model/` (config, weights in safetensors, tokenizer) and `source.json`."""
    check(config)
    return adapters.merged_step(_given_step(config), config.adapters, config.name)


def _given_step(config: BackboneConfig) -> Step:
    """The model without adapters."""
    if config.asset:
        return PackagedModel(config.asset, "*.gguf", convert, name="backbone", about=config.name)
    trial = partial(_try, template=config.template)
    if config.hub_id:
        assert config.revision
        return hub_step("backbone", config.hub_id, config.revision, (SAFETENSORS,), OFFLINE, trial, config.name)
    assert config.path
    return DirectoryStep(local(config.path), name="backbone", about=config.name, trial=trial)


def _try(model_dir: Path, what: str, again: str, template: TemplateKind) -> None:
    """Raises InputError for a directory that gives no causal LM and tokenizer. Weights are not loaded."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

    from sdx.models import trial
    from sdx.models.template import install_pad

    config = trial.check_kind(model_dir, what)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise InputError(f"{what} holds a model of type {config.model_type}, which is no causal LM; give one")
    model = trial.model_without_weights(AutoModelForCausalLM, model_dir, what, again)
    tokenizer = _tokenizer(model_dir, what, template)
    trial.check_template(tokenizer, what)
    with named(what):
        install_pad(tokenizer)
    trial.check_tokenizer(tokenizer, model.get_input_embeddings().weight.shape[0], what)


def check_length(model_dir: Path, max_length_tokens: int) -> None:
    """Raises InputError for training examples that may be longer than what the model's positions reach."""
    config = read_json(model_dir / "config.json")
    context = config.get("max_position_embeddings") or config.get("text_config", {}).get("max_position_embeddings")
    if context and max_length_tokens > context:
        raise InputError(
            f"scale.max_length_tokens={max_length_tokens} exceeds the model's context of {context}; lower it"
        )


def load_model(model_dir: Path, precision: Precision) -> "PreTrainedModel":
    """The causal LM, for inference, on this process' GPU where there is one."""
    from transformers import AutoModelForCausalLM

    check_link(model_dir)
    quiet()
    model: PreTrainedModel = pretrained(AutoModelForCausalLM, model_dir, dtype=dtype_of(precision), **straight())
    return model.eval()


def loaded(model_dir: Path, precision: Precision) -> Resident:
    """`load_model`, once for all that complete and score with the model in turn."""
    return resident(("backbone", model_dir, precision), lambda: load_model(model_dir, precision))


def load_tokenizer(model_dir: Path, template: TemplateKind) -> Any:
    """The tokenizer with a chat template and a pad token; saved with a model, it carries both.

    Raises:
        InputError: `template` is `chat` and the tokenizer has no chat template.
    """
    from sdx.models.template import install_pad

    check_link(model_dir)
    what = str(model_dir.resolve())
    tokenizer = _tokenizer(model_dir, what, template)
    with named(what):
        install_pad(tokenizer)
    return tokenizer


def _tokenizer(model_dir: Path, what: str, template: TemplateKind) -> Any:
    """The tokenizer with a chat template, which has not been used yet."""
    from transformers import AutoTokenizer

    from sdx.models.template import install_template

    tokenizer = pretrained(AutoTokenizer, model_dir, what)
    if tokenizer.eos_token is None:
        raise InputError(f"{what}: the tokenizer names no EOS token; set eos_token in tokenizer_config.json")
    with named(what):
        install_template(tokenizer, template)
    return tokenizer


def convert(gguf: Path, out: Path) -> None:
    """Writes a GGUF model as a Hugging Face directory in bf16, in about half a minute."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    quiet()
    tokenizer = gguf_tokenizer(gguf)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        trust_remote_code=False,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),  # without it save_pretrained refuses
    )
    # As an input the padding token gets no gradient; in SmolLM2's file it is the end of turn.
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def gguf_tokenizer(gguf: Path) -> Any:
    """The tokenizer that a GGUF file describes: SmolLM2's byte-level BPE or Gemma's SentencePiece BPE."""
    from gguf import GGUFReader
    from tokenizers import AddedToken, processors
    from transformers import PreTrainedTokenizerFast

    from sdx.models.template import install_pad

    fields = {key: field.contents() for key, field in GGUFReader(gguf).fields.items() if "tokenizer." in key}
    table = {key.removeprefix("tokenizer.").removeprefix("ggml."): value for key, value in fields.items()}
    builders = {("gpt2", "smollm"): _byte_level_bpe, ("llama", "default"): _sentencepiece_bpe}
    backend = builders[table["model"], table["pre"]](table)
    for kind, special in ((CONTROL, True), (USER_DEFINED, False)):
        its = [token for token, of in zip(table["tokens"], table["token_type"], strict=True) if of == kind]
        # Runs of spaces are merges of the normalised text.
        added = [AddedToken(token, special=special, normalized=False) for token in its if token.strip(" ")]
        (backend.add_special_tokens if special else backend.add_tokens)(added)
    bos, eos, unknown, padding = (
        table["tokens"][table[f"{name}_token_id"]] for name in ("bos", "eos", "unknown", "padding")
    )
    if table["add_bos_token"]:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, table["bos_token_id"])]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token=eos,
        unk_token=unknown,
        pad_token=padding,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = table.get("chat_template")
    if tokenizer.chat_template:
        install_pad(tokenizer)
    assert len(tokenizer) == len(table["tokens"])
    return tokenizer


def _byte_level_bpe(table: dict[str, Any]) -> Any:
    """GPT-2's BPE; SmolLM2 splits numbers into digits before."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {token: id_ for id_, token in enumerate(table["tokens"])}
    merges = [tuple(merge.split(" ")) for merge in table["merges"]]
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece_bpe(table: dict[str, Any]) -> Any:
    """Gemma's BPE over text with `▁` for spaces: two pieces merge when the vocabulary has the whole.

    What merges first has the lower id. The scores say the same, but have no order among the runs of spaces.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers

    tokens = [token if token.strip(" ") else "▁" * len(token) for token in table["tokens"]]
    vocabulary = {token: id_ for id_, token in enumerate(tokens)}
    merges: list[tuple[str, str]] = []
    for token in tokens:
        splits = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [split for split in splits if split[0] in vocabulary and split[1] in vocabulary]
        merges += sorted(known, key=lambda split: (vocabulary[split[0]], vocabulary[split[1]]))
    unknown = tokens[table["unknown_token_id"]]
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return backend
