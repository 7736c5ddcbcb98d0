"""A two-layer random model with a real tokenizer, made in well under a second."""

from pathlib import Path
from typing import Any

LINES = (
    "The quick brown fox jumps over the lazy dog. How many legs does a dog have? Answer: four.",
    "Question: Which gas do plants take in? Answer: carbon dioxide. Translate the sentence into Portuguese.",
    "O rápido gato castanho salta sobre o cão. Quantas patas tem um cão? Resposta: quatro.",
    "Pergunta: Que gás absorvem as plantas? Resposta: dióxido de carbono. ประเทศไทย ภาษาไทย สวัสดีครับ",
)
VOCABULARY = 400
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>", "<|begin|>")
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tiny_tokenizer(chat: bool = True):
    """A byte-level BPE over `VOCABULARY` tokens.

    Args:
        chat: ChatML template, ends a turn with `<|im_end|>`, no BOS; else no template, `<|begin|>` in front
            of every text and `<|endoftext|>` as EOS, as base models have it. Pad is `<|pad|>` in both.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(LINES, trainer)
    if chat:
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|pad|>")
        tokenizer.chat_template = CHATML
        return tokenizer
    begin = bpe.token_to_id("<|begin|>")
    bpe.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", pair="<|begin|> $A $B", special_tokens=[("<|begin|>", begin)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|begin|>", eos_token="<|endoftext|>", pad_token="<|pad|>"
    )


def tiny_model(path: Path, chat: bool = True, seed: int = 0, **shape: Any) -> Path:
    """Saves a Llama of 2 layers, hidden 64, fp32, and its tokenizer at `path`, which it returns.

    Args:
        shape: fields of its config that are to be other ones.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer(chat)
    fields = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        # Wide, so that greedy answers differ from prompt to prompt instead of repeating one token.
        "initializer_range": 0.2,
        "dtype": "float32",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**fields | shape))
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def tiny_gemma(path: Path) -> Path:
    """Saves a Gemma 3 of 2 layers, hidden 32, fp32, and its tokenizer at `path`: one layer sees 8 tokens only."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        initializer_range=0.5,
        tie_word_embeddings=False,  # tied, a random model repeats its last token
    )
    Gemma3ForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


NLLB_CODES = ("eng_Latn", "tha_Thai", "hin_Deva", "por_Latn")


def tiny_nllb(path: Path, codes: tuple[str, ...] = NLLB_CODES, seed: int = 0, **shape: Any) -> Path:
    """Saves an NLLB of 2 + 2 layers, hidden 32, fp32, random, and a tokenizer of single characters at `path`.

    It knows the letters of Latin, Devanagari and Thai, and the languages of `codes`; others are `<unk>`.

    Args:
        shape: fields of its config that are to be other ones.
    """
    import torch
    from transformers import M2M100Config, M2M100ForConditionalGeneration, NllbTokenizer

    blocks = (range(0x21, 0x180), range(0x900, 0x980), range(0xE00, 0xE60))
    letters = [chr(point) for block in blocks for point in block if chr(point).isprintable()]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "▁", *letters, *codes, "<mask>"]
    vocabulary = {token: id_ for id_, token in enumerate(tokens)}
    tokenizer = NllbTokenizer(vocab=vocabulary, merges=[], extra_special_tokens=list(codes))
    fields = {
        "vocab_size": len(tokenizer),
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        # Wide, so that translations differ from sentence to sentence.
        "init_std": 0.5,
        "dtype": "float32",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = M2M100ForConditionalGeneration(M2M100Config(**fields | shape))
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def _words(pieces: tuple[str, ...], template: dict[str, str]):
    """A tokenizer of single letters with `▁` for spaces; `pieces` have the first ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    blocks = (range(0x21, 0x180), range(0x900, 0x980), range(0xE00, 0xE60))
    letters = [chr(point) for block in blocks for point in block if chr(point).isprintable()]
    vocabulary = {token: id_ for id_, token in enumerate((*pieces, "▁", *letters))}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    special = [(piece, vocabulary[piece]) for piece in pieces]
    backend.post_processor = processors.TemplateProcessing(**template, special_tokens=special)
    return backend


ENCODER_CODES = {"m2m_100": ("__en__", "__th__"), "mbart": ("en_XX", "th_TH")}
ENCODER_TEMPLATES = {
    "bert": {"single": "<s> $A </s>", "pair": "<s> $A </s> </s> $B </s>"},
    "xlm-roberta": {"single": "<s> $A </s>", "pair": "<s> $A </s> </s> $B </s>"},
    "mbart": {"single": "$A </s> en_XX", "pair": "$A $B </s> en_XX"},
    "mbart50": {"single": "en_XX $A </s>", "pair": "en_XX $A $B </s>"},
    "m2m_100": {"single": "__en__ $A </s>", "pair": "__en__ $A $B </s>"},
    "marian": {"single": "$A </s>", "pair": "$A $B </s>"},
    "mt5": {"single": "$A </s>", "pair": "$A </s> $B </s>"},
}


def tiny_encoder(path: Path, kind: str, seed: int = 0) -> Path:
    """Saves a model of 2 (+ 2) layers, hidden 32, fp32, random, and a tokenizer of single characters at `path`.

    Args:
        kind: one of `ENCODER_TEMPLATES`, the type of the model; `mbart` has its code behind the text, `mbart50` in
            front. M2M-100 and mBART know English and Thai.
    """
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

    architecture = "mbart" if kind == "mbart50" else kind
    codes = ENCODER_CODES.get(architecture, ())
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_words(("<s>", "<pad>", "</s>", "<unk>", *codes), ENCODER_TEMPLATES[kind]),
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=list(codes),
    )
    sizes = {"d_model": 32, "vocab_size": len(tokenizer), "pad_token_id": 1, "decoder_start_token_id": 1}
    if architecture == "mt5":
        sizes |= {"d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    elif architecture in ("bert", "xlm-roberta"):
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        sizes |= {"vocab_size": len(tokenizer), "pad_token_id": 1, "initializer_range": 0.5}
        sizes |= {"max_position_embeddings": 66 if architecture == "xlm-roberta" else 64}
    else:
        for side in ("encoder", "decoder"):
            sizes |= {f"{side}_layers": 2, f"{side}_attention_heads": 2, f"{side}_ffn_dim": 64}
        sizes |= {"init_std": 0.5, "max_position_embeddings": 64}
    config = AutoConfig.for_model(architecture, **sizes, dtype="float32")
    whole = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModel
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = whole.from_config(config)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
