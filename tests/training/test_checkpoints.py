"""A resumed training is the same to the last bit, in whatever layout its checkpoint was written and read."""

import errno
import json
import logging
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from sdx import InputError
from sdx.config import Adapter, Optimizer, Precision
from sdx.process.ranks import is_main, rank
from sdx.training import checkpoints
from sdx.training.checkpoints import FILE_BYTES, _share
from sdx.training.trained_state import KINDS, _piece
from tests.kit.processes import Processes
from tests.kit.training import (
    Interrupted,
    Weights,
    assert_equal,
    checkpoints_of,
    examples,
    fit,
    interrupt_after,
    interrupted,
    live_weights,
    replaced,
    rows_of,
    steps_of,
    whole_and_resumed,
)

LORA = {"adapter": Adapter.lora, "lora_dropout": 0.3}
BF16 = {"precision": Precision.bf16}
OFFLOAD = {"offload_optimizer": True}
EIGHT_BIT = {"optimizer": Optimizer.adamw_8bit}
LAYOUTS: dict[str, dict[str, Any]] = {
    **{f"zero{stage}": {"zero_stage": stage} for stage in range(4)},
    **{f"zero{stage}_lora": {"zero_stage": stage, **LORA} for stage in range(4)},
    "zero0_bf16": {"zero_stage": 0, **BF16},
    "zero2_bf16_lora": {"zero_stage": 2, **BF16, **LORA},
    "zero3_bf16": {"zero_stage": 3, **BF16},
    "zero1_bf16_offload": {"zero_stage": 1, **BF16, **OFFLOAD},
    "zero2_offload": {"zero_stage": 2, **OFFLOAD},
    "zero3_bf16_offload": {"zero_stage": 3, **BF16, **OFFLOAD},
    "zero1_bf16_lora_compiled": {"zero_stage": 1, "compile": True, **BF16, **LORA},
    **{f"zero{stage}_8bit": {"zero_stage": stage, **EIGHT_BIT} for stage in range(4)},
}
# Dropout depends on the number of ranks.
TWO_RANKS = {
    name: LAYOUTS[name] | {"lora_dropout": 0.0}
    for name in ("zero0", "zero1", "zero2", "zero3", "zero3_lora", "zero0_bf16")
}


def tensors(checkpoint: Path) -> Weights:
    """All tensors of a checkpoint, by parameter and kind."""
    found: Weights = {}
    for file in (checkpoint / "state").glob("*.pt"):
        for name, kinds in torch.load(file).items():
            found |= {f"{name} {kind}": tensor for kind, tensor in kinds.items()}
    return found


def steps(checkpoint: Path) -> set[int]:
    """AdamW's counts of steps."""
    return {entry["steps"] for entry in json.loads((checkpoint / "state/index.json").read_text()).values()}


@contextmanager
def copied(to: Path) -> Iterator[list[Weights]]:
    """Writes a checkpoint to `to` as soon as a training has read its own; the weights of the model at that time."""
    restore, weights = checkpoints.restore, []

    def restore_and_write(engine: Any, folder: Path) -> dict[str, Any] | None:
        progress = restore(engine, folder)
        assert progress
        weights.append(live_weights(engine))
        checkpoints.save(engine, to, progress)
        return progress

    with replaced(checkpoints, "restore", restore_and_write):
        yield weights


@pytest.mark.parametrize(
    "layout", [pytest.param(name, marks=pytest.mark.slow if "compiled" in name else ()) for name in LAYOUTS]
)
def test_two_steps_and_two_are_four_bit_for_bit(model_dir: Path, tmp_path: Path, layout: str):
    whole, resumed = whole_and_resumed(model_dir, tmp_path, **LAYOUTS[layout])
    assert_equal(resumed, whole)


def test_every_layout_carries_the_very_same_state(model_dir: Path, tmp_path: Path):
    interrupted(model_dir, tmp_path / "0", after=2, save_every_steps=2, zero_stage=0)
    first = tensors(tmp_path / "0/checkpoints/step_2")
    assert {name.split()[1] for name in first} == {"fp32", "exp_avg", "exp_avg_sq"}
    layouts = [name for name in LAYOUTS if "lora" not in name and "8bit" not in name]
    for n, layout in enumerate(layouts):
        to = tmp_path / str(n + 1) / "checkpoints"
        with copied(to) as read, pytest.raises(Interrupted):
            fit(model_dir, tmp_path / str(n), on_log=interrupt_after(3), **LAYOUTS[layout])
        assert_equal(tensors(to / "step_2"), first)
        assert steps(to / "step_2") == {2}
        assert_live(read[0], first)


