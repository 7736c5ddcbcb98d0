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
