"""The models that are trained: real weights from sdx's cache, or a shape with random weights."""

from pathlib import Path
from typing import Any

from sdx.config import BackboneConfig
from sdx.store.store import Store

REAL = ("smollm2",)
SHAPES: dict[str, dict[str, int]] = {
    "llama2-7b-shape": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
    },
    "llama-1b-shape": {
        "vocab_size": 32000,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 4096,
    },
    "tiny": {
        "vocab_size": 400,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
    },
}
MODELS = (*REAL, *SHAPES)
SPECIAL = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}


def smollm2(store: Store) -> Path:
    """SmolLM2-135M-Instruct as every run of sdx has it."""
    from sdx.models.backbone import backbone_step

    return store.realise(backbone_step(BackboneConfig(name="smollm2_135m", asset="smollm2_135m"))) / "model"


def random_model(name: str, out: str) -> dict[str, Any]:
    """Saves a Llama of a shape of `SHAPES` with random bf16 weights and a tokenizer of special tokens in `out`.

    A directory is what all contestants load. The weights are drawn on the GPU where there is one: 13 GB in seconds.
    """
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    pad, bos, eos, unknown = SPECIAL
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(SPECIAL, unk_token=unknown)),
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        unk_token=unknown,
    )
    tokenizer.save_pretrained(out)
    torch.manual_seed(0)
    ids = {"pad_token_id": SPECIAL[pad], "bos_token_id": SPECIAL[bos], "eos_token_id": SPECIAL[eos]}
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM._from_config(LlamaConfig(**SHAPES[name], **ids), dtype=torch.bfloat16)
    model.save_pretrained(out)
    return {"parameters": sum(weight.numel() for weight in model.parameters())}