def assert_live(weights: Weights, kept: Weights) -> None:
    assert_equal({name: kept[f"{name} fp32"].to(weight.dtype) for name, weight in weights.items()}, weights)


def test_another_stage_ends_in_the_same_weights(model_dir: Path, tmp_path: Path):
    whole, _ = fit(model_dir, tmp_path / "whole")
    interrupted(model_dir, tmp_path / "parts", after=1, save_every_steps=1, zero_stage=3)
    interrupted(model_dir, tmp_path / "parts", after=2, save_every_steps=1, zero_stage=2, **OFFLOAD)
    resumed, _ = fit(model_dir, tmp_path / "parts", zero_stage=1)
    assert steps_of(tmp_path / "parts") == [1, 2, 3, 4]
    for name, weight in whole.items():
        torch.testing.assert_close(resumed[name], weight, rtol=0, atol=1e-5)


def through_two_ranks(model_dir: Path, out: Path) -> None:
    """On each of two ranks: the cases of `TWO_RANKS`, and a disk that is full for rank 1 alone."""
    for name in TWO_RANKS:
        options = TWO_RANKS[name] | {"micro_batch_tokens": 1}
        whole, resumed = whole_and_resumed(model_dir, out / f"{name}-two", **options)
        with copied(out / f"{name}-copy") as read:
            interrupted(model_dir, out / name, after=3, save_every_steps=1, **options)
        assert_live(read[0], tensors(out / name / "checkpoints/step_2"))
        if is_main():
            torch.save((whole, resumed), out / f"{name}.pt")
    go_back(model_dir, out / "back", zero_stage=3)
    with replaced(torch, "save", full_for_rank_1(torch.save)):
        weights, _ = fit(model_dir, out / "full", save_every_steps=1, zero_stage=3, micro_batch_tokens=1)
    if is_main():
        torch.save(weights, out / "full.pt")


def go_back(model_dir: Path, out: Path, **options: Any) -> None:
    """An engine that has trained reads an earlier checkpoint: stage 3 keeps small weights whole, beside the pieces."""
    save = checkpoints.save

    def save_and_go_back(engine: Any, folder: Path, progress: dict[str, Any]) -> bool:
        if progress["step"] == 1:
            return save(engine, folder, progress)
        assert checkpoints.restore(engine, folder)
        assert_live(live_weights(engine), tensors(folder / "step_1"))
        raise Interrupted

    with replaced(checkpoints, "save", save_and_go_back), pytest.raises(Interrupted):
        fit(model_dir, out, save_every_steps=1, **options)


def full_for_rank_1(write: Any) -> Any:
    def write_or_fail(content: Any, file: BinaryIO) -> None:
        path = Path(file.name)
        if rank() == 1 and "step_2" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(content, file)
        if "step_3" in str(path):
            (path.parents[3] / f"wrote_{path.name}").touch()
            assert (path.parents[2] / "step_1").exists()
            assert not (path.parents[2] / "step_2").exists()

    return write_or_fail


