"""The mix in tokens: those of every row alone, however many processes made them, killed or not, and read from disk."""

import json
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest

from sdx import InputError
from sdx.config import TemplateKind
from sdx.models.backbone import load_tokenizer
from sdx.models.template import encode_example, encode_plain
from sdx.process import pool
from sdx.store.store import Store
from sdx.training.tokens import Examples
from tests.kit.token_step import LIMIT, ROWS, step


def made(model_dir: Path, cache: Path, **options: Any) -> Path:
    return Store(cache).realise(step(model_dir, **options))


def digests(directory: Path) -> dict[str, str]:
    files = (path for path in directory.iterdir() if path.name != "manifest.json")
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in files}


def test_each_row_has_the_tokens_that_it_has_alone(model_dir: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(model_dir, TemplateKind.auto)
    encode = {False: encode_example, True: encode_plain}
    alone = [encode[row["subset"] == "plain"](tokenizer, row["prompt"], row["response"]) for row in ROWS]
    usable = [number for number, (ids, _) in enumerate(alone) if len(ids) <= LIMIT]
    assert 0 < len(usable) < len(ROWS)
    found = Examples(made(model_dir, tmp_path))
    assert [([*one.input_ids], one.prompt_tokens) for one in found] == [alone[number] for number in usable]
    assert [*found.lengths] == [len(one.input_ids) for one in found]
    assert found.too_long == len(ROWS) - len(usable)
    assert found.subsets == {
        name: sum(ROWS[number]["subset"] == name for number in usable) for name in ("ll", "plain", "tt")
    }
    assert found[-1].id == f"line {usable[-1] + 1} of the mix"
    groups = {number: found[place].group for place, number in enumerate(usable)}
    for one in usable:
        for other in usable:
            assert (groups[one] == groups[other]) == (ROWS[one]["source_id"] == ROWS[other]["source_id"])


def test_the_same_questions_are_held_out_of_every_mix(model_dir: Path, tmp_path: Path) -> None:
    """By the draw of earlier versions, so that a mix is split as it was."""
    for number, rows in enumerate((ROWS, ROWS[::-1], ROWS[:40])):
        found = Examples(made(model_dir, tmp_path / str(number), limit=1000, rows=rows))
        trained, held = found.split(5)
        names = {int(one.id.split()[1]) - 1: one.group for one in held}
        first = sorted({row["source_id"] for row in rows}, key=lambda name: Random(f"validation {name}").random())[:5]
        assert sorted({rows[line]["source_id"] for line in names}) == sorted(first)
        assert not {one.group for one in trained} & set(names.values())
        assert len(trained) + len(held) == len(found)
    assert [len(part) for part in found.split(0)] == [len(found), 0]
    assert [len(part) for part in found.split(10**6)] == [0, len(found)]


def test_a_limit_that_leaves_nothing(model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scale\.max_length_tokens=3 is shorter than every training example"):
        made(model_dir, tmp_path, limit=3)
    with pytest.raises(InputError, match=r"scale\.max_length_tokens=5000 exceeds the model's context of 1024"):
        made(model_dir, tmp_path, limit=5000)


@pytest.mark.long
def test_bytes_depend_neither_on_processes_nor_on_kills(model_dir: Path, tmp_path: Path) -> None:
    calm = digests(made(model_dir, tmp_path / "calm"))
    cache = tmp_path / "killed"
    command = [sys.executable, "-m", "tests.kit.token_step", str(cache), str(model_dir)]
    killed_with_work = 0
    for logs in (1, 2):  # of two processes that came before, each killed with a batch or more on the disk
        process = subprocess.Popen(command)
        while process.poll() is None and len([*cache.glob("artifacts/tokens/*.partial/rows.*.log")]) < logs:
            time.sleep(0.005)
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        killed_with_work += process.wait() == -signal.SIGKILL
    assert killed_with_work
    subprocess.run(command, check=True)
    [found] = cache.glob(f"artifacts/tokens/{step(model_dir).key}")
    assert digests(found) == calm
    assert json.loads((found / "manifest.json").read_text())["resumed"]


def test_the_tokens_are_made_in_other_processes_if_there_are_many_rows(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = digests(made(model_dir, tmp_path / "calm"))
    for module, name, value in (pool, "PIECE", 16), (pool, "FEWEST", 1), (pool, "cores", lambda: 2):
        monkeypatch.setattr(module, name, value)
    assert digests(made(model_dir, tmp_path / "pool")) == calm
