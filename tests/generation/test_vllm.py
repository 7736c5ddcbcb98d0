"""Real vLLM, of the interpreter that SDX_VLLM_PYTHON names: the answers of the model in this process, whatever dies."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from sdx.config import Precision, TemplateKind
from sdx.generation.hf import HFGenerator
from sdx.generation.sampling import Sampling
from sdx.generation.vllm import VLLMGenerator
from sdx.models import residency
from sdx.store.batch_log import BatchLog
from tests.kit.tiny import tiny_model

PYTHON = os.environ.get("SDX_VLLM_PYTHON", "")
pytestmark = [pytest.mark.vllm, pytest.mark.skipif(not PYTHON, reason="SDX_VLLM_PYTHON names no interpreter")]
PROMPTS = [
    f"{before} {word}"
    for before in ("How many legs does a", "The quick brown", "Quantas patas tem um", "ประเทศไทย")
    for word in ("dog have?", "fox", "cão", "สวัสดีครับ", "carbon dioxide", "lazy lazy lazy dog")
]
WORKER = """
import sys
from pathlib import Path
from sdx.config import Precision
from sdx.generation.vllm import VLLMGenerator
from tests.kit.generated import generate_rows
python, model, out = sys.argv[1:]
prompts = Path(out).with_suffix(".txt").read_text().splitlines()
rows = [{"id": str(number), "prompt": prompt} for number, prompt in enumerate(prompts)]
generate_rows(VLLMGenerator(python, batch_size=2, precision=Precision.fp32), Path(model), rows, Path(out), 64)
"""


def model(path: Path, chat: bool = True) -> Path:
    """With heads of a size that vLLM's kernels for CPUs have."""
    return tiny_model(path, chat, hidden_size=256, num_attention_heads=4, num_key_value_heads=2)


@pytest.fixture
def both(tmp_path: Path):
    yield lambda chat: _both(model(tmp_path / f"chat-{chat}", chat))
    residency.release()


def _both(model_dir: Path) -> tuple[VLLMGenerator, HFGenerator]:
    made = VLLMGenerator(PYTHON, batch_size=None, precision=Precision.fp32), HFGenerator(None, Precision.fp32)
    for generator in made:
        generator.load(model_dir, TemplateKind.auto)
    return made


@pytest.mark.parametrize("chat", [True, False])
def test_greedy_answers_are_those_of_transformers(both, chat: bool):
    vllm, hf = both(chat)
    limits, shared = [20 + n for n in range(len(PROMPTS))], "English: a dog\nThai: x ### "
    lines = [f"{shared}English: {prompt}\nThai:" for prompt in PROMPTS]
    asked = (
        lambda engine: engine.complete(PROMPTS, 40),
        lambda engine: engine.complete(PROMPTS, 40, sampling=Sampling(repetition_penalty=1.3)),
        lambda engine: engine.complete_lines(lines, limits, shared, end=" ### "),
        lambda engine: engine.complete_lines(lines, limits, shared),
    )
    theirs, ours = ([ask(engine) for ask in asked] for engine in (vllm, hf))
    for one, other in zip(theirs, ours, strict=True):
        assert sum(a == b for a, b in zip(one, other, strict=True)) >= 0.95 * len(PROMPTS)
    assert any(answer.finished for answer in theirs[-1])


def test_a_sampled_answer_is_its_row_s_own(both):
    vllm, _ = both(True)
    sampling, ids = Sampling(temperature=0.9, top_p=0.95, top_k=50), [str(n) for n in range(len(PROMPTS))]
    together = vllm.complete(PROMPTS, 20, sampling=sampling, ids=ids)
    backwards = vllm.complete(PROMPTS[::-1], 20, sampling=sampling, ids=ids[::-1])
    assert sum(a == b for a, b in zip(together, backwards[::-1], strict=True)) >= 0.95 * len(PROMPTS)
    other = vllm.complete(PROMPTS, 20, sampling=sampling, ids=[f"another {id_}" for id_ in ids])
    assert sum(a == b for a, b in zip(together, other, strict=True)) < 0.5 * len(PROMPTS)


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        found += [int(stat.parent.name)] if parent == pid else []
    return found


@pytest.mark.slow
def test_killed_five_times_no_row_is_lost_or_twice(tmp_path: Path):
    """The parent or its child, at a random time after a batch was written."""
    place, draw = model(tmp_path / "model"), random.Random(os.environ.get("SDX_TEST_SEED", time.time_ns()))

    def start(out: str) -> "subprocess.Popen[bytes]":
        (tmp_path / f"{out}.txt").write_text("\n".join(PROMPTS))
        with (tmp_path / f"{out}.err").open("ab") as errors:
            command = [sys.executable, "-c", WORKER, PYTHON, str(place), str(tmp_path / out)]
            return subprocess.Popen(command, stderr=errors, env={**os.environ, "PYTHONPATH": os.getcwd()})

    assert start("calm").wait() == 0, (tmp_path / "calm.err").read_text()
    seen, started = 0, []

    def logged() -> list[str]:
        logs = (tmp_path / "killed").glob("rows.*.log")
        return [id_ for log in logs for _, rows in BatchLog.batches(log) for id_, *_ in rows]

    for kill in range(5):
        process = start("killed")
        while process.poll() is None and len(logged()) <= seen:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.3))
        if process.poll() is not None:  # all rows were done before
            break
        [child] = children(process.pid)
        started.append(child)
        os.kill(child if kill % 2 else process.pid, signal.SIGKILL)
        assert process.wait(60) != 0
        seen = len(logged())
    assert start("killed").wait() == 0, (tmp_path / "killed.err").read_text()
    assert (tmp_path / "killed" / "rows.jsonl").read_bytes() == (tmp_path / "calm" / "rows.jsonl").read_bytes()
    assert Counter(logged()) == Counter(map(str, range(len(PROMPTS))))
    assert len(started) == 5
    end = time.monotonic() + 60
    while (left := [pid for pid in started if Path(f"/proc/{pid}").exists()]) and time.monotonic() < end:
        time.sleep(0.1)
    assert not left
