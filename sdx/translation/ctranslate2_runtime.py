"""Beam search by CTranslate2, in a process of its own: see `sdx.translation.ctranslate2_child`."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from weakref import finalize

from sdx import InputError
from sdx.config import Precision
from sdx.models.language_codes import language_codes
from sdx.process.ranks import device
from sdx.process.threads import cores
from sdx.store.estimate import Estimate, Plan, Work
from sdx.store.files import read_json, write_json
from sdx.store.step import Step, Workspace
from sdx.translation.search import Search
from sdx.translation.vocabulary import Vocabulary, load_vocabulary

CHILD = "sdx.translation.ctranslate2_child"
ROOT = Path(__file__).parents[2]
INSTEAD = "translator.runtime=transformers does without it"
INSTALL = f"pip install 'sdx[ctranslate2]', or 'sdx[ctranslate2-gpu]' for a GPU; {INSTEAD}"
WEIGHTS = {Precision.int8: "int8_float32", Precision.bf16: "bfloat16", Precision.fp32: "float32"}
"""CTranslate2's names. On a device without bf16 it computes such weights in fp32."""
CONVERSION_S = 30.0
"""For NLLB 600M, on one core."""
END_S = 5.0
"""A process that has lost its input has ended by then."""


class Child:
    """The process; it ends with this object, with this process, or when `close` is called."""

    def __init__(self) -> None:
        if not find_spec("ctranslate2"):
            raise InputError(f"translator.runtime=ctranslate2 needs a package that is not installed: {INSTALL}")
        command, pipe = [sys.executable, "-m", CHILD], subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, encoding="utf-8", env=_environment())
        self.close = finalize(self, _end, self._process)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, do: str, **arguments: Any) -> Any:
        """Raises RuntimeError with what went wrong there, or if the process has ended."""
        requests, answers = self._process.stdin, self._process.stdout
        assert requests
        assert answers
        try:
            requests.write(json.dumps({"do": do, **arguments}) + "\n")
            requests.flush()
            line = answers.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"the process of CTranslate2 ended with status {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            lost = "CUDA error: out of memory: " if "out of memory" in answer["error"] else ""
            raise RuntimeError(f"{lost}{answer['error']}")
        return answer["result"]


def _end(process: "subprocess.Popen[str]") -> None:
    assert process.stdin
    assert process.stdout
    with suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def _environment() -> dict[str, str]:
    """With sdx on the path, not the files where the run was started, and the CUDA 12 libraries that pip installed."""
    found = find_spec("nvidia")
    libraries = [Path(folder) / "cublas" / "lib" for folder in (found and found.submodule_search_locations) or ()]
    paths = {"PYTHONPATH": [ROOT], "LD_LIBRARY_PATH": [path for path in libraries if path.is_dir()]}
    given = {name: [*map(str, some), *filter(None, [os.environ.get(name)])] for name, some in paths.items()}
    own = {name: os.pathsep.join(parts) for name, parts in given.items() if parts}
    return os.environ | own | {"PYTHONSAFEPATH": "1"}


@dataclass(frozen=True, eq=False)
class Converted(Step):
    """Publishes `model/`, a translation model for CTranslate2."""

    name = "ctranslate2"
    brings_model = True

    model: Step
    """Publishes `model/` in Hugging Face format, with its tokenizer."""
    precision: Precision
    """Of the weights."""

    def estimate(self, plan: Plan) -> Estimate:
        return Estimate(work=Work(seconds=CONVERSION_S))

    def run(self, work: Workspace) -> None:
        model_dir, out = work.inputs["model"] / "model", work.dir / "model"
        config, vocabulary = read_json(model_dir / "config.json"), load_vocabulary(model_dir)
        size = max(config["vocab_size"], max(vocabulary.tokens) + 1)
        tokens = [vocabulary.tokens.get(id_, f"madeupword{id_}") for id_ in range(size)]
        names = {"eos_token": tokens[config["eos_token_id"]], "unk_token": "<unk>", "bos_token": "<s>"}
        arguments = {"weights": WEIGHTS[self.precision], "tokens": tokens, "names": names}
        child = Child()
        try:
            child.ask("convert", model_dir=str(model_dir.resolve()), out=str(out), **arguments)
        except RuntimeError as error:
            raise InputError(f"CTranslate2 cannot convert {model_dir.resolve()} ({error}); {INSTEAD}") from error
        finally:
            child.close()
        check_codes(out, language_codes(model_dir, tokens) or set())
        CTranslate2(out, 1).end(names["eos_token"])
        write_json(work.dir / "source.json", {"weights": WEIGHTS[self.precision]})


def check_codes(converted: Path, codes: set[str]) -> None:
    """Raises InputError for codes that the converted vocabulary lacks: CTranslate2 would take them for <unk>."""
    known = set(json.loads((converted / "shared_vocabulary.json").read_text(encoding="utf-8")))
    if missing := sorted(codes - known):
        raise InputError(
            f"the model converted for CTranslate2 has no token for {', '.join(missing[:3])}: config.json has a "
            f"vocab_size without them; {INSTEAD}"
        )


class CTranslate2:
    """A converted model, loaded in a process of its own on this rank's GPU, or on the cores that this rank may use.

    Args:
        batch_tokens: most tokens of a batch, padding included; unless that is fewer than one source has.

    Raises:
        InputError: the model cannot be loaded, or CTranslate2 cannot use the GPU.
    """

    def __init__(self, directory: Path, batch_tokens: int) -> None:
        here = device()
        where = {"device": here.type, "index": here.index or 0, "threads": 1 if here.type == "cuda" else cores()}
        self.child = Child()
        try:
            self.child.ask("load", directory=str(directory), batch_tokens=batch_tokens, **where)
        except RuntimeError as error:
            if "out of memory" in str(error):
                raise
            raise InputError(f"CTranslate2 cannot load {directory} ({error}); {INSTALL}") from error

    def end(self, token: str) -> None:
        """Translates a single token and ends: a library that is missing for the GPU shows by then, before the run has
        computed anything."""
        try:
            self.child.ask("translate", sources=[[token]], rooms=[2], prefix=None, beams=1)
        except RuntimeError as error:
            raise InputError(f"CTranslate2 cannot compute here ({error}); {INSTALL}") from error
        finally:
            self.child.close()

    def translate(self, sources: list[list[int]], search: Search, vocabulary: Vocabulary) -> list[list[int]]:
        """The best translation of each source, the prefix included."""
        tokens: Mapping[int, str] = vocabulary.tokens
        found = self.child.ask(
            "translate",
            sources=[[tokens[id_] for id_ in source] for source in sources],
            rooms=[search.room(len(source)) for source in sources],
            prefix=None if search.prefix is None else tokens[search.prefix],
            beams=search.beams,
        )
        return [[vocabulary.ids[token] for token in row if token in vocabulary.ids] for row in found]
