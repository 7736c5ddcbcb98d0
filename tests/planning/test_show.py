"""The plan as it is printed."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from sdx.config import Precision, ShapeConfig, TaskConfig
from sdx.languages import language
from sdx.models.precision import MachinePrecision
from sdx.planning.show import show
from tests.kit.plan_steps import backbone, corpus, generate, mix, step, train, translate


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch, no_hub):
    monkeypatch.setattr("sdx.planning.show.visible_gpu", lambda: None)


@pytest.fixture
def run(config):
    return steps_of(config)


def steps_of(config):
    """A run's last steps: training and an outcome before and after."""
    rows, model = corpus(), backbone()
    answers = generate(model, rows)
    inputs = {"x_L": rows, "a_L": answers, "x_th": translate(rows, "train.jsonl", "instruction")}
    trained = train(config, mix(inputs, ll=1.0, tl=1.0), model)
    return [generate(model, rows, "heldout.jsonl"), trained, generate(trained, rows, "heldout.jsonl")]


def test_a_plan_of_a_model_that_is_nowhere_says_what_it_takes(config, store, run, capsys):
    found = show(config, store, run)
    printed = capsys.readouterr().out
    total = found["total"]
    assert total["to_do"] == len(found["steps"]) == 11
    assert total["cached"] == 0
    assert total["generated_tokens"] == pytest.approx((1000 + 2 * 100) * 120)
    assert total["translated_tokens"] == pytest.approx(1000 * 25)
    hours = [step["hours"]["8 x H100"] for step in found["steps"].values()]
    assert total["hours"]["8 x H100"] == pytest.approx(sum(hours))
    assert 0 < total["hours"]["8 x H100"] < total["hours"]["1 x H100"]
    assert "hub meta-llama/Llama-2-7b-hf @ 00000000" in printed
    assert "13.5 GB" in printed
    assert printed.count("-> ZeRO 3") == 2
    assert "-> ZeRO 3 + offload" in printed  # on one
    assert "8 x H100: ZeRO-3 (given), " in printed
    assert all(f"{node}: ZeRO-3 (given), " in printed for node in ("8 x 80 GB", "4 x 80 GB", "8 x 40 GB"))
    assert "disk: the training writes 3 checkpoints of 81 GB and a model of 13 GB to cache_dir" in printed
    assert [layout.zero_stage for layout in found["layouts"].values()] == [3, 3]
    assert found["layouts"]["1 x H100"].offload_optimizer
    assert not found["layouts"]["8 x H100"].offload_optimizer
    assert (
        "Generation on one H100: 10 prompts at once, about 13.9 GiB; generator.batch_size=... sets another number."
        in printed
    )
    assert "up to 8 workers share generate, translate" in printed
    one, eight = (found["steps"][run[0].key]["hours"][machine] for machine in ("1 x H100", "8 x H100"))
    loading = 2 * 6_738_415_616 / 1.5e9 / 3600
    assert one - loading == pytest.approx(5 * (eight - loading))  # ten batches in two rounds
    assert {step["origins"]["8 x H100"] for step in found["steps"].values()} == {"formula"}
    assert "nothing was run" in printed
    assert not store.root.exists()
    assert max(map(len, printed.splitlines())) <= 118


def test_a_time_that_was_measured_is_marked(config, store, run, capsys):
    counts = {"rows": 10, "tokens": 1000, "cut": 0}
    path = store.realise(generate(backbone(), step("questions"), counts=counts)) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["provenance"]["device"] = "NVIDIA H100 80GB HBM3"
    path.write_text(json.dumps({**manifest, "seconds": 60.0}))
    found = show(config, store, run)
    printed = capsys.readouterr().out
    before, after = (found["steps"][run[place].key] for place in (0, 2))
    assert set(before["origins"].values()) == {"measured"}
    assert before["hours"]["1 x H100"] * 3600 == pytest.approx(60 * before["tokens"] / 1000)
    assert set(after["origins"].values()) == {"formula"}  # nothing says that its model is as large
    assert max(map(len, printed.splitlines())) <= 118
    assert "m 10 min" in printed


def test_a_plan_says_what_so_many_questions_can_show(config, store, run, capsys):
    config.scale.eval_items, config.task = 150, {"arc_easy": TaskConfig(_target_="")}
    show(config, store, run)
    printed = " ".join(capsys.readouterr().out.split())
    assert "scale.eval_items=150: a benchmark shows a difference of 10 points four times out of five" in printed
    assert "one of 5 points 28 % of the time" in printed


