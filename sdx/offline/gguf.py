"""Converts a packaged GGUF model to a directory in Hugging Face format.

The tokenizer is built here from the file's own tables, because transformers reads both packaged ones wrongly: with 5.17
SmolLM2's EOS becomes `<|im_start|>`, and Gemma loses BOS and merges in another order; 5.23 reads SmolLM2 without its
split of numbers into digits.
"""

from pathlib import Path
from typing import Any

from sdx.process.quiet import quiet

CONTROL, USER_DEFINED = 3, 4
"""Token types of GGUF."""


def convert(gguf: Path, out: Path) -> None:
    """Writes the model in bf16 to `out`, in about half a minute."""
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
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def gguf_tokenizer(gguf: Path) -> Any:
    """The tokenizer that a GGUF file describes: SmolLM2's byte-level BPE or Gemma's SentencePiece BPE."""
    from gguf import GGUFReader
    from tokenizers import AddedToken, processors
    from transformers import PreTrainedTokenizerFast

    fields = {key: field.contents() for key, field in GGUFReader(gguf).fields.items() if "tokenizer." in key}
    table = {key.removeprefix("tokenizer.").removeprefix("ggml."): value for key, value in fields.items()}
    builders = {("gpt2", "smollm"): _byte_level_bpe, ("llama", "default"): _sentencepiece_bpe}
    backend = builders[table["model"], table["pre"]](table)
    for kind, add in ((CONTROL, backend.add_special_tokens), (USER_DEFINED, backend.add_tokens)):
        tokens = [token for token, of in zip(table["tokens"], table["token_type"], strict=True) if of == kind]
        # Runs of spaces are merges of the normalised text.
        add([AddedToken(token, special=kind == CONTROL, normalized=False) for token in tokens if token.strip(" ")])
    names = ("bos", "eos", "unknown", "padding")
    bos, eos, unknown, padding = (table["tokens"][table[f"{name}_token_id"]] for name in names)
    if table["add_bos_token"]:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, table["bos_token_id"])]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token=eos,
        unk_token=unknown,
        # As an input the padding token gets no gradient, and SmolLM2's file names the end of turn.
        pad_token=padding if padding != eos else "<|endoftext|>",
        clean_up_tokenization_spaces=False,
        chat_template=table.get("chat_template"),
    )
    assert len(tokenizer) == len(table["tokens"])
    return tokenizer


def _byte_level_bpe(table: dict[str, Any]) -> Any:
    """GPT-2's BPE, after SmolLM2's split of numbers into digits."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {token: id_ for id_, token in enumerate(table["tokens"])}
    backend = Tokenizer(models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in table["merges"]]))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece_bpe(table: dict[str, Any]) -> Any:
    """Gemma's BPE, with `▁` for spaces: two pieces merge if the vocabulary has them joined, the lowest id first.

    The scores in the file give the same order, except among runs of spaces, where they give none.
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
