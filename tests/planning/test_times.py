"""Seconds by hand, and against what a demonstration took."""

from dataclasses import replace

import pytest

from sdx.config import Adapter, BackboneConfig, Precision, ShapeConfig, TrainConfig
from sdx.models.batches import BF16, Arithmetic, Most
from sdx.models.precision import ANY_GPU, MachinePrecision
from sdx.models.work import ModelWork
from sdx.planning import hardware, rates
from sdx.planning.hardware import GPUS, Device, Machine, machines
from sdx.planning.times import batch_rows, is_published, seconds
from sdx.process.devices import driver_gpus, visible_gpu
from sdx.store.estimate import Work
from sdx.training.hardware import PEAK_FLOPS, of_gpu
from sdx.training.memory import GIB, Layout

SMOLLM2 = ShapeConfig(134_515_008, 30, 576, 1536, 192, 49152)
SHAPE = ShapeConfig(parameters=10**9, layers=10, hidden_size=1000, kv_width=500)
DEVICE = Device(
    "d",
    train_flops=1e12,
    read_flops=2e12,
    decode_flops=1e12,
    bytes_per_s=1e11,
    launch_s=0,
    load_bytes_per_s=1e9,
    memory_bytes=16e9,
)
ONE = Machine(DEVICE, 1)
TRAIN = TrainConfig(batch_size=16, learning_rate=3e-4)
LAYOUT = Layout(micro_batch_tokens=10)


def of(shape, **work):
    return ModelWork(shape=shape, **work)


def took(work, machine=ONE, train=TRAIN, layout=LAYOUT):
    return seconds(work, machine, train, layout)


def test_training_takes_6n_a_token_and_attention_and_all_ranks_share_it():
    work = of(SHAPE, trained=1000, context=100)
    forward = 2e9 + 4 * 10 * 1000 * 100
    assert took(work) == pytest.approx(3 * forward * 1000 / 1e12)
    assert took(work, Machine(DEVICE, 4)) == pytest.approx(3 * forward * 1000 / 4e12)


@pytest.mark.parametrize(("adapter", "again", "factor"), [("full", True, 4), ("lora", False, 2), ("lora", True, 3)])
def test_checkpointing_costs_a_forward_pass_and_lora_spares_the_weights_gradients(adapter, again, factor):
    train = TrainConfig(batch_size=16, learning_rate=3e-4, adapter=Adapter(adapter))
    layout = Layout(activation_checkpointing=again)
    assert took(of(SHAPE, trained=1000), train=train, layout=layout) == pytest.approx(factor * 2e9 * 1000 / 1e12)


def test_generation_waits_for_memory_in_small_batches_and_for_arithmetic_in_large_ones():
    small = of(SHAPE, generated=100, decode_steps=100)
    assert took(small) == pytest.approx(100 * 2e9 / 1e11)  # the weights, 100 times
    large = of(SHAPE, generated=100_000, decode_steps=100)
    assert took(large) == pytest.approx(100_000 * 2e9 / 1e12)
    cache = 3 * 4 * 10 * 500 * 1000 * 32
    assert took(of(SHAPE, rows=32, decode_steps=1, context=1000)) == pytest.approx((2e9 + cache) / 1e11)


def test_a_gpu_takes_as_many_rows_as_fit_and_a_cpu_as_many_as_suit_it():
    gpu = replace(DEVICE, launch_s=1e-3, memory_bytes=10e9)
    work = of(SHAPE, rows=1000, row_bytes=100e6, decode_steps=10, passes=2, context=100)
    assert batch_rows(work, gpu) == (0.85 * 10e9 - 2e9) // 100e6 == 65
    assert batch_rows(work, replace(gpu, memory_bytes=80e9)) == 256
    assert batch_rows(replace(work, row_bytes=1e12), gpu) == 1
    assert batch_rows(replace(work, rows=7), gpu) == 7
    assert batch_rows(replace(work, most=Most(64, 512), engine="vllm"), gpu) == 512
    assert batch_rows(replace(work, most=Most(40, 40)), gpu) == 40
    assert batch_rows(work, DEVICE) == 32
    step = (2e9 + 3 * 4 * 10 * 500 * 65 * 2 * 100) / 1e11
    assert took(replace(work, beams=2), Machine(gpu, 1)) == pytest.approx(16 * (2 * 10 * 1e-3 + 10 * step))


