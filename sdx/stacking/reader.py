"""A trained stack, or a part of one, that reads rows of a task."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdx.languages import Language
from sdx.preemption import finishing
from sdx.progress import Progress

BATCH_TOKENS = {True: 16_384, False: 2048}
"""Of a batch, padding included, with and without CUDA. On a CPU more were a fifth slower. Ours."""


_held: list[tuple[Path, Any]] = []


def load_reader(model_dir: Path, parts: Mapping[str, Path]) -> Any:
    """The model of the class that was trained, for inference, on this process' GPU where there is one.

    It is kept until another is asked for: a model answers one language after the other.
    """
    if _held and _held[0][0] == model_dir:
        return _held[0][1]
    release()
    _held.append((model_dir, _loaded(model_dir, parts)))
    return _held[0][1]


def release() -> None:
    """Frees the memory of what `load_reader` keeps."""
    import torch

    _held.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _loaded(model_dir: Path, parts: Mapping[str, Path]) -> Any:
    from sdx.models import stack, stack_generation
    from sdx.models.loading import quiet
    from sdx.ranks import device

    quiet()
    config = stack.StackConfig.from_pretrained(model_dir)
    name = config.architectures[0]
    kind = getattr(stack_generation if hasattr(stack_generation, name) else stack, name)
    model = kind.from_pretrained(model_dir, config=config, parts=parts)
    return model.to(device()).eval()


def read_batches(
    model: Any, rows: Sequence[Mapping[str, Any]], language: Language, max_tokens: int, label: str
) -> Iterator[tuple[list[int], Any, Any]]:
    """Places of the rows of a batch, their vectors `[texts, spans, hidden]` and, of a model with a head, logits.

    Rows of like length are read together; a row's vectors do not depend on the others.
    """
    import torch

    from sdx.stacking.examples import examples
    from sdx.training.reading import Reader, pooled

    segments = model.segments(language.flores)
    texts = examples(rows, segments, max_tokens)
    reader = Reader(model.encoder is not None, model.llm is not None, model.pad_id)
    progress = Progress(label, len(rows), "texts")
    for places in _batches([len(text.input_ids) for text in texts], BATCH_TOKENS[model.device.type == "cuda"]):
        batch = [texts[place] for place in places]
        collated = reader.collate([one.input_ids for one in batch], [one.spans for one in batch], packed=False)
        moved = {name: _moved(value, model.device) for name, value in collated.items()}
        with finishing():
            with torch.inference_mode():
                vectors = pooled(model.states(**moved["inputs"]), moved).view(len(batch), -1, model.config.hidden_size)
                logits = None
                if hasattr(model, "classify"):
                    logits = model.classify(vectors if rows[0]["choices"] else vectors.squeeze(1))
            yield places, vectors, logits
            progress.update(len(batch))
    progress.close()


def written_batches(
    model: Any, rows: Sequence[Mapping[str, Any]], language: Language, max_tokens: int, max_new_tokens: int, label: str
) -> Iterator[tuple[list[int], list[str]]]:
    """Places of the rows of a batch, and what a model that writes makes of them."""
    from sdx.stacking.examples import read

    segments = model.segments(language.flores)
    texts = [one.ids for one in read(rows, segments, max_tokens)]
    progress = Progress(label, len(rows), "texts")
    for places in _batches([len(ids) + max_new_tokens for ids in texts], BATCH_TOKENS[model.device.type == "cuda"]):
        with finishing():
            yield places, model.write([texts[place] for place in places], max_new_tokens)
            progress.update(len(places))
    progress.close()


def _moved(value: Any, device: Any) -> Any:
    from accelerate.utils import send_to_device

    return send_to_device(value, device)


def _batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Places, the longest first."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > most:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
