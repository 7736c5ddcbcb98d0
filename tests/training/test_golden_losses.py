"""The losses of a tiny model as they were, full and LoRA: what changes them changes every training.

After a change that is meant, and told in the CHANGELOG: `python -m tests.training.test_golden_losses`.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from sdx.config import Adapter
from tests.kit.tiny import tiny_model
from tests.kit.training import examples, fit, losses

GOLDEN = Path(__file__).with_name("golden_losses.json")
RATES = {"full": 2e-3, "lora": 2e-2}


def trained(adapter: str, directory: Path) -> list[float]:
    """The loss of each of 15 steps, in nats a token."""
    options = {"adapter": Adapter(adapter), "learning_rate": RATES[adapter], "lora_dropout": 0.1}
    fit(tiny_model(directory / "model"), directory / "out", examples(40), epochs=3, **options)
    return losses(directory / "out")


@pytest.mark.parametrize("adapter", RATES)
def test_the_losses_are_what_they_were(adapter: str, tmp_path: Path) -> None:
    assert trained(adapter, tmp_path) == pytest.approx(json.loads(GOLDEN.read_text())[adapter], rel=1e-3)


if __name__ == "__main__":
    found = {}
    for adapter in RATES:
        with TemporaryDirectory() as directory:
            found[adapter] = trained(adapter, Path(directory))
    GOLDEN.write_text(json.dumps(found, indent=0) + "\n")
