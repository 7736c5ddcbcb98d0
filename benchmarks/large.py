"""A corpus of a million rows through the real steps: corpus, filters, mix, tokens, and the first step of a training.

    python benchmarks/large.py                      # 1,500,000 rows, killed ten times; over an hour, 40 GB of disk
    python benchmarks/large.py --rows 30000

Made-up rows: sentences of the packaged instructions, and as their translations questions of the human-translated MMLU
in Thai, Hindi and Portuguese, 100 words each. The translations stand in for a translator's. All else is as in a run of
`translate_sft`, on all cores. Each step has the seconds that it took and the most memory that one of its processes had.
With `--kills` the same is made again, killed at random moments and started again, and the bytes are compared.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from shutil import copytree
from threading import Event, Thread
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script's own folder is all that Python would search

from benchmarks.measure import high_water_bytes
from benchmarks.report import table
from sdx.cli import main as cli
from sdx.config import Config, CorpusColumns, CorpusConfig, FilterConfig, ScaleConfig
from sdx.data.corpus import SEED_CORPUS, corpus_step
from sdx.data.filters import Filter
from sdx.languages import Language, language
from sdx.methods.base import Mix, corpus_texts, pairs, texts
from sdx.store.estimate import ROWS
from sdx.store.files import MANIFEST, read_rows, write_rows
from sdx.store.step import Step, Workspace
from sdx.store.store import Store
from sdx.tasks.mmlu import translated_subjects
from sdx.training.step import Train

SOURCE, TARGETS = language("en"), [language(code) for code in ("th", "hi", "pt")]
WORDS = {"instruction": 40, "answer": 100}
BYTES = {"tha_Thai": 1500, "hin_Deva": 1400, "por_Latn": 650}
"""About 100 words."""
CHATML = (
    "{% for message in messages %}{{ '<s>' + message['role'] + '\n' + message['content'] + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)
LIMIT = 1024
"""`scale.max_length_tokens`."""


@cache
def sentences(of: Language) -> list[str]:
    if of is SOURCE:
        written = (row[name].replace("\n", " ") for row in read_rows(SEED_CORPUS) for name in WORDS)
        return [f"{one.strip()}." for text in written for one in text.split(".") if len(one.split()) > 3]
    questions = (row for rows in translated_subjects(of.mmlu).values() for row in rows)
    return [one for question, choices, _ in questions for one in (question, *choices) if len(one.encode()) > 30]


def made_up(seed: str, of: Language, least_bytes: int) -> str:
    dice, found, length = random.Random(seed), list[str](), 0
    while length < least_bytes:
        found.append(dice.choice(sentences(of)))
        length += len(found[-1].encode())
    return " ".join(found)


def asked(number: int) -> dict[str, str]:
    sides = {name: made_up(f"{name} {number}", SOURCE, 6 * words) for name, words in WORDS.items()}
    return {"id": f"n{number}", **sides}


@dataclass(frozen=True, eq=False)
class MadeUp(Step):
    """Stands in for the translation of every third answer."""

    name = "translate"

    part: int
    rows: int
    target: Language

    def run(self, work: Workspace) -> None:
        least = BYTES[self.target.flores]
        write_rows(
            work.dir / ROWS,
            (
                {
                    "id": row["id"],
                    "source": row["answer"],
                    "text": made_up(f"{self.target.code} {number}", self.target, least),
                }
                for number in range(self.part, self.rows, len(TARGETS))
                for row in [asked(number)]
            ),
        )


@dataclass(frozen=True, eq=False)
class Tiny(Step):
    """A random model of two layers with a tokenizer of 16,000 tokens, trained on these sentences."""

    name = "backbone"

    def run(self, work: Workspace) -> None:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=16_000, special_tokens=["<s>", "</s>", "<pad>"], initial_alphabet=alphabet, show_progress=False
        )
        bpe.train_from_iterator((one for of in (SOURCE, *TARGETS) for one in sentences(of)), trainer)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", pad_token="<pad>")
        tokenizer.chat_template = CHATML
        size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=1024, **size))
        for part in (model, tokenizer):
            part.save_pretrained(work.dir / "model")


def mixed(inputs: Mapping[str, Path], seed: int) -> Iterator[dict[str, Any]]:
    """As `translate_sft`, but with the questions in English."""
    x = corpus_texts(inputs["corpus"], "instruction", SOURCE)
    for target in TARGETS:
        yield from pairs("gold", x, texts(inputs[target.code], target, "mt"))


def steps(folder: Path, rows: int) -> tuple[list[Step], list[Step]]:
    """(what stands in for other steps, what is measured)."""
    given = [Tiny(), *(MadeUp(part, rows, target) for part, target in enumerate(TARGETS))]
    file = folder / "corpus.jsonl"
    if not file.exists():
        write_rows(file, map(asked, range(rows)))
    corpus = corpus_step(
        CorpusConfig("large", path=str(file), columns=CorpusColumns(id="id")),
        ScaleConfig(corpus_rows=0, heldout_rows=500),
        SOURCE,
    )
    filters = FilterConfig()
    good = [Filter(one, filters.translations, of, SOURCE, filters) for one, of in zip(given[1:], TARGETS, strict=True)]
    parts = {"corpus": corpus, **{of.code: one for of, one in zip(TARGETS, good, strict=True)}}
    mix = Mix("large", {}, 1, parts, build=mixed, version=1)
    train = Train(mix, given[0], settings=config())
    return given, [corpus, *good, mix, train.tokens, train]


def config() -> Config:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    cli.register()
    with initialize_config_dir(str(cli.CONF), version_base="1.3"):
        options = (f"max_length_tokens={LIMIT}", "max_steps=1")
        found = compose("config", ["method=sft", "engine.precision=fp32", *(f"scale.{option}" for option in options)])
    typed = OmegaConf.to_object(found)
    assert isinstance(typed, Config)
    return typed


def work(folder: Path, cache_dir: Path, rows: int) -> None:
    """Makes the steps, and writes a line about each that it finishes."""
    store = Store(cache_dir)
    for step in steps(folder, rows)[1]:
        if store.cached(step):
            continue
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        began, before, over, peaks = time.monotonic(), cpu_s(), Event(), [0]
        thread = Thread(target=partial(_watch, over, peaks), daemon=True)
        thread.start()
        directory = store.realise(step)
        found = {"step": step.name, "seconds": round(time.monotonic() - began, 1), "rows": counted(store, step)}
        found["cpu_s"] = round(cpu_s() - before, 1)
        over.set()
        if step.trains:
            first = json.loads((directory / "log.jsonl").read_text().splitlines()[0])["seconds"]
            found["waited"] = round(store.manifest(step)["seconds"] - first, 1)
        print(json.dumps({**found, "peak": high_water_bytes(), "workers": peaks[0]}), flush=True)


def cpu_s() -> float:
    """Seconds of all cores that this process and its ended children have used."""
    return sum(os.times()[:4])


def counted(store: Store, step: Step) -> int:
    counts = store.manifest(step)["counts"]
    return int(next(counts[name] for name in ("examples", "rows", "kept", "train") if name in counts))


def _watch(over: Event, peaks: list[int]) -> None:
    """The most memory of one of this process' children."""
    while not over.wait(0.2):
        for children in Path("/proc/self/task").glob("*/children"):
            for child in children.read_text().split():
                try:
                    lines = Path(f"/proc/{child}/status").read_text().splitlines()
                except OSError:
                    continue
                marks = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
                peaks[0] = max(peaks[0], *marks, 0)