def test_launching_is_the_least_time_of_a_step():
    slow = Device("d", 1e15, 1e15, 1e15, 1e15, launch_s=1e-3, load_bytes_per_s=1e9, memory_bytes=80e9)
    assert took(of(SHAPE, generated=1, decode_steps=100), Machine(slow, 1)) == pytest.approx(100 * 10 * 1e-3)
    a_micro_batch = 3 * 10 * 1e-3  # a backward pass launches as much as two forward passes
    assert took(of(SHAPE, trained=800, steps=2), Machine(slow, 8)) == pytest.approx(10 * a_micro_batch)
    assert took(of(SHAPE, trained=800, steps=20), Machine(slow, 8)) == pytest.approx(20 * a_micro_batch)


def test_loading_and_what_needs_no_model_add_up_and_an_unknown_size_gives_no_time():
    assert took(of(SHAPE, loads=2, seconds=5)) == pytest.approx(5 + 2 * 2)
    assert took(Work(seconds=5)) == 5
    assert took(of(ShapeConfig(), generated=1)) is None
    assert took(of(SHAPE, trained=1), layout=None) is None


def test_workers_share_the_batches_of_a_row_step_and_each_loads_the_model():
    work = of(SHAPE, generated=320_000, rows=320, decode_steps=1, loads=1)  # ten batches
    alone = 320_000 * 2e9 / 1e12
    assert took(work) == pytest.approx(2 + alone)
    assert seconds(work, Machine(DEVICE, 4), TRAIN, None) == pytest.approx(2 + alone)  # not a row step
    for workers, rounds in ((1, 10), (4, 3), (5, 2), (10, 1), (99, 1)):
        shared = seconds(work, Machine(DEVICE, workers), TRAIN, None, shared=True)
        assert shared == pytest.approx(2 + alone / 10 * rounds)
    helped = seconds(work, Machine(DEVICE, 1, helpers=4), TRAIN, None, shared=True)
    assert helped == pytest.approx(2 + alone / 5)
    passes = of(SHAPE, read=1000, passes=10, also=(of(SHAPE, read=1000, loads=1),))  # a stack's, of no known rows
    assert seconds(passes, Machine(DEVICE, 5), TRAIN, None, shared=True) == pytest.approx(2 + 2 * 1000 * 2e9 / 2e12 / 5)
    assert seconds(Work(seconds=5), Machine(DEVICE, 4), TRAIN, None, shared=True) == 5  # all cores are at it already


def test_helpers_are_on_this_machine_alone():
    [here, reference] = machines(("NVIDIA A100-SXM4-80GB", ""), 1, 1, workers=4)
    assert (here.name, here.ranks, here.workers) == ("1 x A100", 1, 4)
    assert reference.workers == 8
    assert [machine.workers for machine in machines(None, 1, 1, workers=4)] == [1, 8]


@pytest.mark.parametrize("rate", rates.VLLM_RATES, ids=lambda rate: rate.model)
def test_vllm_reaches_the_published_rate_in_the_published_case(rate):
    work = of(rate.shape, rows=256, generated=10**6, context=1500, engine="vllm")
    assert took(work, Machine(GPUS["H100"], 1)) == pytest.approx(10**6 / rate.tokens_per_s)
    assert is_published(work, GPUS["H100"])
    cpu = hardware.cpu()
    assert not is_published(work, cpu)
    assert took(work, Machine(cpu, 1)) == took(replace(work, engine=""), Machine(cpu, 1))


