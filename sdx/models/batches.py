"""How many rows of a batch fit in a GPU's memory. Estimates of ours, in bytes.

L layers, h hidden size, f intermediate size, k width of keys, V vocabulary, w bytes of a number: 2 in bf16, 4 in fp32.

    a token in the cache   w (2Lk + 2h)   keys and values of all layers, and those of one layer repeated for all heads
    a token that is read   w (3f + 6h)    in one layer: the gated MLP, and the states around it
    a choice of a token    (w + 4) V      logits, and their softmax in fp32; in beam search (w + 16) V for each beam
    a prompt of p tokens   (1 + 2w) p^2   the mask of padded rows, as booleans and twice in the dtype of attention

A batch may take `USABLE` of the card minus the weights. The rest is for CUDA's context and the allocator's fragments.
The budget depends only on card and model, so a resumed run plans the same batches as an uninterrupted one.

LLaMA-2-7B in bf16 (L = 32, h = k = 4096, f = 11008): a token takes 528 KiB in the cache and 112.5 KiB to be read, so a
prompt of 2,432 tokens with an answer of 128 takes 2,560 x 528 KiB + 2,432 x 112.5 KiB + 28 MiB = 1.58 GiB. 0.85 x 80
GiB minus 12.55 GiB of weights leave 55.4 GiB: 35 rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sdx.config import Precision, ShapeConfig

USABLE = 0.85
"""Share of a card that weights and batches may take. Ours."""
SEARCH_BYTES = 16
"""Beam search holds four tables of log-probabilities in fp32 at once."""


@dataclass(frozen=True)
class Most:
    """The largest batch. On a CPU larger ones were slower when measured; on a GPU they gain little. Ours."""

    cpu: int
    gpu: int

    def on(self, is_cuda: bool, given: int | None = None) -> int:
        """Args: given: the user's limit, for both devices."""
        return given or (self.gpu if is_cuda else self.cpu)


@dataclass(frozen=True)
class Arithmetic:
    """The precision of a model's arithmetic on each device."""

    cpu: Precision
    gpu: Precision

    def on(self, is_cuda: bool) -> Precision:
        return self.gpu if is_cuda else self.cpu


BF16 = Arithmetic(Precision.bf16, Precision.bf16)


def number_bytes(precision: Precision) -> int:
    """Of a weight or an activation."""
    return {Precision.int8: 1, Precision.bf16: 2}.get(precision, 4)


ROWS = Most(cpu=32, gpu=256)
"""Prompts to complete, or sentences to translate."""
QUESTIONS = Most(cpu=8, gpu=64)
"""Questions to score, each with all its answers."""
READ_TOKENS = Most(cpu=2048, gpu=65_536)
"""Tokens that a stack reads, padding included."""


@dataclass(frozen=True)
class RowBytes:
    """Bytes that a row of a batch takes beside the weights. Arguments are numbers of tokens, except `beams`."""

    shape: ShapeConfig
    """With the layers of the decoder, for an encoder-decoder."""
    number_bytes: int
    """w."""

    @property
    def cached(self) -> float:
        """For a token in the cache."""
        return self.number_bytes * (2 * self.shape.layers * self.shape.kv_width + 2 * self.shape.hidden_size)

    @property
    def read(self) -> float:
        """For a token in a forward pass over given text."""
        return self.number_bytes * (3 * self.shape.intermediate_size + 6 * self.shape.hidden_size)

    def completed(self, prompt: int, answer: int) -> float:
        """For a model that reads a prompt and writes an answer."""
        chosen = (self.number_bytes + 4) * self.shape.vocab_size
        mask = (1 + 2 * self.number_bytes) * prompt**2
        return (prompt + answer) * self.cached + prompt * self.read + mask + chosen

    def translated(self, source: int, target: int, beams: int) -> float:
        """For an encoder-decoder, whose cache also has the source's tokens for cross-attention."""
        chosen = (self.number_bytes + SEARCH_BYTES) * self.shape.vocab_size
        return beams * ((source + target) * self.cached + chosen) + source * self.read

    def scored(self, question: int, answers: Sequence[int]) -> float:
        """Each answer of two tokens or more has a copy of the question's cache, and logits at each token."""
        longer = [tokens for tokens in answers if tokens > 1]
        copies = (len(longer) + 1) * question if longer else 0
        tokens = len(longer) * max(longer, default=0)
        logits = self.number_bytes * tokens * self.shape.vocab_size + (self.number_bytes + 4) * self.shape.vocab_size
        return (copies + tokens) * self.cached + (question + tokens) * self.read + logits


def room_bytes(card_bytes: float, weights_bytes: float) -> float:
    """The memory for a batch."""
    return USABLE * card_bytes - weights_bytes


def cut(sizes: Sequence[float], room: float, most: int) -> Iterator[slice]:
    """Splits neighbouring rows into batches of at most `room` bytes and `most` rows, but at least one row.

    Padding makes all rows of a batch as large as the largest.
    """
    start, largest = 0, 0.0
    for row, size in enumerate(sizes):
        largest = max(largest, size)
        if row > start and (row - start == most or (row - start + 1) * largest > room):
            yield slice(start, row)
            start, largest = row, size
    if sizes:
        yield slice(start, len(sizes))
