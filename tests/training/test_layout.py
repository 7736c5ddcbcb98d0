"""Which layout is chosen for which model on which hardware, and how it is described."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from sdx import InputError
from sdx.config import Adapter, EngineConfig, Optimizer, Precision, ShapeConfig, TrainConfig
from sdx.process import cgroups
from sdx.training import hardware as module
from sdx.training.hardware import Hardware, can_compile, host_bytes, read_hardware
from sdx.training.layout import Setup, check, choose, describe, shortage
from sdx.training.memory import GIB, GROWN, HOST_USABLE, Layout, training_memory, usable_bytes

LLAMA2 = ShapeConfig(6_738_415_616, 32, 4096, 11008, 4096, 32000)
SMOLLM2 = ShapeConfig(134_515_008, 30, 576, 1536, 192, 49152)
TRAIN = TrainConfig(batch_size=128, learning_rate=2e-5)
LORA = replace(TRAIN, adapter=Adapter.lora)


def engine(name: str, **given: Any) -> EngineConfig:
    return EngineConfig(**{"name": name, "precision": Precision.bf16, **given})


AUTO = engine("auto")
LONGEST = 2048
BATCH = 1e6
"""Tokens of a batch, more than fit on any rank."""
LONG = 1e12
"""Tokens of a training that repays compiling."""


def gpus(ranks=8, gib=80.0, host_gib=200.0, can_compile=True):
    return Hardware(ranks, gib * GIB, host_gib * GIB, True, can_compile)


def cpu(ranks=1, gib=16.0, can_compile=True):
    return Hardware(ranks, gib / ranks * GIB, gib / ranks * GIB, False, can_compile)


def chosen(hardware, engine=AUTO, train=TRAIN, shape=LLAMA2, longest=LONGEST, batch=BATCH, tokens=LONG):
    return choose(Setup(engine, train, shape, longest, hardware), batch, tokens)


def laid_out(layout):
    return layout.zero_stage, layout.offload_optimizer, layout.activation_checkpointing


@pytest.mark.parametrize(
    ("hardware", "train", "expected"),
    [
        (gpus(8, 141), TRAIN, (1, False, False)),
        (gpus(8, 80), TRAIN, (1, False, False)),
        (gpus(8, 64), TRAIN, (2, False, False)),
        (gpus(8, 48), TRAIN, (3, False, False)),
        (gpus(8, 40), TRAIN, (2, False, True)),
        (gpus(8, 24), TRAIN, (3, False, True)),
        (gpus(4, 24), TRAIN, (3, True, True)),
        (gpus(1, 80), TRAIN, (2, True, True)),
        (gpus(1, 40), TRAIN, (3, True, True)),
        (gpus(1, 80), LORA, (0, False, False)),
        (gpus(1, 24), LORA, (0, False, True)),
        (gpus(1, 80, 300), replace(TRAIN, optimizer=Optimizer.adamw_8bit), (2, True, True)),
        (gpus(1, 141), replace(TRAIN, optimizer=Optimizer.adamw_8bit), (0, False, False)),
    ],
)
def test_llama2_takes_the_first_of_the_layouts_that_fits(hardware, train, expected):
    layout = chosen(hardware, train=train)
    assert laid_out(layout) == expected
    memory = training_memory(LLAMA2, train, layout, LONGEST, hardware.ranks)
    assert memory.total <= usable_bytes(hardware.device_bytes, hardware.ranks)
    assert memory.host <= HOST_USABLE * hardware.host_bytes


def test_what_memory_is_left_goes_to_the_micro_batch():
    wide, narrow = (chosen(gpus(8, gib)).micro_batch_tokens for gib in (180, 80))
    assert wide == 16_384
    assert 4096 <= narrow < wide
    larger = Layout(1, micro_batch_tokens=narrow + 512)
    assert training_memory(LLAMA2, TRAIN, larger, LONGEST, 8).total > GROWN * 80 * GIB


def test_a_micro_batch_holds_the_longest_example_and_no_more_than_the_ranks_share():
    assert chosen(gpus(8, 141), batch=8 * 3000).micro_batch_tokens == 4096  # a quarter more, in steps of 512
    assert chosen(gpus(8, 141), batch=8 * 100).micro_batch_tokens == LONGEST
    assert chosen(gpus(8, 141), longest=20_000).micro_batch_tokens == 20_000
    assert chosen(cpu(), shape=SMOLLM2).micro_batch_tokens == 4096
    assert chosen(cpu(), shape=SMOLLM2, longest=300, batch=700).micro_batch_tokens == 1024


def test_the_cpu_shards_over_several_ranks_and_checkpoints_when_memory_is_short():
    assert laid_out(chosen(cpu(), shape=SMOLLM2)) == (0, False, False)
    assert laid_out(chosen(cpu(2), shape=SMOLLM2)) == (1, False, False)
    assert laid_out(chosen(cpu(gib=6), shape=SMOLLM2)) == (0, False, True)


@pytest.mark.parametrize("hardware", [gpus(), cpu()])
def test_layers_are_compiled_where_it_pays_and_works(hardware):
    short = 1e5 if hardware.is_cuda else 1e4
    assert chosen(hardware, shape=SMOLLM2).compile
    assert not chosen(hardware, shape=SMOLLM2, tokens=short).compile
    assert not chosen(replace(hardware, can_compile=False), shape=SMOLLM2).compile
    assert not chosen(hardware, engine("zero3", zero_stage=3), shape=SMOLLM2).compile
    forced = engine("auto", compile=True)
    assert chosen(hardware, forced, shape=SMOLLM2, tokens=short).compile
    with pytest.raises(InputError, match=r"engine.compile=true needs"):
        chosen(replace(hardware, can_compile=False), forced, shape=SMOLLM2)


def test_compiling_and_stage_3_exclude_each_other():
    with pytest.raises(InputError, match=r"engine.compile=true does not work with engine.zero_stage=3"):
        check(TRAIN, engine("zero3", zero_stage=3, compile=True))
    assert laid_out(chosen(gpus(8, 48), engine("auto", compile=True))) == (2, False, True)


def test_an_optimizer_on_the_host_needs_a_stage():
    with pytest.raises(InputError, match=r"engine.offload_optimizer=true needs engine.zero_stage 1, 2 or 3; set one"):
        check(TRAIN, engine("auto", offload_optimizer=True, zero_stage=0))


def test_what_is_given_stays_and_the_rest_is_chosen():
    assert laid_out(chosen(gpus(), engine("zero2", zero_stage=2))) == (2, False, False)
    assert laid_out(chosen(gpus(8, 24), engine("zero2", zero_stage=2), LORA)) == (2, False, True)
    assert laid_out(chosen(gpus(1), engine("auto", offload_optimizer=True), shape=SMOLLM2))[:2] == (1, True)
    assert laid_out(chosen(gpus(), engine("auto", activation_checkpointing=True)))[2]
    few = engine("auto", micro_batch_tokens=1000, precision=Precision.fp32)
    assert chosen(gpus(8, 141), few) == Layout(1, False, Precision.fp32, 1000, False, True)


def warned(hardware, engine=AUTO, train=TRAIN, shape=LLAMA2):
    layout = chosen(hardware, engine, train, shape)
    return layout, shortage(Setup(engine, train, shape, LONGEST, hardware), layout)


def test_what_does_not_fit_by_the_estimate_is_tried_with_a_warning_that_has_numbers_and_fixes():
    layout, warning = warned(gpus(2, 24, host_gib=32))
    assert laid_out(layout) == (2, True, True)
    assert warning == (
        "engine=auto may not fit: by its estimate, training 6.74B parameters (train.adapter=full) on 2 GPU ranks takes "
        "about 38 + 2.5 of 24 GiB and 56 of 32 GiB of the host per GPU; if it runs out of memory, try "
        "train.adapter=lora, train.optimizer=adamw_8bit, a shorter scale.max_length_tokens than 2048, more GPUs"
    )
    layout, warning = warned(gpus(8, 40), engine("zero1", zero_stage=1))
    assert layout.zero_stage == 1
    assert "engine=zero1 may not fit" in warning
    assert "try engine=auto, train.adapter=lora" in warning
    assert "on 1 CPU ranks takes about" in warned(cpu())[1]
    assert warned(cpu())[1].endswith(", a GPU")
    assert warned(gpus())[1] == ""


def test_several_ranks_share_the_gradients_before_the_weights_when_the_optimizer_is_on_the_host():
    """Llama 3 8B on two cards of 80 GB: whole weights and half of the gradients fit beside the activations."""
    shape = ShapeConfig(8_030_261_248, 32, 4096, 14336, 1024, 128_256)
    layout = chosen(gpus(2, 79, host_gib=1000), shape=shape)
    assert laid_out(layout) == (2, True, True)
    assert training_memory(shape, TRAIN, layout, LONGEST, 2).total > 0.5 * 79 * GIB


@pytest.mark.parametrize("hardware", [gpus(8, 78.8), gpus(4, 78.8), gpus(8, 39.4), gpus(1, 78.8)])
def test_a_layout_leaves_a_reserve_and_its_micro_batch_does_not_grow_into_the_last_fifth(hardware):
    layout = chosen(hardware)
    total = training_memory(LLAMA2, TRAIN, layout, LONGEST, hardware.ranks).total
    assert total + (2.5 if hardware.ranks > 1 else 1.0) * GIB <= 0.95 * hardware.device_bytes
    assert total <= 0.8 * hardware.device_bytes or layout.micro_batch_tokens == 4096


def test_a_config_that_leaves_nothing_open_is_taken_at_its_word():
    given = engine(
        "zero1", zero_stage=1, offload_optimizer=False, activation_checkpointing=False, micro_batch_tokens=8192
    )
    assert chosen(gpus(8, 24), given) == Layout(1, False, Precision.bf16, 8192, False, True)


def test_the_line_tells_what_was_given_and_adds_up():
    given = engine("zero2", zero_stage=2, activation_checkpointing=False)
    layout = Layout(2, micro_batch_tokens=8192, compile=True)
    line = describe(Setup(given, TRAIN, LLAMA2, LONGEST, gpus()), layout)
    assert line == (
        "ZeRO-2 (given), 8192-token packs, no checkpointing (given), compiled: about 73 + 2.5 of 80 GiB per GPU "
        "(weights 13, gradients 3.1, optimizer 9.4, activations 46, loss 2.1)"
    )
    setup = Setup(AUTO, TRAIN, LLAMA2, LONGEST, gpus())
    offloaded = describe(setup, Layout(3, True, activation_checkpointing=True))
    assert offloaded.startswith("ZeRO-3, optimizer on the host, 2048-token packs, checkpointing: about 5.8 + 2.5 ")
    assert " of 80 GiB and 16 of 200 GiB of the host per GPU (weights 3.4, gradients 0.0," in offloaded


def test_memory_is_what_the_container_leaves_and_shared_by_the_ranks_of_a_machine(tmp_path, monkeypatch):
    whole = host_bytes()
    assert whole > GIB / 2
    groups, membership = tmp_path / "cgroup", tmp_path / "membership"
    (groups / "slurm" / "job").mkdir(parents=True)
    (groups / "slurm" / "memory.max").write_text(f"{GIB // 2}\n")
    (groups / "slurm" / "job" / "memory.max").write_text("max\n")
    membership.write_text("4:memory:/elsewhere\n0::/slurm/job\n")
    monkeypatch.setattr(cgroups, "ROOT", groups)
    monkeypatch.setattr(cgroups, "MEMBERSHIP", membership)
    assert host_bytes() == GIB // 2
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = read_hardware()
    assert (found.ranks, found.device_bytes, found.host_bytes, found.is_cuda) == (4, GIB // 4, GIB // 4, False)


def test_compiling_needs_a_compiler(tmp_path, monkeypatch):
    compiler = tmp_path / "mine++"
    compiler.touch(mode=0o755)
    monkeypatch.setattr(module.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setattr(module, "find_spec", lambda _: True)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", "CXX"):
        monkeypatch.setenv(name, str(compiler))
    assert not can_compile(cuda=False)  # without Python's headers
    (tmp_path / "Python.h").touch()
    assert can_compile(cuda=False)
    assert can_compile(cuda=True)
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    assert not can_compile(cuda=True)  # without Triton
    monkeypatch.delenv("CXX")
    assert not can_compile(cuda=False)


def test_the_check_passes_defaults_and_imports_nothing_heavy():
    code = (
        "import sys, sdx.models.shape; from sdx.config import *; from sdx.training.layout import check;"
        "check(TrainConfig(learning_rate=1e-4, batch_size=8), EngineConfig('x')); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
