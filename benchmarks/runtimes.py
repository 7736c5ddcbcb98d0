"""What translating costs with transformers and with CTranslate2, in turns in one process."""

import random
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import wait_for_device
from benchmarks.readings import NLLB_600M
from sdx.config import Precision, Runtime
from sdx.store.store import Store
from sdx.translation.search import Search
from sdx.translation.seq2seq import Seq2Seq

CODES = ("eng_Latn", "tha_Thai")
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
LENGTHS = (10, 40)
"""Tokens of a made-up sentence, evenly spread."""
WARM_UP = 4
"""Sentences translated before the clock runs."""


def measure(
    place: str, ways: list[str], count: int, beams: int, tokens: int, batch_size: int, rounds: int
) -> dict[str, Any]:
    """Every way in turns, each over the same made-up sentences.

    Args:
        place: holds `model/`, as `write_shape` makes it; converted models are put beside it.
        ways: runtime and precision, as `ctranslate2 int8`.
        tokens: of each translation: a random model ends none.

    Returns:
        `runs`: for each way and round `way`, `round`, `seconds`; `tokens` of the sentences; `device`.
    """
    import torch

    pick = random.Random(0)
    words = range(len(SPECIAL), NLLB_600M["vocab_size"] - len(CODES))
    sources = [[pick.choice(words) for _ in range(pick.randint(*LENGTHS))] for _ in range(count)]
    runs, translated = [], {way: _translating(Path(place), way, beams, tokens, batch_size) for way in ways}
    for translate in translated.values():
        translate(sources[:WARM_UP])
    for number in range(1, rounds + 1):
        for way, translate in translated.items():
            wait_for_device()
            began = time.perf_counter()
            translate(sources)
            wait_for_device()
            runs.append({"way": way, "round": number, "seconds": time.perf_counter() - began})
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {"runs": runs, "tokens": sum(map(len, sources)), "device": device}


def _translating(place: Path, way: str, beams: int, tokens: int, batch_size: int) -> Any:
    """A function that translates ids; the engine stays loaded, which `sdx.models.residency` would not let it."""
    from sdx.models import residency

    runtime, precision = way.split()
    translator = Seq2Seq(
        None, None, str(place / "model"), batch_size or None, Precision(precision), beams, Runtime(runtime)
    )
    store = Store(place / "cache")
    translator.prepare({name: store.realise(step) for name, step in translator.needs(*CODES).items()})
    engine, vocabulary = translator._ready()
    residency._held.clear()
    source, target, end = (vocabulary.ids[token] for token in (*CODES, "</s>"))
    search = Search(beams, target, tokens)
    return lambda rows: translator._search(engine, [[source, *row, end] for row in rows], search, vocabulary)


def write_shape(place: str) -> dict[str, Any]:
    """Writes `model/`: NLLB-200-600M's shape with random weights in bf16, 1.2 GB, and a vocabulary of made-up words."""
    import torch
    from tokenizers import AddedToken, Tokenizer, models
    from transformers import M2M100Config, M2M100ForConditionalGeneration

    size = NLLB_600M["vocab_size"]
    words = [f"w{number}" for number in range(size - len(SPECIAL) - len(CODES))]
    ids = {token: id_ for id_, token in enumerate((*SPECIAL, *words, *CODES))}
    tokenizer = Tokenizer(models.WordLevel(ids, "<unk>"))
    tokenizer.add_special_tokens([AddedToken(token) for token in (*SPECIAL, *CODES)])
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = M2M100ForConditionalGeneration(M2M100Config(**NLLB_600M))
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(Path(place, "model"))
    tokenizer.save(str(Path(place, "model", "tokenizer.json")))
    return {}
