"""Published rates of engines that are no part of sdx, and the rules by which they apply to other models and devices.

vLLM: a published rate corrects the formula for a serving engine in `times`. The time of a step is the formula's, times
the formula's rate for the published case over the published rate, of the published model that is nearest in size. So
parameters, cache and context of a model count as in the formula, and bandwidth and FLOP/s of a GPU do, too. Reading the
prompts, and the last answers of each batch, are added, although the published rates contain them in part.

CTranslate2: as many times as fast as transformers as published for the same model, beams and batches, in fp32. The
published model is small: a larger one on a GPU takes at least what arithmetic and traffic take.
"""

import math
from dataclasses import dataclass

from sdx.config import ShapeConfig

VLLM, CTRANSLATE2 = "vllm", "ctranslate2"


@dataclass(frozen=True)
class Rate:
    """Output tokens a second of one GPU."""

    model: str
    shape: ShapeConfig
    tokens_per_s: float


VLLM_GPU, VLLM_ROWS = "H100", 256
VLLM_CONTEXT = 1500
"""Mean tokens attended to in the published cases: a document of FineWeb-Edu to rewrite, about 1,000 tokens, and half an
answer of as many. Ours: the source gives neither mean."""
VLLM_RATES = (
    Rate("SmolLM2-135M", ShapeConfig(134_515_008, 30, 576, 1536, 192, 49_152), 28_391),
    Rate("SmolLM2-360M", ShapeConfig(361_821_120, 32, 960, 2560, 320, 49_152), 17_887),
    Rate("Qwen3-0.6B", ShapeConfig(596_049_920, 28, 1024, 3072, 1024, 151_936), 13_527),
    Rate("SmolLM2-1.7B", ShapeConfig(1_711_376_384, 24, 2048, 8192, 2048, 49_152), 5_255),
    Rate("Qwen3-4B", ShapeConfig(4_022_468_096, 36, 2560, 9728, 1024, 151_936), 7_919),
    Rate("Qwen3-8B", ShapeConfig(8_190_735_360, 36, 4096, 12_288, 1024, 151_936), 6_338),
    Rate("Qwen3-14B", ShapeConfig(14_768_307_200, 40, 5120, 17_408, 1024, 151_936), 4_414),
)
"""vLLM 0.15.0 with its defaults (256 sequences, 8,192 tokens a pass) on one H100 of 80 GB, bf16: examples/inference/
benchmark/README.md of huggingface/datatrove. Tuned, SmolLM2-135M reaches 45,540 there and Qwen3-8B 6,443."""
CTRANSLATE2_FACTOR = {"cpu": 525.0 / 147.3, "gpu": 5876.4 / 1022.9}
"""CTranslate2 3.6.0 over transformers 4.26.1, OPUS-MT en-de, beam 4, batches of 32, fp32; four cores of a Xeon 8275CL
and an A10G: README.md of OpenNMT/CTranslate2, target tokens a second. None is published for NLLB on an H100."""
CTRANSLATE2_PATIENCE = 0.72
"""Speed with `patience=2` over that with the default of 1: 0.72 to 0.85, second-hand, for NLLB-3.3B."""


def nearest(shape: ShapeConfig) -> Rate:
    """Of vLLM, for the model that is nearest in parameters, as a ratio."""
    return min(VLLM_RATES, key=lambda rate: abs(math.log(rate.shape.parameters / shape.parameters)))
