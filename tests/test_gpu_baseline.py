"""Figures of a GPU against those of an earlier run."""

from pathlib import Path

import pytest

from benchmarks.gpu_baseline import keep, worse
from sdx.store.files import read_json

ABOUT = {"card": "NVIDIA H100 80GB HBM3", "date": "2026-11-01", "versions": {"torch": "2.13.0"}}
LATER = {**ABOUT, "date": "2026-11-29"}
FIGURES = {"decode_tokens_per_s": 1000.0, "ceiling_share": 0.6, "attention_ms": 2.0, "zero1_peak_bytes": 10e9}


@pytest.mark.parametrize(
    ("name", "near", "far"),
    [
        ("decode_tokens_per_s", 860.0, 840.0),
        ("ceiling_share", 0.52, 0.5),
        ("attention_ms", 2.29, 2.31),
        ("zero1_peak_bytes", 11.4e9, 11.6e9),
    ],
)
def test_more_than_15_percent_worse_is_said(name: str, near: float, far: float):
    assert worse({name: near}, FIGURES) == []
    [line] = worse({name: far}, FIGURES)
    assert line.startswith(f"{name} is worse by 1")
    assert worse({name: 2 * FIGURES[name] - far}, FIGURES) == []  # as much better


def test_what_has_no_direction_or_no_baseline_is_not_compared():
    assert worse({"zero1_estimate_bytes": 2e9, "new_ms": 5.0}, {"zero1_estimate_bytes": 1e9}) == []


def test_the_first_run_writes_the_file_and_a_later_one_leaves_it(tmp_path: Path):
    folder = tmp_path / "gpu"
    file, latest = folder / "nvidia_h100_80gb_hbm3.json", folder / "nvidia_h100_80gb_hbm3.latest.json"
    first = dict(list(FIGURES.items())[:3])  # of a run of some of the tests
    assert keep(folder, ABOUT, first) == [f"3 of 3 figures are new and now in {file}"]
    assert read_json(file) == {**ABOUT, "figures": first}
    assert not latest.exists()

    slower = FIGURES | {"decode_tokens_per_s": 500.0}
    lines = keep(folder, LATER, slower)
    assert lines[0] == f"1 of 4 figures are new and now in {file}"
    assert lines[1] == "warning: decode_tokens_per_s is worse by 50%: 500, was 1000"
    assert lines[2].startswith("1 of 3 figures are worse by more than 15% than on 2026-11-01")
    assert lines[2].endswith(f"mv {latest} {file}")
    assert read_json(file) == {**ABOUT, "figures": FIGURES}
    assert read_json(latest) == {**LATER, "figures": slower}

    latest.replace(file)  # as the line says
    assert keep(folder, LATER, slower)[0].startswith("0 of 4 figures are worse")