def test_a_published_rate_is_scaled_by_what_a_step_moves():
    llama, qwen = ShapeConfig(6_738_415_616, 32, 4096, 11008, 4096, 32000), rates.VLLM_RATES[5]
    work = of(llama, rows=10**5, generated=10**6, context=200, engine="vllm")
    weights, row = 2 * llama.parameters, 4 * 32 * 4096 * 200
    step = (weights + 256 * row) / (3.35e12 * 0.6)
    assert qwen.model == "Qwen3-8B"
    row = 4 * 36 * 1024 * 1500
    rows = (0.85 * GPUS["H100"].memory_bytes - 2 * qwen.shape.parameters) / row
    assert rows < 256  # as many as fit
    published_step = (2 * qwen.shape.parameters + rows * row) / (3.35e12 * 0.6)
    slowdown = rows / published_step / qwen.tokens_per_s
    assert took(work, Machine(GPUS["H100"], 1)) == pytest.approx(10**6 / 256 * step * slowdown)
    assert took(work, Machine(GPUS["H200"], 1)) == pytest.approx(10**6 / 256 * step * slowdown * 3.35 / 4.8)
    batches = replace(work, most=Most(1, 1000), decode_steps=60)  # each ends 50 steps after its mean answer
    last = 100 * 50 * weights / (3.35e12 * 0.6)
    assert took(batches, Machine(GPUS["H100"], 1)) == pytest.approx(10**6 / 256 * step * slowdown + last)


def test_ctranslate2_is_as_many_times_as_fast_as_published_and_no_faster_than_arithmetic_and_memory():
    small = ShapeConfig(10**6, 6, 512, 2048, 512, 1000)  # launching is all of its time
    work = of(small, rows=256, generated=256 * 4 * 10, beams=4, decode_steps=20, context=10)
    for device, factor in ((GPUS["A10G"], 5876.4 / 1022.9), (hardware.cpu(), 525 / 147.3)):
        there = Machine(device, 1)
        assert took(replace(work, engine="ctranslate2"), there) == pytest.approx(took(work, there) / factor / 0.72)
    large = replace(work, shape=replace(SHAPE, parameters=10**10), generated=10**6, engine="ctranslate2")
    forward = 2e10 + 4 * 10 * 1000 * 10
    assert took(large, Machine(GPUS["H100"], 1)) == pytest.approx(10**6 * forward / (0.35 * 989e12) / 0.72)


@pytest.mark.parametrize(
    ("work", "measured"),
    [
        # SmolLM2-135M on two AMD EPYC cores: answers, scores of ARC-Easy and of MMLU in Portuguese, a training.
        (of(SMOLLM2, read=48 * 60, generated=4056, rows=48, decode_steps=128, context=100, loads=1), 11.9),
        (of(SMOLLM2, read=150 * 51, context=25, loads=1), 7.2),
        (of(SMOLLM2, read=150 * 157, context=79, loads=1), 17.4),
        (of(SMOLLM2, trained=91_186, context=70, loads=2), 280.8),
    ],
)
def test_the_cpu_takes_what_was_measured_within_a_third(monkeypatch, work, measured):
    monkeypatch.setattr(hardware, "cores", lambda: 2)
    assert took(work, Machine(hardware.cpu(), 1)) == pytest.approx(measured, rel=1 / 3)


@pytest.mark.parametrize(
    ("suited", "bf16", "fp32"),
    [(MachinePrecision(Precision.bf16, ""), 1, 0.5), (MachinePrecision(Precision.fp32, "", 17), 0.5 / 17, 0.5)],
)
def test_a_cpu_is_as_fast_as_it_is_in_what_it_computes_in(monkeypatch, suited, bf16, fp32):
    fast = replace(hardware.cpu(), fp32=1.0, bf16=1.0)
    monkeypatch.setattr("sdx.models.precision.cpu_precision", lambda: suited)
    for taken, share in ((Precision.bf16, bf16), (Precision.fp32, fp32)):
        on = Arithmetic(cpu=taken, gpu=Precision.bf16)
        for work in (
            of(SMOLLM2, trained=10**6),
            of(SMOLLM2, read=10**6),
            of(SMOLLM2, generated=10**9),
        ):
            here, before = (took(replace(work, arithmetic=on), Machine(device, 1)) for device in (hardware.cpu(), fast))
            assert here == pytest.approx(before / share)


def test_fp32_is_slower_on_a_gpu_and_moves_twice_the_bytes():
    fp32 = Arithmetic(cpu=Precision.bf16, gpu=Precision.fp32)
    large, layout = replace(SHAPE, parameters=10**11), Layout(micro_batch_tokens=10**6)
    training, decoding = (
        of(large, trained=10**12),
        of(large, generated=100, decode_steps=10**6),
    )
    for work, factor in ((training, 989 / 67), (decoding, 2)):
        slow, fast = (
            took(replace(work, arithmetic=on), Machine(GPUS["H100"], 1), layout=layout) for on in (fp32, BF16)
        )
        assert slow == pytest.approx(factor * fast)