def test_what_is_there_is_not_counted_and_an_interrupted_step_by_what_is_left(config, store, run, capsys):
    held_out = run[0]
    before = show(config, store, run)["total"]["hours"]["1 x H100"]
    rows = [{"instruction": "a" * 110, "answer": "b" * 264}]
    content = {"train.jsonl": rows * 1000, "heldout.jsonl": rows * 100}
    store.realise(corpus(content))
    store.realise(held_out.inputs["model"])
    fresh = show(config, store, [held_out])["total"]["hours"]["1 x H100"]
    partial = store.path(held_out).with_name(f"{held_out.key}.partial")
    partial.mkdir(parents=True)
    (partial / "rows.log").write_text('{"id": "a"}\n{"id": "b"}\n{"id": "c"}\n\n' * 25)
    left = show(config, store, [held_out])["total"]["hours"]["1 x H100"]
    assert left == pytest.approx(fresh / 4)
    capsys.readouterr()
    found = show(config, store, run)
    assert "resumes 75/100" in capsys.readouterr().out
    states = {step["name"]: step["state"] for step in found["steps"].values()}
    assert states["corpus"] == states["backbone"] == "cached"
    assert states["train"] == "to do"
    assert found["total"]["cached"] == 3
    assert found["total"]["hours"]["1 x H100"] < before


def test_memory_is_given_for_every_stage_and_the_launched_ranks(config, store, run, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "16")
    found = show(config, store, run)["memory"]
    assert {ranks for _, _, ranks in found} == {1, 4, 8, 16}
    totals = [found[stage, False, 16][0].total for stage in range(4)]
    assert totals[0] == totals[1] > totals[2] > totals[3]
    assert "ZeRO 0, 1 " in capsys.readouterr().out


def test_a_gpu_is_planned_in_bf16_where_this_cpu_would_take_fp32(config, store, run, monkeypatch, capsys):
    monkeypatch.setattr("sdx.models.precision.cpu_precision", lambda: MachinePrecision(Precision.fp32, "slow", 17))
    config.backbone.shape = ShapeConfig(134_515_008, 30, 576, 1536, 192, 49152)
    bf16, fp32 = (
        replace(config, **{part: replace(getattr(config, part), precision=taken) for part in ("engine", "generator")})
        for taken in (Precision.bf16, Precision.fp32)
    )
    found = show(fp32, store, steps_of(fp32), bf16)
    assert "(full, adamw), bf16, micro-batches" in capsys.readouterr().out
    wholly = show(fp32, store, steps_of(fp32))
    assert "(full, adamw), fp32, micro-batches" in capsys.readouterr().out
    slow = show(bf16, store, steps_of(bf16))
    assert found["memory"] == slow["memory"] != wholly["memory"]
    cpu, gpu = found["total"]["hours"]
    assert [layout.precision.value for layout in found["layouts"].values()] == ["fp32", "bf16"]
    assert found["total"]["hours"][gpu] == slow["total"]["hours"][gpu] < wholly["total"]["hours"][gpu]
    assert found["total"]["hours"][cpu] == wholly["total"]["hours"][cpu] < slow["total"]["hours"][cpu] / 2


def test_a_training_that_fits_nowhere_has_no_time_and_says_why(config, store, run, capsys):
    config.engine = replace(config.engine, name="zero1", zero_stage=1, offload_optimizer=False)
    found = show(config, store, run)
    printed = capsys.readouterr().out
    trained = next(step for step in found["steps"].values() if step["name"] == "train")
    assert trained["hours"]["1 x H100"] is found["total"]["hours"]["1 x H100"] is None
    assert trained["hours"]["8 x H100"] > 0
    assert "1 x H100: engine=zero1 may not fit: by its estimate, training 6.74B parameters" in " ".join(printed.split())
    assert "no times" not in printed


def test_a_model_of_unknown_size_gets_a_plan_without_times(config, store, run, capsys):
    config.backbone.shape = ShapeConfig()
    found = show(config, store, run)
    printed = capsys.readouterr().out
    assert found["total"]["hours"]["8 x H100"] is None
    assert found["memory"] == {}
    assert "give backbone.shape.parameters=" in printed


def test_many_languages_share_a_line(config, store, capsys):
    config.lang.targets = {"th": "tha_Thai", "sw": "swh_Latn", "pt": "por_Latn", "de": "deu_Latn"}
    rows = corpus()
    steps = [translate(rows, "train.jsonl", "answer", target=language(code)) for code in config.lang.targets]
    show(config, store, steps)
    [line] = [line for line in capsys.readouterr().out.splitlines() if "│translate" in line]
    assert "4 languages" in line
    assert "4 keys" in line
    assert "4,000" in line


def test_planning_imports_nothing_heavy():
    heavy = "torch transformers deepspeed pyarrow datasets"
    code = f"import sys, sdx.planning.show; print([name for name in '{heavy}'.split() if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
