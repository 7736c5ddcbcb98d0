"""Steps that publish a given model in Hugging Face format: packaged, from a commit on the hub, or from a directory."""

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
from sdx.models.directory import CONFIG
from sdx.models.weights import COPY_AGAIN, parts
from sdx.offline.assets import AssetStep, asset, packages
from sdx.options.source import Source
from sdx.process.disk import writing
from sdx.sources.hub import ANSWER_S, Cause, Unavailable, check_available, explain, why_unavailable
from sdx.store.estimate import Estimate, Plan, Work
from sdx.store.files import write_json
from sdx.store.hub_source import HubSource
from sdx.store.step import Step, Workspace, runtime

log = getLogger("sdx")

SAFETENSORS = "*.safetensors"
PYTORCH = "pytorch_model*.bin"
FILES = ("*.json", "*.model", "*.spm", "*.jinja", "*.txt")
"""A model's files beside its weights: configuration, tokenizer, template."""
LoadCheck = Callable[[Path, str, str], object]
"""Raises InputError if transformers cannot load a directory. Takes the directory, its name in messages, and what to do
about a broken file."""


@dataclass(frozen=True)
class HubModel(HubSource):
    """A model."""

    weights: tuple[str, ...] = ()
    """Patterns of weight files, in order of preference."""
    config: str = CONFIG

    repo_type = "model"

    def cached(self) -> bool:
        return self.cached_snapshot() is not None

    def cached_snapshot(self) -> Path | None:
        """The commit's files in the hub's local cache; None unless weights are among them."""
        from huggingface_hub import snapshot_download

        try:
            snapshot = Path(snapshot_download(self.hub_id, revision=self.revision, local_files_only=True))
        except Exception:  # the hub's client has a class for each reason
            return None
        return snapshot if any(has_weights(snapshot, pattern) for pattern in self.weights) else None

    def fetched_snapshot(self) -> Path | None:
        """The commit's files in the hub's local cache, downloaded if they are missing; None if it has no weights."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.constants import HF_HUB_CACHE
        from huggingface_hub.utils import logging

        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # without a network it would report each of six attempts
        try:
            for pattern in self.weights:
                # `*/*` leaves out the copies that some repositories keep in other formats.
                options = {"allow_patterns": [pattern, *FILES], "ignore_patterns": ["*/*"]}
                with writing(Path(HF_HUB_CACHE)):
                    snapshot = Path(snapshot_download(self.hub_id, revision=self.revision, **options))
                if has_weights(snapshot, pattern):
                    return snapshot
        finally:
            logging.set_verbosity(verbosity)
        return None

    def probe(self) -> None:
        from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url

        # A gated repository still lists its files.
        get_hf_file_metadata(hf_hub_url(self.hub_id, self.config, revision=self.revision), timeout=ANSWER_S)
        files = HfApi().model_info(self.hub_id, revision=self.revision, timeout=ANSWER_S).siblings or []
        if not any(fnmatch(file.rfilename, pattern) for file in files for pattern in self.weights):
            raise Unavailable(self, Cause.missing, self.missing_reason())

    def missing_reason(self) -> str:
        wanted = " or ".join(pattern.rpartition(".")[2] for pattern in self.weights)
        return f"has no {self.config} or no {wanted}, or not all of it; convert it and set {self.group}.path"


def check_model(
    source: Source,
    group: str,
    own: str = "",
    *,
    packaged: Collection[str] = (),
    tokenizers: Sequence[str] = (),
    pickles: bool = True,
) -> None:
    """Raises InputError if `source` cannot be a model. Loads nothing and asks no network.

    Args:
        own: how to take a model of one's own.
        packaged: names of the known assets.
        tokenizers: patterns of files, one of which a directory must have.
        pickles: whether weights in PyTorch's own format are accepted.
    """
    source.check(group, own)
    asset = getattr(source, "asset", None)
    if asset and asset not in packaged:
        raise InputError(f"{group}.asset={asset} is unknown; choose one of {', '.join(packaged)}; {own}")
    if source.path:
        model_dir, what = local(source.path), f"{group}.path={source.path}"
        directory.check(model_dir, what, pickles)
        if tokenizers and not any(any(model_dir.glob(pattern)) for pattern in tokenizers):
            raise InputError(f"{what} has no tokenizer ({', '.join(tokenizers)}); save it there (save_pretrained)")


@dataclass(frozen=True, eq=False)
class ModelStep(Step):
    """Publishes `model/`, a directory in Hugging Face format, and `source.json`, where the model is from."""

    brings_model = True

    _: KW_ONLY  # for type checkers, who do not see it in `runtime`
    name: str = runtime()  # type: ignore[misc]
    """The role of the model: backbone, encoder, translator, adapter."""
    about: str = runtime(default="")
    trial: LoadCheck = runtime(default=lambda *_: None)
    """Of files that are not made here: before they are published, and before the run begins if they are there."""

    def estimate(self, plan: Plan) -> Estimate:
        return Estimate()


@dataclass(frozen=True, eq=False)
class HubModelStep(ModelStep):
    """From a commit on the hub, or from its copy in the hub's local cache."""

    source: HubModel

    @property
    def config(self) -> Mapping[str, Any]:
        return {"hub_id": self.source.hub_id, "revision": self.source.revision}

    @property
    def hub(self) -> HubModel:
        return self.source

    def check(self) -> None:
        if snapshot := self.source.cached_snapshot():
            self._check_files(snapshot)

    def _check_files(self, snapshot: Path) -> None:
        again = f"remove {snapshot.parents[1]} and run again, and it is fetched anew"
        if self.source.config == CONFIG:
            directory.check(snapshot, self._what, PYTORCH in self.source.weights, again)
        self.trial(snapshot, self._what, again)

    @property
    def _what(self) -> str:
        return f"{self.source.where} at {self.source.revision}"

    def run(self, work: Workspace) -> None:
        check_available([self.source])  # a download would retry for long
        log.info("fetching     %s", self._what)
        try:
            snapshot = self.source.fetched_snapshot()
        except Exception as error:  # the client has a class for each reason, its HTTP library others
            raise explain(self.source, error) from error
        if snapshot is None:
            raise Unavailable(self.source, Cause.missing, self.source.missing_reason())
        self._check_files(snapshot)
        _link(work.dir / "model", snapshot)
        write_json(work.dir / "source.json", dict(self.config))


