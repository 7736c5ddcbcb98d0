"""The process of `generator=vllm`, with a fake program in the place of vLLM: `tests/kit/fake_vllm.py`."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sdx import InputError
from sdx.config import Precision, TemplateKind
from sdx.generation import vllm, vllm_child
from sdx.generation.sampling import Sampling
from sdx.generation.vllm import VLLMGenerator
from sdx.models import residency
from sdx.models.backbone import load_tokenizer
from sdx.models.template import NEW_TURN, prompt_ids, stop_ids
from tests.kit.tiny import tiny_model

ROOT = Path(__file__).parents[2]
FAKE = ROOT / "tests/kit/fake_vllm.py"
PROMPTS = ["The quick brown fox", "How many legs does a dog have?"]


class Fake:
    """A generator over the fake program, and what that was told."""

    def __init__(self, model_dir: Path, notes: Path) -> None:
        self.notes = notes
        self.generator = VLLMGenerator(sys.executable, batch_size=2, precision=Precision.fp32)
        self.generator.load(model_dir, TemplateKind.auto)
        self.tokenizer = load_tokenizer(model_dir, TemplateKind.auto)

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.notes.read_text().splitlines()]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vllm, "_vllm", lambda python: "vllm 0")
    monkeypatch.setattr(vllm.vllm_child, "__file__", str(FAKE))
    monkeypatch.setenv("FAKE_NOTES", str(tmp_path / "notes"))
    yield lambda **shape: Fake(tiny_model(tmp_path / "model", **shape), tmp_path / "notes")
    residency.release()


def alive(pid: int) -> bool:
    """Whether a process runs; a dead child that nobody waited for does not."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def gone(pid: int, within_s: float = 20) -> bool:
    end = time.monotonic() + within_s
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


@pytest.mark.parametrize("mode", ["", "slow"])
def test_tokens_go_out_and_come_back_whatever_is_printed(fake: Any, mode: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAKE_MODE", mode)
    made = fake()
    answers = made.generator.complete(PROMPTS, 7)
    _, options, batch = made.told
    assert options["dtype"] == "float32"
    assert options["trust_remote_code"] is False
    assert batch["prompts"] == [prompt_ids(made.tokenizer, prompt) for prompt in PROMPTS]
    greedy = Sampling().options
    ends = {"stop_token_ids": stop_ids(made.tokenizer), "ignore_eos": True, "detokenize": False, "max_tokens": 7}
    assert batch["params"] == [{**ends, **greedy}] * 2
    assert [(answer.tokens, answer.finished) for answer in answers] == [(3, True)] * 2
    assert answers[0].text == made.tokenizer.decode(batch["prompts"][0][-2:], skip_special_tokens=True).strip()


def test_strings_that_end_an_answer_and_seeds_are_told(fake: Any):
    made = fake(chat=False)
    sampling = Sampling(temperature=0.5, top_p=0.9, top_k=7, repetition_penalty=1.1)
    made.generator.complete(PROMPTS, 7, sampling=sampling, seeds=[3, 4])
    made.generator.complete_lines(PROMPTS, [5, 6], end=" ### ")
    made.generator.complete_lines(PROMPTS, [5, 6])
    sampled, lines, plain = (each["params"] for each in made.told[2:])
    assert [(each["seed"], each["stop"], each["temperature"]) for each in sampled] == [
        (3, [NEW_TURN], 0.5),
        (4, [NEW_TURN], 0.5),
    ]
    assert [(each["max_tokens"], each["stop"], each.get("seed")) for each in lines] == [
        (5, [" ### "], None),
        (6, [" ### "], None),
    ]
    assert not any(each["skip_special_tokens"] for each in lines)
    assert "stop" not in plain[0]
    assert set(made.tokenizer("\n").input_ids) - {made.tokenizer.bos_token_id} <= set(plain[0]["stop_token_ids"])


def test_a_prompt_that_does_not_fit_in_its_memory_is_passed_over(fake: Any):
    """The tiny model's context is 1,024 tokens, the fake's 300."""
    long, short = fake().generator.complete(["word " * 400, "a"], 7)
    assert (long.text, long.tokens, long.finished) == ("", 0, False)
    assert short.tokens == 3


def test_its_death_is_one_error_and_the_next_run_starts_another(fake: Any, monkeypatch, caplog):
    monkeypatch.setenv("FAKE_MODE", "dies")
    generator = fake().generator
    generator.complete(PROMPTS, 7)
    with pytest.raises(InputError, match=r"generator=vllm ended \(ValueError: no room for the cache\)"):
        generator.complete(PROMPTS, 7)
    assert "| loading" in caplog.text
    monkeypatch.setenv("FAKE_MODE", "")
    assert generator.complete(PROMPTS, 7)[0].tokens == 3


def test_a_kill_is_an_error_too(fake: Any):
    made = fake()
    made.generator.complete(PROMPTS, 7)
    os.kill(made.told[0]["pid"], signal.SIGKILL)
    with pytest.raises(InputError, match="generator=vllm ended"):
        made.generator.complete(PROMPTS, 7)


def test_it_ends_when_another_model_comes(fake: Any):
    made = fake()
    made.generator.complete(PROMPTS, 7)
    pid = made.told[0]["pid"]
    assert alive(pid)
    residency.resident(("other", Path(), None), lambda: "a model")
    assert not alive(pid)


def test_the_launch_is_not_its_own(fake: Any, monkeypatch: pytest.MonkeyPatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "0")
    made = fake()
    made.generator.complete(PROMPTS, 7)
    environment = made.told[0]["environment"]
    assert not [name for name in environment if re.match("RANK|LOCAL_|WORLD|MASTER|TORCHELASTIC", name)]
    assert environment["CUDA_VISIBLE_DEVICES"] == os.environ.get("CUDA_VISIBLE_DEVICES")
    assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


def test_each_worker_has_its_gpus():
    assert vllm.gpus(1, 1, ["0", "1", "2"]) == "1"
    assert vllm.gpus(1, 2, ["4", "5", "6", "7"]) == "6,7"
    with pytest.raises(InputError, match=r"generator\.tensor_parallel=2 needs 4 GPUs for 2 workers, and 3 are visible"):
        vllm.gpus(1, 2, ["4", "5", "6"])


def test_an_interpreter_without_vllm_is_refused_at_once():
    for python, wrong in (("/nowhere/python", "cannot be run"), (sys.executable, "has no vLLM")):
        with pytest.raises(InputError, match=f"generator.python={python} {wrong}"):
            VLLMGenerator(python, batch_size=None, precision=Precision.fp32)


def test_the_program_ends_with_its_parent_even_in_the_middle_of_a_batch(tmp_path: Path):
    """The real program up to where it would import vLLM; a sleep is the batch."""
    code = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "from sdx.generation import vllm_child\n"
        "vllm_child.GRACE_S = 0.2\n"
        "print(next(vllm_child.requests()), flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {code!r}], stdin=subprocess.PIPE, start_new_session=True)\n"
        "child.stdin.write(b'[1]\\n'); child.stdin.flush()\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout
        lines = [started.stdout.readline().strip() for _ in range(2)]
        pid = int(next(line for line in lines if line != "[1]"))
        assert "[1]" in lines
        assert alive(pid)
        started.kill()
    assert gone(pid)
    assert vllm_child.GRACE_S > 1  # idle, it ends in order