def digests(cache_dir: Path) -> dict[str, str]:
    """SHA-256 of every published file of the data."""
    files = (path for path in (cache_dir / "artifacts").glob("*/*/*") if path.is_file() and path.name != MANIFEST)
    found = {}
    for path in sorted(files):
        if path.parent.parent.name not in ("train", "backbone"):
            with path.open("rb") as file:
                digest = sha256()
                while block := file.read(1 << 20):
                    digest.update(block)
            found[str(path.relative_to(cache_dir))] = digest.hexdigest()
    return found


def start(folder: Path, cache_dir: Path, rows: int) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, "--work", str(cache_dir), "--rows", str(rows), "--folder", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def killed(folder: Path, calm: Path, rows: int, kills: int, seconds: float) -> Path:
    """The cache of a run that was killed so many times."""
    again, dice = folder / "killed", random.Random(os.environ.get("SDX_TEST_SEED", "1"))
    for name in ("translate", "backbone"):
        copytree(calm / "artifacts" / name, again / "artifacts" / name, copy_function=os.link, dirs_exist_ok=True)
    for number in range(kills):
        process = start(folder, again, rows)
        pause = dice.uniform(0.02, 2 / kills) * seconds
        try:
            process.wait(pause)
            print(f"had ended before kill {number + 1}", file=sys.stderr)
        except subprocess.TimeoutExpired:
            process.kill()  # its workers end by themselves
            process.wait()
            print(f"kill {number + 1} after {pause:.0f} s", file=sys.stderr)
    last = start(folder, again, rows)
    assert last.wait() == 0
    return again


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_500_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=Path("large"))
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    folder, rows = options.folder.absolute(), options.rows
    folder.mkdir(parents=True, exist_ok=True)
    if options.work:
        work(folder, options.work, rows)
        return 0
    calm = folder / "calm"
    if calm.exists():
        parser.error(f"--folder={options.folder} has the steps already; give another")
    for step in steps(folder, rows)[0]:
        Store(calm).realise(step)
    process = start(folder, calm, rows)
    assert process.stdout
    found = []
    for line in process.stdout:
        found.append(json.loads(line))
        print(line, end="", file=sys.stderr)
    assert process.wait() == 0
    cells = [
        [
            one["step"],
            f"{one['rows']:,}",
            *(f"{one[name]:.0f}" for name in ("seconds", "cpu_s")),
            *(f"{one[name] / 1e6:.0f}" for name in ("peak", "workers")),
        ]
        for one in found
    ]
    print("\n".join(table(("step", "rows", "seconds", "CPU seconds", "MB, main process", "MB, a worker"), cells)))
    data = sum(one["seconds"] for one in found if one["step"] != "train")
    print(f"data: {data / 60:.1f} minutes; waited before step 1: {found[-1].get('waited')} s")
    if options.kills:
        again = killed(folder, calm, rows, options.kills, data)
        same = digests(again) == digests(calm)
        print(f"killed {options.kills} times: the bytes are {'the same' if same else 'OTHERS'}")
        return 0 if same else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
