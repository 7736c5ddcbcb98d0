"""What `auto` comes to on which machine, and that a run says, keeps and plans by it."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from sdx.config import Config, EngineConfig, GeneratorConfig, MethodConfig, Precision, Runtime, TranslatorConfig
from sdx.models import precision
from sdx.models.precision import (
    RECORD,
    MachinePrecision,
    cpu_flags,
    cpu_precision,
    is_resolved,
    machine_precision,
    resolve,
    resolve_for_plan,
)
from sdx.store.files import read_json, write_json
from sdx.sweeps.runs import SweepRun, check
from sdx.tracking.state import RunState
from sdx.translation.seq2seq import Seq2SeqConfig
from tests.kit.configs import composed, keys_of

BF16, FP32, AUTO = Precision.bf16, Precision.fp32, Precision.auto
ZEN5 = ("avx2", "avx512f", "avx512_bf16")
FAST, SLOW = MachinePrecision(BF16, "fast"), MachinePrecision(FP32, "slow", 17)


@pytest.mark.parametrize(
    ("flags", "cap", "taken", "slowdown"),
    [
        (ZEN5, "", BF16, None),
        (("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16"), "", BF16, None),  # Sapphire Rapids
        (("fp", "asimd", "sve", "svebf16", "bf16"), "", BF16, None),  # Graviton 3, Grace
        (ZEN5, "AVX512_CORE_BF16", BF16, None),
        (ZEN5, "AVX512_CORE_AMX", BF16, None),
        (ZEN5, "ALL", BF16, None),
        (ZEN5, "AVX2", FP32, 17),
        (ZEN5, "AVX2_VNNI_2", FP32, 17),
        (ZEN5, "AVX512_CORE", FP32, 1),
        (("avx2", "avx512f"), "", FP32, 1),  # Ice Lake
        (("avx2", "avx_vnni"), "", FP32, 17),  # most laptops
        (("sse4_2",), "", FP32, None),
        (("fp", "asimd", "asimddp"), "", FP32, None),  # Graviton 2, Raspberry Pi 5
        ((), "", FP32, None),
    ],
)  # fmt: skip
def test_a_cpu_takes_bf16_where_it_has_the_instructions_and_may_use_them(
    flags: tuple[str, ...], cap: str, taken: Precision, slowdown: float | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(precision, "cpu_flags", lambda: flags)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)
    found = cpu_precision()
    assert (found.precision, found.slowdown) == (taken, slowdown)


def test_on_macos_fp32_has_the_fast_library(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr(precision, "cpu_flags", lambda: ["bf16"])
    assert cpu_precision().precision is FP32


@pytest.mark.parametrize(("native", "taken"), [(True, BF16), (False, FP32)])
def test_a_gpu_takes_bf16_where_it_computes_in_it(native: bool, taken: Precision, monkeypatch: pytest.MonkeyPatch):
    """torch counts the emulation of a V100 unless told not to."""
    import torch

    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    why = f"a GPU {'computes in it' if native else 'does not compute in bf16'}"
    assert machine_precision() == MachinePrecision(taken, why)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(precision, "cpu_flags", lambda: list(ZEN5))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx2")
    assert machine_precision().why == "ONEDNN_MAX_CPU_ISA=AVX2 keeps PyTorch from this CPU's bf16"


def test_the_flags_are_those_that_torch_sees():
    import torch

    seen = {name for name, value in torch.cpu.get_capabilities().items() if value is True}
    assert {"avx2", "avx512_bf16", "amx_bf16"} & set(cpu_flags()) == {"avx2", "avx512_bf16", "amx_bf16"} & seen


@pytest.fixture
def config() -> Config:
    return Config(
        method=MethodConfig("x", "x"),
        engine=EngineConfig("auto"),
        generator=GeneratorConfig("x"),
        translator=Seq2SeqConfig("x", "nllb", runtime=Runtime.transformers),
        mt=TranslatorConfig("x", "none"),
    )


def values(config: Config) -> tuple[Any, ...]:
    return config.engine.precision, config.generator.precision, getattr(config.translator, "precision", None)


@pytest.mark.parametrize("here", [FAST, SLOW])
def test_every_auto_is_resolved_and_what_is_given_stays(config: Config, tmp_path: Path, here: MachinePrecision):
    assert values(resolve(config, tmp_path, here).config) == (here.precision,) * 3
    config.generator.precision, config.mt = FP32, replace(config.translator, precision=BF16)
    found = resolve(config, tmp_path / "other", here)
    assert values(found.config) == (here.precision, FP32, here.precision)
    assert values(found.on_gpus) == (BF16, FP32, BF16)
    assert is_resolved(found.config)
    assert not is_resolved(config)
    assert found.config.mt == config.mt


def test_it_is_said_and_a_given_bf16_is_warned_about_with_the_factor(config: Config, tmp_path: Path, caplog: Any):
    caplog.set_level(logging.INFO, "sdx")
    config.engine.precision = BF16
    resolve(config, tmp_path, SLOW)
    said, warned = caplog.messages
    assert said.split(maxsplit=1)[1] == (
        "engine.precision bf16 (given); generator.precision, translator.precision fp32 (auto: slow)"
    )
    assert "engine.precision=bf16 takes about 17 times as long as fp32 in training: slow; leave it" in warned
    caplog.clear()
    resolve(config, tmp_path, FAST)
    assert len(caplog.messages) == 1
    for slowdown in (1, None):
        resolve(config, tmp_path, MachinePrecision(FP32, "slow", slowdown))
        assert "engine.precision=bf16 is no faster than fp32: slow" in caplog.messages[-1]


@pytest.mark.parametrize(
    ("first", "then", "taken"),
    [
        (FAST, FAST, (BF16, BF16, BF16)),
        (SLOW, FAST, (BF16, FP32, FP32)),  # prepared on a CPU, trained on a GPU
        (FAST, SLOW, (FP32, FP32, FP32)),
        (SLOW, SLOW, (FP32, FP32, FP32)),
    ],
)
def test_data_in_fp32_are_kept_and_a_training_takes_what_is_fast(
    config: Config,
    tmp_path: Path,
    first: MachinePrecision,
    then: MachinePrecision,
    taken: tuple[Precision, ...],
    caplog: Any,
):
    caplog.set_level(logging.INFO, "sdx")
    resolve(config, tmp_path, first)
    caplog.clear()
    assert values(resolve(config, tmp_path, then).config) == taken
    assert ("this run began" in caplog.text) == (first is not then)
    assert values(resolve_for_plan(config, tmp_path, first).config) == taken  # on any machine
    assert read_json(tmp_path / RECORD)["engine.precision"] == taken[0]


@pytest.mark.parametrize("text", ["", "[]", "null", '{"engine.precision": "fp8", "launch": 1}'])
def test_a_damaged_record_is_none(config: Config, tmp_path: Path, text: str):
    (tmp_path / RECORD).write_text(text)
    assert values(resolve_for_plan(config, tmp_path, FAST).config) == (BF16,) * 3
    assert values(resolve(config, tmp_path, SLOW).config) == (FP32,) * 3


def test_ranks_take_what_rank_0_recorded(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "this"}.items():
        monkeypatch.setenv(name, value)
    old = dict.fromkeys(("engine.precision", "generator.precision", "translator.precision"), "bf16")
    write_json(tmp_path / RECORD, {"launch": "another launch", **old})
    monkeypatch.setattr(precision, "PATIENCE_S", 0.0)
    with pytest.raises(precision.InputError, match=r"rank 0 did not write .*precision\.json"):
        resolve(config, tmp_path, FAST)
    monkeypatch.setenv("RANK", "0")
    resolve(config, tmp_path, SLOW)
    monkeypatch.setenv("RANK", "1")
    assert values(resolve(config, tmp_path, FAST).config) == (FP32,) * 3


CPU = MachinePrecision(BF16, "fast", is_gpu=False)


@pytest.fixture
def open_runtime(config: Config) -> Config:
    return replace(config, translator=replace(config.translator, runtime=Runtime.auto))


def chosen(found: Any) -> tuple[Any, Any]:
    return found.config.translator.runtime, found.config.translator.precision


def test_the_runtime_is_what_is_installed_and_then_what_was_recorded(
    open_runtime: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
):
    caplog.set_level(logging.INFO, "sdx")
    monkeypatch.setattr(precision, "find_spec", lambda name: None)
    assert chosen(resolve(open_runtime, tmp_path / "before", CPU)) == (Runtime.transformers, BF16)
    monkeypatch.setattr(precision, "find_spec", lambda name: name)
    assert not is_resolved(open_runtime)
    assert chosen(resolve_for_plan(open_runtime, tmp_path / "none", CPU)) == (Runtime.ctranslate2, Precision.int8)
    assert chosen(resolve(open_runtime, tmp_path / "before", CPU)) == (Runtime.transformers, BF16)
    assert chosen(resolve(open_runtime, tmp_path / "after", FAST)) == (Runtime.ctranslate2, BF16)
    assert caplog.messages[-2].split() == ["translator", "translator.runtime=ctranslate2", "(auto)"]
    assert resolve(open_runtime, tmp_path / "after", FAST).on_gpus.translator.precision is BF16


def test_int8_is_for_ctranslate2_on_a_cpu_and_what_was_made_in_it_is_kept(config: Config, tmp_path: Path):
    config.translator.runtime = Runtime.ctranslate2
    found = resolve(config, tmp_path, CPU)
    assert chosen(found) == (Runtime.ctranslate2, Precision.int8)
    assert found.config.generator.precision is BF16
    assert chosen(resolve(config, tmp_path, FAST)) == (Runtime.ctranslate2, Precision.int8)
    config.translator.runtime = Runtime.transformers  # the record does not fit any more
    assert chosen(resolve(config, tmp_path, FAST)) == (Runtime.transformers, BF16)
    for group in ("generator", "engine", "translator"):
        given = replace(config, **{group: replace(getattr(config, group), precision=Precision.int8)})
        with pytest.raises(
            precision.InputError, match=rf"{group}\.precision=int8 .* runtime=ctranslate2 alone; give bf16"
        ):
            resolve(given, tmp_path, FAST)


RUNS = {
    "sdrrl": ("translator", {"generate", "translate", "score", "train"}),
    "self_translate_train": ("mt", {"translate", "score", "train"}),
    "mt_stack": ("translator", {"translate", "stack", "vectors", "train", "classify"}),
}
"""Who translates with NLLB in a run of the method, and the steps that compute in a precision."""


def run(method: str, tmp_path: Path, *overrides: str) -> Config:
    nllb = {"translator": "translator", "mt": "translator@mt"}[RUNS[method][0]]
    runtime = f"{RUNS[method][0]}.runtime=transformers"
    return composed(f"method={method}", "lang=pt", f"{nllb}=nllb_600m", f"cache_dir={tmp_path}", runtime, *overrides)


@pytest.mark.parametrize("here", [FAST, SLOW])
@pytest.mark.parametrize("method", RUNS)
def test_keys_are_those_of_the_precision_that_was_taken(method: str, here: MachinePrecision, tmp_path: Path):
    groups = ("engine", "generator", RUNS[method][0])
    given = run(method, tmp_path, *(f"{group}.precision={here.precision.value}" for group in groups))
    assert is_resolved(given)
    open_ = resolve_for_plan(run(method, tmp_path), tmp_path, here).config
    assert keys_of(open_, tmp_path) == keys_of(given, tmp_path)


@pytest.mark.parametrize("method", RUNS)
def test_every_step_that_computes_in_it_has_it_in_its_key(method: str, tmp_path: Path):
    fast, slow = (
        keys_of(resolve_for_plan(run(method, tmp_path), tmp_path, here).config, tmp_path) for here in (FAST, SLOW)
    )
    for name in ("backbone", "corpus", "training", "parallel", *(["tokens"] if method == "mt_stack" else [])):
        assert fast[name] == slow[name]
    for name in RUNS[method][1]:
        assert fast[name]
        assert len(fast[name] & slow[name]) == (name == "stack")  # an LLM alone: it is only named there


def test_a_sweep_takes_what_its_runs_recorded(tmp_path: Path):
    """The launching machine may lack what the runs' machines have, and finds them done all the same."""
    given = "method=sdrrl", "lang=pt", f"cache_dir={tmp_path}", "tracking=none"
    run = SweepRun(0, [], [], OmegaConf.structured(composed(*given)), tmp_path / "run")
    [(found, _)] = check([run])
    assert found.config.engine.precision is BF16
    resolve(composed(*given), run.run_dir, SLOW)
    [(found, work)] = check([run])
    assert found.config.engine.precision is FP32
    write_json(run.run_dir / "results.json", {"steps": [{"key": step.key} for step in work.ends]})
    check([run])
    assert run.state is RunState.skipped
