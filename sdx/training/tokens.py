"""The mix in tokens, made once and read by all ranks from the same pages of memory.

ids     int32, the examples one after the other
rows    a record for each example, see `ROW`
"""

from array import array
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from random import Random
from struct import Struct
from typing import Any, ClassVar

from sdx import InputError
from sdx.config import TemplateKind
from sdx.process.threads import usable_cores
from sdx.store.batch_log import Row
from sdx.store.estimate import ROWS, Estimate, Plan, Work
from sdx.store.files import read_json, write_json, write_lines
from sdx.store.row_file import RowFile
from sdx.store.row_step import PooledStep
from sdx.store.shared_log import SharedLog
from sdx.store.step import Step, Workspace
from sdx.text.lengths import TEMPLATE_TOKENS

TOKENISED_PER_S = 300_000.0
"""Tokens a second on two cores. Measured beside other work."""
ROW = (("end", "<i8"), ("prompt", "<i4"), ("line", "<i4"), ("group", "<i4"), ("subset", "<i4"), ("draw", "<f8"))
"""Where the example ends in `ids`, tokens of its prompt, its line in the mix, and numbers of its group and its subset.

Groups and subsets are counted in the order in which they first come up. `draw` is the same for a group in any mix.
"""
RECORD = Struct("<qiiiid")


@dataclass(frozen=True, eq=False)
class Tokens(PooledStep):
    """Publishes the examples of a mix that are not too long for training, in the mix's order."""

    name: ClassVar[str] = "tokens"

    mix: Step
    backbone: Step
    template: TemplateKind
    max_length_tokens: int

    @property
    def about(self) -> str:
        return self.mix.about

    def estimate(self, plan: Plan) -> Estimate:
        mix = plan.rows(self.mix)
        example = mix.of("prompt") + mix.of("response") + TEMPLATE_TOKENS
        tokens = mix.count * min(example, self.max_length_tokens)
        work = Work(mix.count * example / (TOKENISED_PER_S * usable_cores()))
        return Estimate(mix.count, tokens, work=work, bound=plan.of(self.mix).bound)

    def read(self, work: Workspace) -> Sequence[Row]:
        return RowFile(work.inputs["mix"] / ROWS)

    def function(self, work: Workspace) -> Callable[[Sequence[Row]], list[Row]]:
        from sdx.models.backbone import check_length

        model_dir = work.inputs["backbone"] / "model"
        check_length(model_dir, self.max_length_tokens)
        return partial(tokenised, model_dir, self.template, self.max_length_tokens)

    def publish(self, log: SharedLog, work: Workspace) -> None:
        """Raises InputError if all examples are too long."""
        rows, groups, subsets = bytearray(), dict[str, int](), dict[str, int]()
        end = too_long = 0

        def examples() -> Iterator[bytes]:
            nonlocal end, too_long
            for line, row in enumerate(log.rows()):
                if "ids" not in row:
                    too_long += 1
                    continue
                end += row["tokens"]
                group = groups.setdefault(row["group"], len(groups))
                subset = subsets.setdefault(row["subset"], len(subsets))
                rows.extend(RECORD.pack(end, row["prompt"], line, group, subset, row["draw"]))
                yield b64decode(row["ids"])

        count = write_lines(work.dir / "ids", examples())
        if not count:
            raise InputError(
                f"scale.max_length_tokens={self.max_length_tokens} is shorter than every training example; raise it"
            )
        write_lines(work.dir / "rows", [bytes(rows)])
        write_json(work.dir / "subsets.json", {"subsets": [*subsets], "too_long": too_long})
        work.counts.update(examples=count, too_long=too_long, tokens=end)


class Examples(Sequence[Any]):
    """Examples that `Tokens` published, `sdx.training.objectives.Example`, read from disk on access."""

    def __init__(self, directory: Path) -> None:
        import numpy as np

        meta, rows = read_json(directory / "subsets.json"), np.memmap(directory / "rows", [*ROW], "r")
        self.too_long: int = meta["too_long"]
        self._names: list[str] = meta["subsets"]
        self._rows = rows
        self._ids = np.memmap(directory / "ids", "<i4", "r").data
        self._columns = [np.ascontiguousarray(rows[name]).data for name in ("end", "prompt", "line", "group")]
        self._numbers = np.arange(len(rows))

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        return self._example(int(self._numbers[index]))

    def __iter__(self) -> Iterator[Any]:
        return map(self._example, self._numbers.data)

    def _example(self, number: int) -> Any:
        from sdx.training.objectives import Example

        ends, prompts, lines, groups = self._columns
        ids = self._ids[ends[number - 1] if number else 0 : ends[number]]
        return Example(f"line {lines[number] + 1} of the mix", ids, prompts[number], groups[number])

    @property
    def lengths(self) -> "array[int]":
        """Tokens of each."""
        import numpy as np

        return array("q", np.diff(self._rows["end"], prepend=0)[self._numbers].tobytes())

    @property
    def subsets(self) -> dict[str, int]:
        """Examples of each subset."""
        import numpy as np

        counts = np.bincount(self._rows["subset"][self._numbers], minlength=len(self._names)).tolist()
        return {name: count for name, count in zip(self._names, counts, strict=True) if count}

    def split(self, held_out: int) -> "tuple[Examples, Examples]":
        """(to train on, to validate on): so many groups are held out, whatever the seed; of a larger mix, many of the
        same."""
        import numpy as np

        groups = self._rows["group"]
        _, first = np.unique(groups, return_index=True)
        held = np.isin(groups, np.argsort(self._rows["draw"][first])[:held_out])
        return self._only(np.flatnonzero(~held)), self._only(np.flatnonzero(held))

    @property
    def groups(self) -> int:
        return int(self._rows["group"][self._numbers].max(initial=-1)) + 1

    def _only(self, numbers: Any) -> "Examples":
        view = copy(self)
        view._numbers = numbers
        return view


@lru_cache(maxsize=1)
def _tokenizer(model_dir: Path, template: TemplateKind) -> Any:
    from sdx.models.backbone import load_tokenizer

    return load_tokenizer(model_dir, template)


def tokenised(
    model_dir: Path, template: TemplateKind, max_length_tokens: int, rows: Sequence[Mapping[str, Any]]
) -> list[Row]:
    """Rows of a mix in tokens; those that are too long without them."""
    import numpy as np

    from sdx.models.template import encode_examples, encode_plain

    tokenizer = _tokenizer(model_dir, template)
    turns = [(row["prompt"], row["response"]) for row in rows if not row.get("plain")]
    encoded = iter(encode_examples(tokenizer, turns))
    found = []
    for row in rows:
        plain = row.get("plain")
        ids, prompt = encode_plain(tokenizer, row["prompt"], row["response"]) if plain else next(encoded)
        one = {"id": row["id"], "tokens": len(ids)}
        if len(ids) <= max_length_tokens:
            group, numbers = row["source_id"], b64encode(np.array(ids, "<i4").tobytes()).decode()
            draw = Random(f"validation {group}").random()
            one |= {"ids": numbers, "prompt": prompt, "group": group, "subset": row["subset"], "draw": draw}
        found.append(one)
    return found
