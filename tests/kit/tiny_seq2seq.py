"""Random encoder-decoders of each family that translates, with the files that its checkpoints have."""

from pathlib import Path
from typing import Any

from sdx.store.files import read_json, write_json
from tests.kit.tiny import LINES, tiny_encoder, tiny_nllb

SIZES = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "init_std": 0.5,
    "max_position_embeddings": 512,
    "dtype": "float32",
}


def ending(path: Path, factor: float = 3.0) -> Path:
    """The model in a directory, changed so that it ends its translations, after more or fewer tokens: a random one
    repeats itself up to the limit."""
    from transformers import AutoModelForSeq2SeqLM

    model = AutoModelForSeq2SeqLM.from_pretrained(path)
    model.get_input_embeddings().weight.data[model.config.eos_token_id] *= factor
    model.save_pretrained(path)
    return path


def tiny_marian(path: Path, targets: tuple[str, ...] = (), seed: int = 0, **settings: str) -> Path:
    """As OPUS-MT comes: `source.spm`, `target.spm`, `vocab.json` and the tokenizer's settings.

    Args:
        targets: tokens such as `>>fra<<`.
        settings: `source_lang` and `target_lang` in tokenizer_config.json.
    """
    from transformers import MarianConfig, MarianMTModel

    path.mkdir(parents=True)
    pieces = [piece for piece in _pieces(path / "source.spm") if piece not in ("<s>", "</s>", "<unk>")]
    (path / "target.spm").write_bytes((path / "source.spm").read_bytes())
    tokens = ["</s>", "<unk>", *targets, *pieces, "<pad>"]
    write_json(path / "vocab.json", {token: id_ for id_, token in enumerate(tokens)})
    write_json(path / "tokenizer_config.json", {"tokenizer_class": "MarianTokenizer", **settings})
    pad = {"pad_token_id": len(tokens) - 1, "decoder_start_token_id": len(tokens) - 1, "eos_token_id": 0}
    return _save(path, MarianMTModel, MarianConfig(**SIZES, vocab_size=len(tokens), **pad), seed)


def tiny_m2m(path: Path, seed: int = 0) -> Path:
    """As M2M-100 comes: `sentencepiece.bpe.model`, `vocab.json` without the codes, and the codes as special tokens."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration
    from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

    path.mkdir(parents=True)
    pieces = [piece for piece in _pieces(path / "sentencepiece.bpe.model") if piece not in ("<s>", "</s>", "<unk>")]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *pieces]
    codes = [f"__{code}__" for code in FAIRSEQ_LANGUAGE_CODES["m2m100"]]
    write_json(path / "vocab.json", {token: id_ for id_, token in enumerate(tokens)})
    write_json(path / "special_tokens_map.json", {"additional_special_tokens": codes})
    write_json(path / "tokenizer_config.json", {"tokenizer_class": "M2M100Tokenizer"})
    madeup = 8
    config = M2M100Config(**SIZES, vocab_size=len(tokens) + len(codes) + madeup)
    return _save(path, M2M100ForConditionalGeneration, config, seed)


def tiny_mbart(path: Path) -> Path:
    """An mBART-50 of English and Thai with a tokenizer.json."""
    tiny_encoder(path, "mbart50")
    config = read_json(path / "config.json")
    config |= {"tokenizer_class": "MBart50Tokenizer", "decoder_start_token_id": config["eos_token_id"]}
    config |= {"normalize_before": True, "normalize_embedding": True}
    write_json(path / "config.json", config)
    return path


FAMILIES = {
    "nllb": tiny_nllb,
    "m2m": tiny_m2m,
    "mbart": tiny_mbart,
    "marian": lambda path: tiny_marian(path, source_lang="en", target_lang="th"),
    "marian to several": lambda path: tiny_marian(path, (">>tha<<", ">>hin<<"), source_lang="en", target_lang="mul"),
}


def _pieces(file: Path) -> list[str]:
    """Trains SentencePiece into `file`; its pieces."""
    import sentencepiece

    prefix = file.with_suffix("")
    options = {"vocab_size": 100, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(LINES * 5), model_prefix=str(prefix), **options)
    Path(f"{prefix}.model").rename(file)
    Path(f"{prefix}.vocab").unlink()
    processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
    return [processor.id_to_piece(id_) for id_ in range(len(processor))]


def _save(path: Path, kind: Any, config: Any, seed: int) -> Path:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config)
    model.save_pretrained(path)
    return path