@dataclass(frozen=True, eq=False)
class DirectoryStep(ModelStep):
    """Links to a directory on disk. The key changes with the files in it."""

    directory: Path

    @cached_property
    def config(self) -> Mapping[str, Any]:
        # Size and time of change identify weights, because hashing gigabytes at every start is too slow.
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
    """What `convert` makes of the one file of an asset that matches a pattern."""

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
        return Estimate(work=Work(seconds=18 / 135e6 * parameters))  # on two cores; measured

    def run(self, work: Workspace) -> None:
        shutil.rmtree(work.dir / "model", ignore_errors=True)
        [packed] = work.inputs["asset"].rglob(self.pattern)
        log.info("converting   %s", packed.name)
        self.convert(packed, work.dir / "model")
        source = {"asset": self.asset, "packages": packages(self.asset), "licence": asset(self.asset).licence}
        write_json(work.dir / "source.json", source)


def model_step(
    source: Source,
    group: str,
    weights: tuple[str, ...],
    instead: str,
    trial: LoadCheck = lambda *_: None,
    about: str = "",
    packed: tuple[str, Callable[[Path, Path], None]] = ("", lambda *_: None),
) -> Step:
    """The step that publishes the model of a config group.

    Args:
        weights: patterns of files in order of preference; the first that a repository has is fetched.
        instead: what the user can do without the hub.
        about: what tables call the model; if empty, the name of its repository.
        packed: the pattern of an asset's file, and its conversion to a directory.
    """
    if asset := getattr(source, "asset", None):
        return PackagedModel(asset, *packed, name=group, about=about)
    if source.hub_id:
        assert source.revision
        hub = HubModel(group, source.hub_id, source.revision, instead, weights)
        return HubModelStep(hub, name=group, about=about or Path(source.hub_id).name, trial=trial)
    assert source.path
    return DirectoryStep(local(source.path), name=group, about=about, trial=trial)


@cache
def available(hub_id: str, revision: str, answer_s: float = 3.0) -> bool:
    """Whether a model is in the hub's local cache, or the hub has it and says so within `answer_s`.

    Downloads nothing, never raises, and asks the network once a process and not with HF_HUB_OFFLINE.
    """
    from huggingface_hub import is_offline_mode

    source = HubModel("", hub_id, revision, "", (SAFETENSORS, PYTORCH))
    if (cached := source.cached()) or is_offline_mode():
        return cached
    answers: list[object] = []
    # In a thread, because the timeout of a request does not limit the look-up of the hub's address.
    thread = Thread(target=lambda: answers.append(why_unavailable(source)), daemon=True)
    thread.start()
    thread.join(answer_s)
    return answers == [None]


def has_weights(directory: Path, pattern: str) -> bool:
    """Whether weights match the pattern, with all the parts that their index names."""
    suffix = pattern.rpartition("*")[2]
    try:
        for index in directory.glob(f"*{suffix}.index.json"):
            parts(index, str(directory), suffix)
    except InputError:
        return False
    return any(directory.glob(pattern))


def local(path: str) -> Path:
    """A path as the user wrote it, made absolute."""
    return Path(os.path.expanduser(path)).absolute()  # Path's own raises for an unknown user


def _link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target.resolve(), target_is_directory=True)
