"""A GPU's figures in `gpu/<card>.json`, and what of a new run is worse.

The first run on a card writes the file. A later one is compared with it and adds only figures that it lacks; all its
own are in `<card>.latest.json` beside it, which is the new baseline once it is moved there.

A figure's name says what it is: `..._per_s` and `..._share` are better when higher, `..._ms` and `..._peak_bytes` when
lower; others are kept and not compared.
"""

import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.machine import versions
from sdx.store.files import read_json, write_json

WORSE = 0.15
"""Share of a figure that it may lose without a word. Ours."""
HIGHER, LOWER = ("_per_s", "_share"), ("_ms", "_peak_bytes")
DRIVER = Path("/sys/module/nvidia/version")


def about() -> dict[str, Any]:
    """The card and what drives it."""
    import torch

    driver = DRIVER.read_text(encoding="utf-8").strip() if DRIVER.exists() else "unknown"
    return {
        "card": torch.cuda.get_device_name(),
        "date": date.today().isoformat(),
        "versions": versions() | {"cuda": torch.version.cuda, "driver": driver},
    }


def keep(folder: Path, about: Mapping[str, Any], figures: Mapping[str, float]) -> list[str]:
    """Writes figures to the card's file, or compares them with those that are there; what there is to say, in lines."""
    stem = re.sub(r"[^a-z0-9]+", "_", about["card"].lower()).strip("_")
    path, latest = folder / f"{stem}.json", folder / f"{stem}.latest.json"
    old: dict[str, Any] = read_json(path) if path.exists() else {**about, "figures": {}}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, {**old, "figures": {**figures, **old["figures"]}})
    new = [name for name in figures if name not in old["figures"]]
    lines = [f"{len(new)} of {len(figures)} figures are new and now in {path}"] if new else []
    if len(new) < len(figures):
        write_json(latest, {**about, "figures": {**old["figures"], **figures}})
        losses = worse(figures, old["figures"])
        lines += [f"warning: {loss}" for loss in losses]
        lines.append(
            f"{len(losses)} of {len(figures) - len(new)} figures are worse by more than {WORSE:.0%} than on "
            f"{old['date']}; to accept these figures: mv {latest} {path}"
        )
    return lines


def worse(figures: Mapping[str, float], baseline: Mapping[str, float]) -> list[str]:
    """The figures that have lost more than `WORSE` of the baseline's, each with both values."""
    found = []
    for name, value in figures.items():
        before = baseline.get(name, value)
        higher = name.endswith(HIGHER)
        if not higher and not name.endswith(LOWER):
            continue
        lost = (before - value if higher else value - before) / before
        if lost > WORSE:
            found.append(f"{name} is worse by {lost:.0%}: {value:.4g}, was {before:.4g}")
    return found
