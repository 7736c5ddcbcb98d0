"""Sizes of benchmarks: those of their authors, the same in the plan and in conf/."""

import re
from pathlib import Path

import pytest

from sdx.languages import language, languages
from sdx.tasks.sizes import BENCHMARKS, LABELLED, XLSUM, items_of

CONF = Path(__file__).parents[2] / "conf"
MKQA = {"entity": 4221, "date": 1174, "number": 485, "number_with_unit": 394, "short_phrase": 346}
"""Questions by type of answer, of those that are asked (the authors' README)."""
MKQA_NOT_ASKED = {"long_answer": 1815, "unanswerable": 1427, "binary": 138}


def test_sizes_are_the_authors():
    assert sum(MKQA.values()) + sum(MKQA_NOT_ASKED.values()) == 10_000
    assert BENCHMARKS["mkqa"][0] == sum(MKQA.values()) == 6620
    assert BENCHMARKS["kardes_nlu"][0] == 2000
    assert BENCHMARKS["belebele"][0] == BENCHMARKS["belebele_mc"][0] == 900
    assert LABELLED["belebele_mc"][0] == 67_500


def test_xlsum_has_a_size_for_each_of_its_languages():
    held = {entry.xlsum: entry.flores for entry in languages() if entry.xlsum}
    assert held.keys() == XLSUM.keys()
    assert {name: items_of("xlsum", language(flores))[0] for name, flores in held.items()} == XLSUM
    assert BENCHMARKS["xlsum"][0] == XLSUM["english"] == max(XLSUM.values())
    assert [name for name, count in XLSUM.items() if count == 500] == ["kyrgyz", "scottish_gaelic", "sinhala"]
    assert min(XLSUM.values()) == 500
    pidgin, serbian_in_latin = 1151, 909
    assert sum(XLSUM.values()) + pidgin + serbian_in_latin == 114_198
    assert items_of("xnli", language("th")) == BENCHMARKS["xnli"]


@pytest.mark.parametrize("task", BENCHMARKS)
def test_the_sizes_that_conf_names_are_the_plans(task: str):
    comment = "".join(line for line in (CONF / f"task/{task}.yaml").open() if line.startswith("#"))
    numbers = {int(number.replace(",", "")) for number in re.findall(r"\d{1,3}(?:,\d{3})+|\d+", comment)}
    assert BENCHMARKS[task][0] in numbers or task in ("arc_easy_full", "gsm8k")  # as arc_easy; half of what it names
    if task in LABELLED and task not in ("americas_nli", "gsm8k", "kardes_nlu", "mmlu_subject"):
        assert LABELLED[task][0] in numbers


@pytest.mark.parametrize("path", sorted(CONF.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_conf_says_where_a_branch_of_the_converter_is_pinned(path: Path):
    """Its files are numbered alone, or lie in a folder for each split, or have a name from the script's."""
    text = path.read_text(encoding="utf-8")
    files = re.findall(r"^ *file: (.+)$", text, re.MULTILINE)
    converted = any(re.search(r"/\d{4}\.parquet|senti-\w+\.parquet", file) for file in files)
    assert converted == ("refs/convert/parquet" in text)
