"""Models in Hugging Face format that somebody else made: packaged, from a commit on the hub, or in a directory."""

import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from fnmatch import fnmatch
from functools import cache, cached_property
from hashlib import sha256
from logging import getLogger
from pathlib import Path
from threading import Thread
from typing import Any

from sdx import InputError
from sdx.models import directory
from sdx.models.weights import COPY_AGAIN, parts
from sdx.offline.assets import AssetStep, asset, packages
from sdx.options.source import Source
from sdx.process.disk import writing
from sdx.sources.hub import ANSWER_S, Cause, Unavailable, check_available, explain
from sdx.store.estimate import Estimate, Plan, Work
from sdx.store.files import write_json
from sdx.store.hub_source import HubSource
from sdx.store.step import Step, Workspace, runtime

log = getLogger("sdx")

SAFETENSORS = "*.safetensors"
PYTORCH = "pytorch_model*.bin"
FILES = ("*.json", "*.model", "*.spm", "*.jinja", "*.txt")
"""What belongs to a model beside its weights: configuration, tokenizer, template."""
CONFIG = "config.json"
CONVERSION_S_PER_PARAMETER = 18 / 135e6
"""From packaged weights to a Hugging Face directory, on two cores; measured."""
CHOICE_S = 3.0
"""How long a choice waits for the hub."""
Trial = Callable[[Path, str, str], None]
"""Raises InputError for a directory that transformers cannot load. Gets what names it in messages, and what to do about
a file that is broken."""


@dataclass(frozen=True)
class HubModel(HubSource):
    """A model, in one of several formats of weights."""

    weights: tuple[str, ...] = ()
    """Patterns of files, the best first."""

    config: str = CONFIG

    repo_type = "model"

    def cached(self) -> bool:
        return _here(self.hub_id, self.revision, self.weights) is not None

    def probe(self) -> None:
        from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url

        # The list of files is open where the files are not.
        get_hf_file_metadata(hf_hub_url(self.hub_id, self.config, revision=self.revision), timeout=ANSWER_S)
        files = HfApi().model_info(self.hub_id, revision=self.revision, timeout=ANSWER_S).siblings or []
        if not any(fnmatch(file.rfilename, pattern) for file in files for pattern in self.weights):
            raise Unavailable(self, Cause.missing, self.missing_reason())

    def missing_reason(self) -> str:
        wanted = " or ".join(pattern.rpartition(".")[2] for pattern in self.weights)
        return f"has no {self.config} or no {wanted}, or not all of it; convert it and set {self.group}.path"


def no_trial(model_dir: Path, what: str, again: str) -> None:
    """Nothing is tried."""


def check_model(
    source: Source,
    group: str,
    own: str = "",
    *,
    packaged: Collection[str] = (),
    tokenizers: Sequence[str] = (),
    pickles: bool = True,
) -> None:
    """Raises InputError for a model that cannot be had from there. Loads nothing and asks no network.

    Args:
        own: how to take a model of one's own.
        packaged: names of the assets that there are.
        tokenizers: patterns of files; a directory has one of them.
        pickles: whether weights in PyTorch's own format will do.
    """
    source.check(group, own)
    asset = getattr(source, "asset", None)
    if asset and asset not in packaged:
        raise InputError(f"{group}.asset={asset} is unknown; choose one of {', '.join(packaged)}; {own}")
    if source.path:
        model_dir, what = local(source.path), f"{group}.path={source.path}"
        directory.check(model_dir, what, pickles)
        if tokenizers and not any(any(model_dir.glob(pattern)) for pattern in tokenizers):
            raise InputError(f"{what} has no tokenizer ({', '.join(tokenizers)}); save it there")


@dataclass(frozen=True, eq=False)
class ModelStep(Step):
    """Publishes `model/`, a directory in Hugging Face format, and `source.json`, where it is from."""

    brings_model = True

    _: KW_ONLY  # for type checkers, who do not see it in `runtime`
    name: str = runtime()  # type: ignore[misc]
    """What the model is there for: backbone, encoder, translator, adapter."""
    about: str = runtime(default="")

    def estimate(self, plan: Plan) -> Estimate:
        return Estimate()


@dataclass(frozen=True, eq=False)
class HubModelStep(ModelStep):
    """From a commit on the hub, or from its copy in the hub's local cache."""

    source: HubModel
    trial: Trial = runtime(default=no_trial)
    """Of the files, before they are published, and before the run begins where they are in the cache."""

    @property
    def config(self) -> Mapping[str, Any]:
        return {"hub_id": self.source.hub_id, "revision": self.source.revision}

    @property
    def hub(self) -> HubModel:
        return self.source

    def check(self) -> None:
        if snapshot := _here(self.source.hub_id, self.source.revision, self.source.weights):
            self._look(snapshot)

    def _look(self, snapshot: Path) -> None:
        again = f"remove {snapshot.parents[1]} and run again, and it is fetched anew"
        if self.source.config == CONFIG:
            directory.check(snapshot, self._what, PYTORCH in self.source.weights, again)
        self.trial(snapshot, self._what, again)

    @property
    def _what(self) -> str:
        return f"{self.source.where} at {self.source.revision}"

    def run(self, work: Workspace) -> None:
        hub_id, revision = self.source.hub_id, self.source.revision
        check_available([self.source])  # a download would try again and again
        log.info("fetching     %s", self._what)
        try:
            snapshots = (_snapshot(hub_id, revision, pattern) for pattern in self.source.weights)
            snapshot = next(filter(None, snapshots), None)
        except Exception as error:  # the client has a class for each reason, its HTTP library others
            raise explain(self.source, error) from error
        if snapshot is None:
            raise Unavailable(self.source, Cause.missing, self.source.missing_reason())
        self._look(snapshot)
        _link(work.dir / "model", snapshot)
        write_json(work.dir / "source.json", {"hub_id": hub_id, "revision": revision})


