"""Steps that are given what other steps would make."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdx.config import BackboneConfig, EncoderConfig, Precision
from sdx.languages import Language
from sdx.models.backbone import backbone_step
from sdx.stacking.alignment_data import TokensStep
from sdx.stacking.bridge import BridgeConfig, Projection
from sdx.stacking.encoder import encoder_step
from sdx.stacking.inference import ClassifyStep
from sdx.stacking.parts import Parts
from sdx.stacking.vectors import VectorsStep
from sdx.store.files import write_rows
from sdx.store.step import Step, Workspace
from tests.kit.plain_step import PlainStep

SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "How many legs does a dog have?",
    "Plants take in carbon dioxide, and give oxygen.",
    "Four.",
    "Which gas do plants take in? It is in the air.",
    "A fox is quick and brown.",
    "The answer is four legs.",
    "Dogs, foxes and plants!",
)
"""Of at most 62 characters: the encoders have 64 positions."""
STEADY = BridgeConfig(standardise=True, start_token=True)
RANDOM = BridgeConfig(Projection.random, standardise=True, start_token=True)


def parts_of(encoder: Path | None, llm: Path | None, prefix: str = "", precision: Precision = Precision.fp32) -> Parts:
    """Directories as parts."""
    return Parts(
        encoder and encoder_step(EncoderConfig(name="given", path=str(encoder))),
        llm and backbone_step(BackboneConfig(name="given", path=str(llm))),
        prefix,
        precision,
    )


def rows_step(**files: Sequence[Mapping[str, Any]]) -> Step:
    """Publishes each as a file of rows."""

    def run(work: Workspace) -> None:
        for name, rows in files.items():
            write_rows(work.dir / f"{name}.jsonl", rows)

    return PlainStep("given", run, {name: list(rows) for name, rows in files.items()})


def texts_step(texts: Sequence[str] = SENTENCES) -> Step:
    return rows_step(rows=[{"id": str(number), "text": text} for number, text in enumerate(texts)])


def tokens_step(parts: Parts, texts: Step, max_tokens: int) -> Step:
    return TokensStep(texts, max_tokens, parts=parts)


def answers_step(model: Step, parts: Parts, items: Step, language: Language, max_tokens: int) -> Step:
    return ClassifyStep(model, max_tokens, language, items, parts=parts, task="questions", tested=language)


def vectors_step(model: Step, parts: Parts, training: Step, language: Language, max_tokens: int) -> Step:
    return VectorsStep(model, max_tokens, language, training, parts=parts, task="questions")


def model_step(model: Any) -> Step:
    """Publishes it as a training does."""

    def run(work: Workspace) -> None:
        model.save_pretrained(work.dir / "model")

    return PlainStep("trained", run)


def labelled(choices: int = 0) -> list[dict[str, Any]]:
    """Rows of a task, of many lengths; labels are 0 to 2, or which answer is right."""
    return [
        {
            "id": f"q{number}",
            "segments": [text[: 8 + 5 * (number % 4)], *(text[k : k + 3 + k] for k in range(choices or 1))],
            "choices": choices,
            "label": number % (choices or 3),
        }
        for number, text in enumerate(SENTENCES)
    ]
