"""A trained stack, or a part of one, that reads rows of a task."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdx.config import Precision
from sdx.languages import Language
from sdx.models.loading import dtype_of, quiet, straight
from sdx.models.residency import resident
from sdx.progress import Progress

SHORTER = "lower scale.max_length_tokens or take a GPU with more memory"


def load_reader(model_dir: Path, parts: Mapping[str, Path], precision: Precision) -> Any:
    """The model of the class that was trained, for inference, on this process' GPU where there is one.

    It is kept until another is asked for: a model answers one language after the other.
    """
    what = ("stack", model_dir, (precision, *sorted(parts.items())))
    return resident(what, lambda: _loaded(model_dir, parts, precision)).model


def _loaded(model_dir: Path, parts: Mapping[str, Path], precision: Precision) -> Any:
    from sdx.models import stack, stack_generation

    quiet()
    config = stack.StackConfig.from_pretrained(model_dir)
    name = config.architectures[0]
    kind = getattr(stack_generation if hasattr(stack_generation, name) else stack, name)
    return kind.from_pretrained(model_dir, config=config, parts=parts, dtype=dtype_of(precision), **straight())


def read_batches(
    model: Any, rows: Sequence[Mapping[str, Any]], language: Language, max_tokens: int, label: str
) -> Iterator[tuple[list[int], Any, Any]]:
    """Places of the rows of a batch, their vectors `[texts, spans, hidden]` and, of a model with a head, logits.

    Rows of like length are read together; a row's vectors do not depend on the others.
    """
    import torch

    from sdx.models.stack_batches import in_batches
    from sdx.stacking.examples import examples
    from sdx.training.reading import Reader, pooled

    segments = model.segments(language.flores)
    texts = examples(rows, segments, max_tokens)
    reader = Reader(model.encoder is not None, model.llm is not None, model.pad_id)
    progress = Progress(label, len(rows), "texts")
    lengths = [len(text.input_ids) for text in texts]

    def work(places: list[int]) -> tuple[Any, Any]:
        batch = [texts[place] for place in places]
        collated = reader.collate([one.input_ids for one in batch], [one.spans for one in batch], packed=False)
        moved = {name: _moved(value, model.device) for name, value in collated.items()}
        with torch.inference_mode():
            vectors = pooled(model.states(**moved["inputs"]), moved).view(len(batch), -1, model.config.hidden_size)
            if not hasattr(model, "classify"):
                return vectors, None
            return vectors, model.classify(vectors if rows[0]["choices"] else vectors.squeeze(1))

    for places, (vectors, logits) in in_batches(model, lengths, work, SHORTER):
        yield places, vectors, logits
        progress.update(len(places))
    progress.close()


def written_batches(
    model: Any, rows: Sequence[Mapping[str, Any]], language: Language, max_tokens: int, max_new_tokens: int, label: str
) -> Iterator[tuple[list[int], list[str]]]:
    """Places of the rows of a batch, and what a model that writes makes of them."""
    from sdx.models.stack_batches import in_batches
    from sdx.stacking.examples import read

    segments = model.segments(language.flores)
    texts = [one.ids for one in read(rows, segments, max_tokens)]
    progress = Progress(label, len(rows), "texts")
    lengths = [len(ids) + max_new_tokens for ids in texts]
    written = in_batches(
        model,
        lengths,
        lambda places: model.write([texts[place] for place in places], max_new_tokens),
        SHORTER,
        writes=True,
    )
    for places, answers in written:
        yield places, answers
        progress.update(len(places))
    progress.close()


def _moved(value: Any, device: Any) -> Any:
    from accelerate.utils import send_to_device

    return send_to_device(value, device)
