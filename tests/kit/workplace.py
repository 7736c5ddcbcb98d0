"""Directories in which sdx is run as a user runs it: a tiny model, small data, a cache."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from sdx.store.files import read_json, read_rows
from tests.kit import forks
from tests.kit.tiny import tiny_model

SMALL = (
    "backbone=path",
    "parallel=file",
    "parallel.path='pairs-{target}.tsv'",
    "scale.corpus_rows=6",
    "scale.heldout_rows=3",
    "scale.parallel_rows=0",
    "scale.eval_items=4",
    "scale.max_new_tokens=12",
    "scale.max_length_tokens=1000",
    "train.batch_size=8",
    "engine.micro_batch_tokens=1024",
    "engine.precision=fp32",
    "generator.precision=fp32",
)
WORDS = {
    "en": "the a of in word sentence write water list name what is".split(),
    "pt": "o um de em palavra frase escreva água lista nome que é".split(),
    "th": "นี้ หนึ่ง ของ ใน คำ ประโยค เขียน น้ำ รายการ ชื่อ อะไร คือ".split(),
    "hi": "यह एक का में शब्द वाक्य लिखो पानी सूची नाम क्या है".split(),
}
# A random model never ends its answers and writes no language, so the filters would drop them all.
SDRRL = ("method=sdrrl", "filters.answers=[empty]", "filters.translations=[]")
UNSEEN = "tracking=none"
"""No dashboard, for it takes seconds."""


class Workplace:
    """A directory with a tiny model and a cache, where sdx is run as a user would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = tiny_model(path / "tiny")
        for code, words in WORDS.items():
            pairs = [(english, word) for english, word in zip(WORDS["en"], words, strict=True)]
            pairs += [
                (f"There is a {english} here.", f"{word} {word} {word} {word} {word} {n}.")
                for n, (english, word) in enumerate(pairs)
            ]
            (path / f"pairs-{code}.tsv").write_text("".join(f"{one}\t{other}\n" for one, other in pairs))

    def sdx(self, *arguments: str, ranks: int = 1, lang: str = "pt") -> tuple[Path, str]:
        """Runs a run; its directory and what it printed."""
        given = (f"lang={lang}", f"backbone.path={self.model}", *SMALL, *arguments)
        environment = {"SDX_CACHE": str(self.path / "cache")}
        if ranks == 1:
            done = forks.sdx(*given, cwd=self.path, environment=environment)
        else:
            launch = ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m", "sdx"]
            done = subprocess.run(
                [sys.executable, "-m", *launch, *given],
                cwd=self.path,
                env={**os.environ, **forks.ENVIRONMENT, **environment},
                capture_output=True,
                text=True,
                timeout=300,
            )
        printed = done.stdout + done.stderr
        assert done.returncode == 0, printed
        run = re.search(r"run +(runs/\S+|/\S+/runs/[^,\s]+)", printed)
        assert run, printed
        return self.path / run[1], printed

    def artifact_of(self, run: Path, name: str) -> Path:
        """The one artifact of that name behind a run's results."""
        [path] = [Path(step["path"]) for step in read_json(run / "results.json")["steps"] if step["name"] == name]
        return path

    def artifacts(self, name: str) -> set[str]:
        return {path.name for path in (self.path / "cache/artifacts" / name).glob("*") if path.is_dir()}


def training_log(run: Path) -> list[dict[str, float]]:
    """Of a finished run."""
    return read_rows((run / "model").resolve().parent / "log.jsonl")


def sdx(
    *arguments: str,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    cache_dir: str = "cache",
    runs_dir: str = "runs",
) -> subprocess.CompletedProcess[str]:
    """What `python -m sdx` does in this directory, without a dashboard."""
    here = (f"cache_dir={cwd / cache_dir}", f"runs_dir={cwd / runs_dir}", "tracking=none")
    return forks.sdx(*arguments, *here, cwd=cwd, environment=environment)


class QuickRun:
    """A run that takes seconds, and a cache in which all its steps are done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        model = tiny_model(path / "tiny")
        rows = [{"instruction": f"Name {n} fruits.", "answer": f"{n} apples."} for n in range(12)]
        (path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.arguments = [
            "method=sft",
            "corpus=file",
            "corpus.path=mine.jsonl",
            "corpus.language=en",
            "backbone=path",
            f"backbone.path={model}",
            "task=instructions",
            "lang=pt",
            "scale.corpus_rows=0",
            "scale.heldout_rows=4",
            "scale.max_new_tokens=8",
            "scale.max_length_tokens=200",
            "train.batch_size=4",
            "engine.precision=fp32",
            "generator.precision=fp32",
        ]
        done = self.run()
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return sdx(*self.arguments, *arguments, cwd=self.path)

    def artifact(self, name: str) -> Path:
        return next(path for path in (self.path / "cache/artifacts" / name).iterdir() if path.is_dir())
