"""What a stack that was aligned on English carries over to other languages.

    python benchmarks/alignment.py ~/.cache/sdx/artifacts/stack/*/model ~/.cache/sdx/artifacts/train/*/model

The LLM reads short questions of MMLU in English, a stack their human translations into other languages. Of a stack's
vectors: the fraction of variance of the LLM's own that is unexplained (1 says nothing), and how often the LLM's nearest
vector by cosine is the same question's, both centred. The LLM's own reading of the translations stands first. Prints
what RESULTS.md records.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script's own folder is all that Python would search

from benchmarks.report import table
from sdx import InputError
from sdx.languages import language
from sdx.store.store import Store
from sdx.tasks.mmlu import MMLUHuman

SHORT = 200
"""Characters of an English question, which alignment has seen the length of."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(sys.argv[1:] if arguments is None else arguments)
    try:
        questions = _questions(("en", *options.lang), options.rows)
        cells = [row for number, path in enumerate(options.stacks) for row in _rows(path, questions, number == 0)]
    except (InputError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    command = f"    python benchmarks/alignment.py {options.command}"
    print("\n".join([command, "", *table(["stack", *questions], cells)]))
    return 0


def _questions(codes: Sequence[str], rows: int) -> dict[str, list[str]]:
    """The same ones of every language, evenly taken from all subjects."""
    items = {code: _read(code) for code in codes}
    short = sorted(id_ for id_, question in items["en"].items() if len(question) <= SHORT)
    taken = short[:: max(1, len(short) // rows)][:rows]
    return {code: [its[id_] for id_ in taken] for code, its in items.items()}


def _read(code: str) -> dict[str, str]:
    its, task = language(code), MMLUHuman(shots=0)
    if reason := task.why_unsupported(its):
        raise InputError(f"--lang={code}: {reason}")
    store = Store.shared()
    items = task.read({name: store.realise(step) for name, step in task.inputs(its, its).items()}, its, its)
    return {item.id: item.prompt for item in items}


def _rows(path: Path, questions: dict[str, list[str]], first: bool) -> list[list[str]]:
    import torch
    from transformers import AutoTokenizer

    from sdx.stacking.model import LONGEST_TOKENS, StackModel, without_adapters
    from sdx.stacking.sequences import llm_tokenizer

    model = StackModel.from_pretrained(path, dtype=torch.float32).eval()
    own = llm_tokenizer(AutoTokenizer.from_pretrained(model.directories["llm"], trust_remote_code=False))

    def alone(texts: Sequence[str]) -> Any:
        with torch.no_grad(), without_adapters(model.llm):
            encoded = own.encode([[text] for text in texts], LONGEST_TOKENS)
            return torch.stack([model.llm_hidden_states(torch.tensor([one.ids]))[0].mean(0) for one in encoded])

    wanted = alone(questions["en"])
    found = []
    if first:
        others = (alone(texts) for code, texts in questions.items() if code != "en")
        found.append(["the LLM alone", *(_cell(vectors, wanted) for vectors in (wanted, *others))])
    read = (model.encode(texts, code) for code, texts in questions.items())
    return [*found, [path.parent.name, *(_cell(vectors, wanted) for vectors in read)]]


def _cell(vectors: Any, wanted: Any) -> str:
    """Of `[texts, hidden]` both."""
    import torch

    unexplained = (vectors - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()
    ours, theirs = (torch.nn.functional.normalize(its - its.mean(0), dim=1) for its in (vectors, wanted))
    hits = (ours @ theirs.T).argmax(1) == torch.arange(len(wanted))
    return f"{float(unexplained):.2f}, {float(hits.float().mean()):.0%}"


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stacks", type=Path, nargs="+", help="directories of stored stacks, as of the cache")
    parser.add_argument("--lang", default="pt,hi,th", help="beside English, of MMLU's translations (pt,hi,th)")
    parser.add_argument("--rows", type=int, default=72, help="questions to read (72)")
    options = parser.parse_args(arguments)
    options.lang = options.lang.split(",")
    options.command = shlex.join(arguments)
    return options


if __name__ == "__main__":
    sys.exit(main())