def test_a_gpu_is_known_by_the_drivers_name_and_an_unknown_one_leaves_the_reference():
    assert [machine.name for machine in machines(("NVIDIA A100-SXM4-80GB", "81920 MiB"), 1, 7 * 10**9)] == [
        "1 x A100",
        "8 x A100",
    ]
    assert machines(("NVIDIA GeForce RTX 4090", ""), 2, 1) == [Machine(GPUS["RTX 4090"], 2)]
    [smaller] = machines(("NVIDIA A100-SXM4-40GB", "40960 MiB"), 2, 1)
    assert (smaller.hardware.ranks, smaller.hardware.device_bytes, smaller.hardware.is_cuda) == (2, 40 * GIB, True)
    assert [machine.name for machine in machines(("Quadro", ""), 1, 1)] == ["1 x H100", "8 x H100"]


@pytest.mark.parametrize(
    ("name", "known", "tera_flops", "bytes_per_s"),
    [
        ("NVIDIA H100 80GB HBM3", "H100", 989, 3.35e12),
        ("NVIDIA H100 PCIe", "H100 PCIe", 756, 2.0e12),
        ("NVIDIA H100 NVL", "H100 NVL", 835, 3.9e12),
        ("NVIDIA H200", "H200", 989, 4.8e12),
        ("NVIDIA H200 NVL", "H200 NVL", 835, 4.8e12),
        ("NVIDIA GH200 480GB", "GH200", 989, 4.0e12),
        ("NVIDIA GB200", None, 2500, None),
        ("NVIDIA B200", None, 2250, None),
        ("NVIDIA L40S", None, 362, None),
        ("NVIDIA L40", None, None, None),
        ("NVIDIA A10G", "A10G", 70, 0.6e12),
    ],
)
def test_boards_of_one_family_are_told_apart(name, known, tera_flops, bytes_per_s):
    """The more specific of two entries that fit, whatever their order."""
    for table in (PEAK_FLOPS, dict(reversed(PEAK_FLOPS.items()))):
        assert of_gpu(name, table) == (tera_flops and tera_flops * 1e12)
    device = of_gpu(name, GPUS)
    assert (device and device.name) == known
    if device:
        assert device.bytes_per_s == bytes_per_s * hardware.BANDWIDTH_SHARE
        assert device.train_flops == tera_flops * 1e12 * hardware.GPU_SHARE


def test_without_a_gpu_a_small_model_is_judged_on_the_cpu_and_a_large_one_on_the_reference():
    small, large = machines(None, 1, 135 * 10**6), machines(None, 1, 7 * 10**9)
    assert small[0].name.startswith("CPU, ")
    assert [machine.name for machine in large] == ["1 x H100", "8 x H100"]
    assert small[1] == large[1]


def test_a_model_too_large_for_the_cpu_is_planned_in_what_gpus_compute_in(monkeypatch):
    slow = MachinePrecision(Precision.fp32, "slow")
    monkeypatch.setattr("sdx.models.precision.machine_precision", lambda: slow)
    monkeypatch.setattr(hardware, "visible_gpu", lambda: None)
    large, small = (BackboneConfig("x", shape=ShapeConfig(size)) for size in (7 * 10**9, 135 * 10**6))
    assert hardware.suited_to(small) == slow
    assert hardware.suited_to(large) == ANY_GPU
    monkeypatch.setattr(hardware, "visible_gpu", lambda: ("Tesla V100", "32768 MiB"))
    assert hardware.suited_to(large) == slow


def test_the_driver_is_asked_and_may_be_missing_or_broken(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpu() is None
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB'\necho 'NVIDIA H200, 143771 MiB'\n")
    program.chmod(0o755)
    assert visible_gpu() == ("NVIDIA H200", "143771 MiB")
    assert len(driver_gpus()) == 2
    program.write_text("#!/bin/sh\nexit 9\n")
    assert visible_gpu() is None
