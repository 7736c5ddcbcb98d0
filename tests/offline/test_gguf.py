"""Tokenizers of GGUF files."""

from pathlib import Path

from sdx.offline.gguf import gguf_tokenizer


def write_gguf(path: Path, model: str, pre: str, tokens: list[str], types: list[int], merges: list[str] | None) -> Path:
    """A GGUF file that holds a tokenizer: tokens 0 to 3 are padding, EOS, BOS and unknown."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if merges:
        writer.add_token_merges(merges)
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_add_bos_token(model == "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_sentencepiece_tokenizer_of_a_gguf(tmp_path: Path):
    """`ab` merges before `bc`, which has a higher id; spaces run together; other characters become bytes."""
    pieces = ["ab", "bc", "abc", "▁ab", "▁", "a", "b", "c"]
    tokens = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<turn>",
        "\n\n",
        "  ",
        *(f"<0x{n:02X}>" for n in range(256)),
        *pieces,
    ]
    types = [3, 3, 3, 3, 3, 4, 4, *[6] * 256, *[1] * len(pieces)]
    tokenizer = gguf_tokenizer(write_gguf(tmp_path / "x.gguf", "llama", "default", tokens, types, None))
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<bos>", "<eos>", "<pad>")
    assert len(tokenizer) == len(tokens)

    def split(text: str) -> list[str]:
        return tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)

    assert split("abc ab") == ["<bos>", "abc", "▁ab"]
    assert split("bcab") == ["<bos>", "bc", "ab"]
    assert split("a  b\n\nc") == ["<bos>", "a", "▁▁", "b", "\n\n", "c"]
    assert split("<turn>é") == ["<bos>", "<turn>", "<0xC3>", "<0xA9>"]
    for text in ("abc ab  \n\n c", " é<turn>ภ"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_byte_level_tokenizer_of_a_gguf(tmp_path: Path):
    from tokenizers.pre_tokenizers import ByteLevel

    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    tokens = [*special, *sorted(ByteLevel.alphabet()), "ab", "12"]
    types = [*[3] * 4, *[1] * (len(tokens) - 4)]
    path = write_gguf(tmp_path / "x.gguf", "gpt2", "smollm", tokens, types, ["a b", "1 2"])
    tokenizer = gguf_tokenizer(path)
    assert tokenizer.tokenize("ab12<eos>") == ["ab", "1", "2", "<eos>"]  # a merge of digits is out of reach
    assert tokenizer("a").input_ids == tokenizer("a", add_special_tokens=False).input_ids  # no BOS
    assert tokenizer.decode(tokenizer("ab é ภ 12").input_ids) == "ab é ภ 12"