def hub_step(
    group: str,
    hub_id: str,
    revision: str,
    weights: tuple[str, ...],
    instead: str,
    trial: Trial = no_trial,
    about: str = "",
) -> Step:
    """`HubModelStep` of what a config group names.

    Args:
        weights: patterns of files, the best first; the first that the repository has is fetched.
        instead: what the user can do without the hub.
        about: what tables call the model; none: the repository's name.
    """
    source = HubModel(group, hub_id, revision, instead, weights)
    return HubModelStep(source, name=group, about=about or Path(hub_id).name, trial=trial)


@dataclass(frozen=True, eq=False)
class DirectoryStep(ModelStep):
    """A link to a directory on disk. Another file in it makes another key."""

    directory: Path
    trial: Trial = runtime(default=no_trial)
    """Of the files, before the run begins."""

    @cached_property
    def config(self) -> Mapping[str, Any]:
        # Hashing gigabytes on every start is too slow; size and time of change betray new weights.
        weights = sorted(file for pattern in (SAFETENSORS, PYTORCH) for file in self.directory.glob(pattern))
        listing = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in weights]
        others = sorted(file for pattern in FILES for file in self.directory.glob(pattern) if file.is_file())
        digests = {file.name: sha256(file.read_bytes()).hexdigest() for file in others}
        return {"weights": listing, "files": digests}

    @property
    def path(self) -> Path:
        return self.directory

    def check(self) -> None:
        self.trial(self.directory, f"{self.name}.path={self.directory}", COPY_AGAIN)

    def run(self, work: Workspace) -> None:
        _link(work.dir / "model", self.directory)
        write_json(work.dir / "source.json", {"path": str(self.directory)})


@dataclass(frozen=True, eq=False)
class PackagedModel(ModelStep):
    """What `convert` makes of an asset's one file of a pattern."""

    asset: str
    pattern: str
    convert: Callable[[Path, Path], None]

    @property
    def config(self) -> Mapping[str, Any]:
        return {"asset": self.asset, "dtype": "bfloat16"}

    @cached_property
    def inputs(self) -> Mapping[str, Step]:
        return {"asset": AssetStep(self.asset)}

    def estimate(self, plan: Plan) -> Estimate:
        parameters = (plan.shape if self.name == "backbone" else plan.config.encoder).parameters
        return Estimate(work=Work(seconds=CONVERSION_S_PER_PARAMETER * parameters))

    def run(self, work: Workspace) -> None:
        shutil.rmtree(work.dir / "model", ignore_errors=True)
        [packed] = work.inputs["asset"].rglob(self.pattern)
        log.info("converting   %s", packed.name)
        self.convert(packed, work.dir / "model")
        source = {"asset": self.asset, "packages": packages(self.asset), "licence": asset(self.asset).licence}
        write_json(work.dir / "source.json", source)


@cache
def available(
    hub_id: str, revision: str, weights: tuple[str, ...] = (SAFETENSORS, PYTORCH), answer_s: float = CHOICE_S
) -> bool:
    """Whether the weights of a commit are in the hub's local cache, or the hub answers for it within `answer_s`.

    Downloads nothing, never raises, and asks the network once a process and not with HF_HUB_OFFLINE.
    """
    from huggingface_hub import HfApi, is_offline_mode

    if _here(hub_id, revision, weights):
        return True
    if is_offline_mode():
        return False
    answers: list[str] = []

    def ask() -> None:
        try:
            answers.append(HfApi().model_info(hub_id, revision=revision, timeout=answer_s).id)
        except Exception:  # whatever it is, a download would meet it too
            return

    # A thread, for the timeout of the request leaves out the look-up of the hub's address.
    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(answer_s)
    return bool(answers)


def has_weights(directory: Path, pattern: str) -> bool:
    """Whether weights match the pattern there, with all the parts that their index names."""
    suffix = pattern.rpartition("*")[2]
    try:
        for index in directory.glob(f"*{suffix}.index.json"):
            parts(index, str(directory), suffix)
    except InputError:
        return False
    return any(directory.glob(pattern))


def check_link(model_dir: Path) -> None:
    """Raises `InputError` when the files behind a step's `model` are gone."""
    if model_dir.is_symlink() and not model_dir.exists():
        raise InputError(
            f"{model_dir} points to {model_dir.readlink()}, which is gone; remove {model_dir.parent} and run again"
        )


def local(path: str) -> Path:
    """A path as the user wrote it, made absolute."""
    return Path(os.path.expanduser(path)).absolute()  # Path's own raises for a user that there is not


def _here(hub_id: str, revision: str, weights: tuple[str, ...]) -> Path | None:
    """The commit's files in the hub's local cache; none where it is not there, or without its weights."""
    from huggingface_hub import snapshot_download

    try:
        snapshot = Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except Exception:  # the hub's client has a class for each reason
        return None
    return snapshot if any(has_weights(snapshot, pattern) for pattern in weights) else None


def _snapshot(hub_id: str, revision: str, weights: str) -> Path | None:
    """The commit's files in the hub's local cache, downloaded where they are missing; none without such weights."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # without a network it would tell of each of six attempts
    try:
        # `*/*` leaves out the copies that some repositories keep in other formats.
        options = {"allow_patterns": [weights, *FILES], "ignore_patterns": ["*/*"]}
        with writing(Path(HF_HUB_CACHE)):
            snapshot = Path(snapshot_download(hub_id, revision=revision, **options))
    finally:
        logging.set_verbosity(verbosity)
    return snapshot if has_weights(snapshot, weights) else None


def _link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target.resolve(), target_is_directory=True)