@pytest.fixture(scope="module")
def two_ranks(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings that one rank began and two ranks resumed."""
    out = tmp_path_factory.mktemp("ranks")
    for name in TWO_RANKS:
        interrupted(model_dir, out / name, after=2, save_every_steps=2, **TWO_RANKS[name])
    processes = Processes(out / "log", through_two_ranks, model_dir, out, ranks=2)
    assert processes.end(timeout_s=200) == [0, 0], processes.log.read_text()
    return out


@pytest.mark.parametrize("name", TWO_RANKS)
def test_one_rank_then_two_then_one(two_ranks: Path, model_dir: Path, tmp_path: Path, name: str):
    whole, resumed = torch.load(two_ranks / f"{name}.pt")
    assert_equal(resumed, whole)  # on two ranks alone
    out = two_ranks / name
    assert checkpoints_of(out) == ["step_2", "step_3"]
    assert {file.name[:7] for file in (out / "checkpoints/step_3/state").glob("*.pt")} == {"rank_0-", "rank_1-"}
    assert_equal(tensors(two_ranks / f"{name}-copy/step_2"), tensors(out / "checkpoints/step_2"))
    resumed, _ = fit(model_dir, out, **TWO_RANKS[name])
    assert steps_of(out) == [1, 2, 3, 4]
    alone, _ = fit(model_dir, tmp_path, **TWO_RANKS[name])
    assert alone.keys() == resumed.keys()
    # In bf16, other micro-batches round gradients and weights differently.
    tolerance = {"rtol": 2**-7, "atol": 2e-4} if "bf16" in name else {"rtol": 0, "atol": 1e-5}
    for parameter, weight in alone.items():
        torch.testing.assert_close(resumed[parameter], weight, **tolerance)


def test_a_disk_that_is_full_for_one_rank(two_ranks: Path, model_dir: Path):
    said = (two_ranks / "log").read_text()
    assert said.count("no space left for the checkpoint") == 1
    assert "full/checkpoints/step_2; training goes on without it" in said
    assert {path.name for path in two_ranks.glob("full/wrote_*")} == {"wrote_rank_0-0.pt", "wrote_rank_1-0.pt"}
    assert_equal(torch.load(two_ranks / "full.pt"), torch.load(two_ranks / "zero3.pt")[0])


FULL_AT = {2: (Path, "mkdir"), 3: (checkpoints, "sync"), 4: (checkpoints, "write_json"), 5: (os, "replace"), 6: None}
"""What fails at a step; None: the system refuses files of more than 100 kB."""


def test_a_full_disk_costs_a_checkpoint_and_nothing_else(
    model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    save, written, left = checkpoints.save, [], []

    def full(*_arguments: Any, **_options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def save_and_see(engine: Any, folder: Path, progress: dict[str, Any]) -> int:
        place = FULL_AT.get(progress["step"])
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        with replaced(*place, full) if place else nullcontext():
            if progress["step"] in FULL_AT and not place:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
            try:
                written.append(save(engine, folder, progress))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        left.append(checkpoints_of(out))
        return written[-1]

    whole, _ = fit(model_dir, tmp_path / "whole", epochs=4)
    out = tmp_path / "rough"
    with replaced(checkpoints, "save", save_and_see), caplog.at_level(logging.WARNING, logger="sdx"):
        weights, _ = fit(model_dir, out, epochs=4, save_every_steps=1)
    assert [size > 0 for size in written] == [True, *[False] * len(FULL_AT), True]
    assert left == [*[["step_1"]] * (1 + len(FULL_AT)), ["step_1", "step_7"]]
    said = [record.getMessage().split("checkpoint ")[1].partition(" (")[0] for record in caplog.records]
    assert said == [f"{out}/checkpoints/step_{step}; training goes on without it" for step in FULL_AT]
    assert_equal(weights, whole)


def test_other_errors_are_not_taken_for_a_full_disk(model_dir: Path, tmp_path: Path):
    def broken(*_arguments: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with replaced(torch, "save", broken), pytest.raises(PermissionError):
        fit(model_dir, tmp_path, save_every_steps=1)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", ["bit", "file", "index", "progress"])
def test_damaged_checkpoints_are_skipped(
    model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, damage: str
):
    monkeypatch.setattr(checkpoints, "FILE_BYTES", 10**5)
    interrupted(model_dir, tmp_path, after=3, save_every_steps=1)
    folder = tmp_path / "checkpoints"
    assert checkpoints_of(tmp_path) == ["step_2", "step_3"]
    file = max((folder / "step_3/state").glob("*.pt"), key=lambda path: path.stat().st_size)
    if damage == "bit":
        flip(file)
    elif damage == "file":
        file.unlink()
    else:
        (folder / "step_3" / {"index": "state/index.json", "progress": "progress.json"}[damage]).write_text("{")
    (folder / "step_4.partial").mkdir()
    with caplog.at_level(logging.WARNING, logger="sdx"):
        fit(model_dir, tmp_path)
    assert ["step_3: it is damaged" in record.getMessage() for record in caplog.records] == [True]
    assert steps_of(tmp_path) == [1, 2, 3, 4]


def test_two_are_kept_and_leftovers_go(model_dir: Path, tmp_path: Path):
    folder = tmp_path / "checkpoints"
    for name in ("step_3", "step_9", "step_8.partial"):  # of a training that was damaged later than step 2
        (folder / name).mkdir(parents=True)
    interrupted(model_dir, tmp_path, after=2, save_every_steps=1)
    assert checkpoints_of(tmp_path) == ["step_1", "step_2"]
    assert checkpoints.latest(folder) == 2
    assert checkpoints.latest(tmp_path / "none") == 0


@pytest.mark.parametrize(("theirs", "ours", "message"), [
    ({}, LORA, r"step_1 is of another model: \d+ parameters differ, .*lora_A.* is missing there"),
    (LORA, {**LORA, "lora_rank": 4}, r"lora_A.default.weight is \(16, \d+\) there and \(4, \d+\) here; delete"),
])  # fmt: skip
def test_a_checkpoint_of_another_model_is_refused(
    model_dir: Path, tmp_path: Path, theirs: dict[str, Any], ours: dict[str, Any], message: str
):
    interrupted(model_dir, tmp_path, after=1, save_every_steps=1, **theirs)
    with pytest.raises(InputError, match=message):
        fit(model_dir, tmp_path, **ours)


def test_ranks_share_the_writing_in_files_of_a_gigabyte():
    shapes = {"embedding": (40_000, 8192), **{f"layer.{n}": (1000, 1000 + n) for n in range(400)}}
    for ranks in (1, 2, 8):
        files = _share(shapes, KINDS, ranks)
        assert len(files) == 3 * len(shapes)
        sizes: dict[str, list[int]] = {}
        for (name, _), file in files.items():
            sizes.setdefault(file, []).append(4 * prod(shapes[name]))
        assert all(sum(size) <= FILE_BYTES or len(size) == 1 for size in sizes.values())
        written = [
            sum(sum(size) for file, size in sizes.items() if file.startswith(f"rank_{n}-")) for n in range(ranks)
        ]
        assert max(written) - min(written) <= 4 * prod(shapes["embedding"])
        assert sum(written) == 12 * sum(map(prod, shapes.values()))


def test_the_last_rank_s_piece_is_padded(monkeypatch: pytest.MonkeyPatch):
    """Seven values on three ranks, as stage 3 divides them; on five ranks, the last has only padding."""
    whole = torch.arange(1.0, 8).reshape(7, 1)
    for ranks, size, expected in ((3, 3, [7, 0, 0]), (5, 2, [0, 0])):
        monkeypatch.setenv("RANK", str(ranks - 1))
        weight = torch.nn.Parameter(torch.empty(0))
        weight.ds_tensor = torch.empty(size)
        assert _piece(weight, whole).tolist() == expected


def test_8_bit_moments_go_on_with_the_layout_they_had(model_dir: Path, tmp_path: Path):
    interrupted(model_dir, tmp_path, after=2, save_every_steps=2, zero_stage=1, **EIGHT_BIT)
    assert (tmp_path / "checkpoints/step_2/state/moments_zero1_0_of_1.pt").is_file()
    with pytest.raises(InputError, match=r"moments_zero1_0_of_1\.pt"):
        fit(model_dir, tmp_path, zero_stage=2, **EIGHT_BIT)


def test_checkpoints_are_written_by_the_clock_and_count_as_training(model_dir, tmp_path, monkeypatch):
    publish = checkpoints.publish
    monkeypatch.setattr(checkpoints, "publish", lambda *paths: (time.sleep(0.2), publish(*paths)))
    _, summary = fit(model_dir, tmp_path / "often", save_every_minutes=1e-9)
    rows = rows_of(tmp_path / "often")
    assert ["checkpoint_seconds" in row for row in rows] == [False, True, True, True]  # of the step before
    assert all(row["checkpoint_bytes"] > 10**5 for row in rows[1:])
    assert summary["checkpoint_seconds"] == pytest.approx(
        sum(row.get("checkpoint_seconds", 0) for row in rows), abs=0.01
    )
    batch_tokens = sum(len(one.input_ids) for one in examples())  # at most
    assert all(row["checkpoint_seconds"] >= 0.2 and row["useful_tokens_per_s"] < batch_tokens / 0.2 for row in rows[1:])
    _, summary = fit(model_dir, tmp_path / "never", save_every_minutes=0)
    assert summary["checkpoint_seconds"] == 0.0
    assert not any("checkpoint_seconds" in row for row in rows_of(tmp_path / "never"))


def by_the_clock_of_rank_0(model_dir, out):
    """Rank 1 would never save."""
    fit(model_dir, out, zero_stage=2, save_every_minutes=1e-9 if rank() == 0 else 1e9)


def test_all_ranks_save_by_the_clock_of_the_first(model_dir, tmp_path):
    processes = Processes(tmp_path / "log", by_the_clock_of_rank_0, model_dir, tmp_path / "run", ranks=2)
    assert processes.end() == [0, 0], processes.log.read_text()
    assert [row["step"] for row in rows_of(tmp_path / "run") if "checkpoint_bytes" in row] == [2, 3, 4]
