"""Beam search by `generate` of transformers.

In bf16, and on GPUs, the last bits depend on what shares a batch, and may decide between two translations that are
almost equally likely; in fp32 on a CPU this was not seen.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from sdx.config import Precision
from sdx.models.batches import cut
from sdx.models.loading import dtype_of, gpu_options, padded, pretrained
from sdx.process.quiet import unreported
from sdx.translation.search import Search


def load_model(model_dir: Path, precision: Precision) -> Any:
    """The encoder and decoder, for inference, on this process' GPU if it has one."""
    from transformers import AutoModelForSeq2SeqLM, GenerationConfig

    with unreported():  # old checkpoints carry position tables
        model = pretrained(AutoModelForSeq2SeqLM, model_dir, dtype=dtype_of(precision), **gpu_options())
    model.generation_config = GenerationConfig()  # the model's own limits a translation to 200 tokens
    return model.eval()


def translate(model: Any, sources: list[list[int]], search: Search, most: int) -> list[list[int]]:
    """The best translation of each source, special tokens included.

    Args:
        most: sources of a batch, unless memory sets the limit.
    """
    from sdx.models.fit import pieces, room, row_bytes

    order = sorted(range(len(sources)), key=lambda index: -len(sources[index]))  # if the first batch fits, all do
    sources, row = [sources[index] for index in order], row_bytes(model)
    lengths = [len(tokens) for tokens in sources]
    sizes = [row.translated(length, search.room(length), search.beams) for length in lengths]
    outputs = pieces(
        model,
        sizes,
        batches(lengths, sizes, room(model), most, search),
        lambda some: _generate(model, sources[some], search),
        lambda index: f"a sentence of {lengths[index]} tokens",
        f"lower translator.num_beams={search.beams} or take a GPU with more memory",
    )
    found: list[list[int]] = [[]] * len(sources)
    for some, output in outputs:
        for index, tokens in zip(order[some], output, strict=True):
            found[index] = tokens
    return found


def batches(
    lengths: Sequence[int], sizes: Sequence[float], memory: float, most: int, search: Search
) -> Iterator[slice]:
    """Batches of neighbouring sources with the same room, given their lengths in tokens and their sizes in bytes."""
    for _, group in groupby(range(len(lengths)), lambda index: search.room(lengths[index])):
        rows = list(group)
        for batch in cut([sizes[row] for row in rows], memory, most):
            yield slice(rows[0] + batch.start, rows[0] + batch.stop)


def _generate(model: Any, sources: list[list[int]], search: Search) -> list[list[int]]:
    """The best translation of each source, special tokens included. All sources have the same room."""
    import torch
    from transformers import GenerationConfig

    pad_id = model.config.pad_token_id
    config = GenerationConfig(
        num_beams=search.beams,
        do_sample=False,
        max_new_tokens=search.room(max(map(len, sources))),
        forced_bos_token_id=search.prefix,
        suppress_tokens=[pad_id] if model.config.model_type == "marian" else None,  # begins a translation, no word
        decoder_start_token_id=model.config.decoder_start_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=pad_id,
    )
    batch = {name: tensor.to(model.device) for name, tensor in padded(sources, pad_id).items()}
    with torch.inference_mode():
        outputs: list[list[int]] = model.generate(**batch, generation_config=config).tolist()
    return outputs
