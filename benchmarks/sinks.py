"""Where the attention of a stack's LLM rests, and what that does to the gradients.

    python benchmarks/sinks.py runs/mt_stack-.../model ~/.cache/sdx/artifacts/train/*/model

An LLM's attention rests on a first token whose state is a hundred times as large as others, a sink. Of each stored
stack: how many of the texts have a second one, how many tokens are halfway to one, and the norm of the gradients of
each text's vector along one random direction. The LLM's own reading of the same texts stands first. Prints what
RESULTS.md records.
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
from sdx.config import TextConfig
from sdx.languages import ENGLISH
from sdx.stacking.english_texts import read_texts, texts_step
from sdx.store.store import Store

SINK, HALFWAY = 10, 3
"""Times the median norm of a state in the middle layer."""
LIMIT = 64
HEADINGS = (
    "stack",
    "first token / median",
    "texts with two",
    "tokens halfway",
    "gradient (largest)",
    "of it the bridge's",
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(sys.argv[1:] if arguments is None else arguments)
    try:
        texts = _texts(options)
        cells = [row for number, path in enumerate(options.stacks) for row in _rows(path, texts, number == 0)]
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join([f"    python benchmarks/sinks.py {options.command}", "", *table(HEADINGS, cells)]))
    return 0


def _texts(options: argparse.Namespace) -> list[str]:
    if options.texts:
        return options.texts.read_text(encoding="utf-8").splitlines()[: options.rows]
    store = Store.shared()
    return list(read_texts(store.realise(texts_step(TextConfig("offline", asset="english"), options.rows))))


def _rows(path: Path, texts: Sequence[str], first: bool) -> list[list[str]]:
    import torch
    from transformers import AutoTokenizer

    from sdx.stacking.model import StackModel, is_trained, without_adapters
    from sdx.stacking.sequences import llm_tokenizer

    model = StackModel.from_pretrained(path, dtype=torch.float32)
    for name, weight in model.named_parameters():
        weight.requires_grad_(is_trained(name))
    found = []
    if first:
        own = llm_tokenizer(AutoTokenizer.from_pretrained(model.directories["llm"], trust_remote_code=False))
        with torch.no_grad(), without_adapters(model.llm):
            encoded = own.encode([[text] for text in texts], LIMIT)
            norms = [_norms(model, model.llm_hidden_states, one.ids)[0] for one in encoded]
        found.append(["the LLM alone", *_sinks(norms), "", ""])
    direction = torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    norms, gradients, shares = [], [], []
    for one in model.sequence_tokenizer(ENGLISH).encode([[text] for text in texts], LIMIT):
        model.zero_grad()
        its, states = _norms(model, model.hidden_states, one.ids)
        norms.append(its)
        (states[0].mean(0) @ direction).backward()
        squares = {name: float(w.grad.square().sum()) for name, w in model.named_parameters() if w.grad is not None}
        gradients.append(sum(squares.values()) ** 0.5)
        of_bridge = sum(square for name, square in squares.items() if name.startswith("bridge."))
        shares.append(of_bridge / sum(squares.values()))
    median = float(torch.tensor(gradients).median())
    share = float(torch.tensor(shares).median())
    return [*found, [str(path.parent.name), *_sinks(norms), f"{median:.1f} ({max(gradients):.1f})", f"{share:.1%}"]]


def _norms(model: Any, read: Any, ids: Sequence[int]) -> tuple[Any, Any]:
    """Of the states of one text in the middle layer, `[tokens]`; and its states at the top."""
    import torch

    seen: list[Any] = []
    layer = model.llm.layers[len(model.llm.layers) // 2]
    hook = layer.register_forward_hook(lambda *given: seen.append(given[2]))
    try:
        states = read(torch.tensor([ids]))
    finally:
        hook.remove()
    middle = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    return middle.detach().view(len(ids), -1).norm(dim=-1), states


def _sinks(norms: Sequence[Any]) -> list[str]:
    import torch

    usual = torch.cat(list(norms)).median()
    two = sum(int((its > SINK * usual).sum()) > 1 for its in norms)
    halfway = sum(int(((its > HALFWAY * usual) & (its < its.max() / 2)).sum()) for its in norms)
    firsts = torch.stack([its[0] for its in norms]).median()
    return [f"{float(firsts / usual):.0f}", f"{two} of {len(norms)}", f"{halfway} of {sum(map(len, norms))}"]


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "stacks", type=Path, nargs="+", help="directories of stored stacks, as of a run or of the cache"
    )
    parser.add_argument(
        "--texts", type=Path, metavar="FILE", help="English, one a line; the packaged ones unless given"
    )
    parser.add_argument("--rows", type=int, default=64, help="texts to read (64)")
    options = parser.parse_args(arguments)
    options.command = shlex.join(arguments)
    return options


if __name__ == "__main__":
    sys.exit(main())
