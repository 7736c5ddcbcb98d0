"""Steps with the names and configs of a run's, that write next to nothing."""

from sdx.store.files import write_rows
from tests.kit.plain_step import PlainStep


def step(name, config=None, inputs=None, files=None, counts=None):
    """A step that publishes `files`, name -> rows, and counts `counts`."""

    def run(work):
        for file, rows in (files or {}).items():
            write_rows(work.dir / file, rows)
        work.counts.update(counts or {})

    return PlainStep(name, run, config or {}, inputs or {})


def corpus(files=None):
    hub = step("file", {"hub_id": "tatsu-lab/alpaca", "revision": "0" * 40, "file": "a.parquet"})
    return step("corpus", {"heldout_rows": 100}, {"file": hub}, files)


def backbone():
    return step("backbone", {"hub_id": "meta-llama/Llama-2-7b-hf", "revision": "0" * 40})


def generate(model, prompts, file="train.jsonl", field="instruction", **more):
    given = {"file": file, "field": field, "max_new_tokens": 200}
    return step("generate", given, {"model": model, "prompts": prompts}, **more)


def translate(rows, file, field, engine="nllb_600m", **more):
    given = {"file": file, "field": field, "translator": engine, "source": "eng_Latn", "target": "tha_Thai"}
    return step("translate", given, {"rows": rows}, **more)


def mix(inputs, **subsets):
    return step("mix", {"method": "sdrrl", "options": {"subsets": subsets}, "seed": 1}, inputs)


def train(rows, model):
    return step("train", {}, {"mix": rows, "backbone": model})
