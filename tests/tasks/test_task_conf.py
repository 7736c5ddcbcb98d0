"""conf/task with Hydra: sets, single tasks, lists of tasks, options."""

import re
from pathlib import Path

import pytest

from tests.kit.task_files import CONF, compose

ALL = ["arc_easy", "mmlu_human", "instructions"]
PAPER = ["belebele", "flores", "xlsum", "mkqa"]
LABELLED = ["arc_easy_full", "gsm8k", "mgsm", "xnli", "xquad", "nusax", "americas_nli", "kardes_nlu", "belebele_mc"]
READ = ["mmlu_subject"]


@pytest.mark.parametrize(
    ("overrides", "names", "shots"),
    [
        ([], ALL, 0),
        (["task=offline"], ALL, 0),
        (["task=arc_easy"], ["arc_easy"], 0),
        (["task=[arc_easy,mmlu_human]"], ["arc_easy", "mmlu_human"], 0),
        (["task=sdrrl"], PAPER, 0),
        (["task=[offline,sdrrl]"], [*ALL, *PAPER], 0),
        (["task=stt"], ["arc_easy", "mmlu_human"], 0),
        (["task=[xnli,xquad,mgsm]"], ["xnli", "xquad", "mgsm"], 0),
        (["task.arc_easy.shots=3"], ALL, 3),
        (["task=arc_easy", "task.arc_easy.shots=3"], ["arc_easy"], 3),
        (["~task.arc_easy"], ["mmlu_human", "instructions"], 0),
    ],
)
def test_composition(overrides: list[str], names: list[str], shots: int, tmp_path: Path) -> None:
    tasks = compose(tmp_path, *overrides)
    assert list(tasks) == names
    assert sum(task.shots for task in tasks.values()) == shots


@pytest.mark.parametrize(
    "overrides",
    [
        ["task.arc_easy.shots=x"],
        ["task.arc_easy.shot=3"],
        ["task.arc_easy.path=/x"],  # the benchmark is packaged
        ["task=belebele", "task.belebele.pat=/x"],
        ["task=xnli", "task.xnli.train.pat=/x"],
        ["task=xnli", "task.xnli.test.half=x"],
        ["task=nope"],
    ],
)
def test_mistakes_are_refused(overrides: list[str], tmp_path: Path) -> None:
    from hydra.errors import HydraException

    with pytest.raises(HydraException):
        compose(tmp_path, *overrides)


def test_every_task_is_built_and_bears_the_name_of_its_file(tmp_path: Path) -> None:
    import importlib

    names = [*ALL, *PAPER, *LABELLED, *READ]
    assert sorted([*names, "lm_eval", "offline", "sdrrl", "stt"]) == sorted(path.stem for path in CONF.glob("*.yaml"))
    given = "task.mkqa.path=/mkqa.jsonl.gz", "task.lm_eval.names=[arc_easy]"
    composed = compose(tmp_path, f"task=[lm_eval,{','.join(names)}]", *given)
    assert list(composed) == ["lm_eval", *names]
    for name, config in composed.items():
        options = vars(config).copy()
        module, _, cls = options.pop("_target_").rpartition(".")
        assert getattr(importlib.import_module(module), cls)(**options).name == name


def test_what_the_hub_has_is_pinned(tmp_path: Path) -> None:
    configs = compose(tmp_path, f"task=[sdrrl,{','.join(LABELLED)}]")
    revisions = {name: configs[name].revision for name in PAPER if configs[name].hub_id}
    for name in LABELLED:
        splits = {f"{name}.{split}": getattr(configs[name], split) for split in ("train", "validation", "test")}
        revisions |= {key: split.revision for key, split in splits.items() if split.hub_id}
    hub = {name: ["train", "test"] for name in LABELLED if name != "gsm8k"}
    hub |= {"belebele_mc": ["test"], "kardes_nlu": ["train", "validation"]}
    hub |= {name: ["train", "validation", "test"] for name in ("xnli", "nusax", "americas_nli")}
    wanted = [f"{name}.{split}" for name, splits in hub.items() for split in splits]
    assert sorted(revisions) == sorted(["belebele", "flores", "xlsum", *wanted])
    assert all(re.fullmatch("[0-9a-f]{40}", revision) for revision in revisions.values())
