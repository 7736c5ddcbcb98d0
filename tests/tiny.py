"""A two-layer random model with a real tokenizer, made in well under a second."""

from pathlib import Path

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


def tiny_model(path: Path, chat: bool = True, seed: int = 0) -> Path:
    """Saves a Llama of 2 layers, hidden 64, fp32, and its tokenizer at `path`, which it returns."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer(chat)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        # Wide, so that greedy answers differ from prompt to prompt instead of repeating one token.
        initializer_range=0.2,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
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


def tiny_nllb(path: Path, codes: tuple[str, ...] = NLLB_CODES, seed: int = 0) -> Path:
    """Saves an NLLB of 2 + 2 layers, hidden 32, fp32, random, and a tokenizer of single characters at `path`.

    It knows the letters of Latin, Devanagari and Thai, and the languages of `codes`; others are `<unk>`.
    """
    import torch
    from transformers import M2M100Config, M2M100ForConditionalGeneration, NllbTokenizer

    blocks = (range(0x21, 0x180), range(0x900, 0x980), range(0xE00, 0xE60))
    letters = [chr(point) for block in blocks for point in block if chr(point).isprintable()]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "▁", *letters, *codes, "<mask>"]
    vocabulary = {token: id_ for id_, token in enumerate(tokens)}
    tokenizer = NllbTokenizer(vocab=vocabulary, merges=[], extra_special_tokens=list(codes))
    config = M2M100Config(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        # Wide, so that translations differ from sentence to sentence.
        init_std=0.5,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = M2M100ForConditionalGeneration(config)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
