"""Models in Hugging Face format that somebody else made: a pinned commit on the hub, or a directory on disk.

Either becomes a step that publishes `model`, a link to the files, and `source.json`.
"""

import re
from fnmatch import fnmatch
from functools import cache
from hashlib import sha256
from logging import getLogger
from pathlib import Path
from threading import Thread

from sdx.artifacts import Step, Workspace, read_json, write_json
from sdx.config import InputError
from sdx.disk import writing

log = getLogger("sdx")

SAFETENSORS = "*.safetensors"
PYTORCH = "pytorch_model*.bin"
FILES = ("*.json", "*.model", "*.spm", "*.jinja", "*.txt")
"""What belongs to a model beside its weights: configuration, tokenizer, template."""
LFS_POINTER = b"version https://git-lfs"
ANSWER_S = 3.0
"""How long a choice waits for the hub."""
PATIENCE_S = 20.0
"""How long a download waits for its first answer."""


def check_source(group: str, hub_id: str | None, revision: str | None, path: str | None) -> None:
    """Looks at a config group's source without loading it or asking the network.

    Raises:
        InputError: a commit that is not pinned or belongs to nothing, a directory that holds no model.
    """
    if hub_id and not re.fullmatch("[0-9a-f]{40}", revision or ""):
        raise InputError(
            f"{group}.revision={revision} does not pin {group}.hub_id={hub_id}; "
            "give the 40 hexadecimal digits of a commit"
        )
    if revision and not hub_id:
        raise InputError(f"{group}.revision={revision} belongs to {group}.hub_id; leave it out")
    if path:
        _check_directory(f"{group}.path={path}", local(path))


def check_one_source(group: str, asset: str | None, hub_id: str | None, path: str | None, own: str) -> None:
    """Raises InputError unless exactly one of them is given; `own` says how to take a model of one's own."""
    given = {key: value for key, value in (("asset", asset), ("hub_id", hub_id), ("path", path)) if value}
    if len(given) != 1:
        got = ", ".join(f"{group}.{key}={value}" for key, value in given.items()) or "none of them"
        raise InputError(f"give exactly one of {group}.asset, {group}.hub_id and {group}.path, not {got}; {own}")


def _check_directory(where: str, path: Path) -> None:
    if not (path / "config.json").is_file():
        raise InputError(f"{where} has no config.json; give a directory in Hugging Face format")
    try:
        read_json(path / "config.json")
    except ValueError:
        raise InputError(f"{where}: config.json cannot be read; copy it again") from None
    for file in (*path.glob(SAFETENSORS), *path.glob(PYTORCH)):
        with file.open("rb") as content:
            if content.read(len(LFS_POINTER)) == LFS_POINTER:
                raise InputError(f"{where}: {file.name} is a pointer of Git LFS; fetch the weights with git lfs pull")


def hub_step(group: str, hub_id: str, revision: str, weights: tuple[str, ...], instead: str) -> Step:
    """Publishes `model/` and `source.json` from a commit on the hub, or from its copy in the hub's local cache.

    Args:
        group: the config group that names the model; also the step's name.
        weights: patterns of files, the best first; the first that the repository has is fetched.
        instead: what the user can do without the hub.
    """

    def run(work: Workspace) -> None:
        what = f"{group}.hub_id={hub_id} at {revision}"
        remedy = f"for a gated model accept its licence and set HF_TOKEN; {instead}"
        if not available(hub_id, revision, weights, PATIENCE_S):  # a download would try again and again
            raise InputError(f"{what} is not in the local cache and the hub does not answer for it; {remedy}")
        log.info("fetching     %s", what)
        try:
            found = (_snapshot(hub_id, revision, pattern) for pattern in weights)
            snapshot = next(filter(None, found), None)
        except Exception as error:  # no network, no such repository, no right to it: the remedy is the same
            reason = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
            raise InputError(f"{what} cannot be fetched ({reason}); {remedy}") from error
        if snapshot is None:
            wanted = " or ".join(pattern.rpartition(".")[2] for pattern in weights)
            raise InputError(f"{what} has no {wanted}, or not all of it; convert it and set {group}.path")
        _link(work.dir / "model", snapshot)
        write_json(work.dir / "source.json", {"hub_id": hub_id, "revision": revision})

    return Step(group, run, {"hub_id": hub_id, "revision": revision})


def directory_step(group: str, path: Path) -> Step:
    """Publishes `model/`, a link to a directory, and `source.json`. Another file in it makes another key."""

    def run(work: Workspace) -> None:
        _link(work.dir / "model", path)
        write_json(work.dir / "source.json", {"path": str(path)})

    # Hashing gigabytes on every start is too slow; size and time of change betray new weights.
    weights = sorted(file for pattern in (SAFETENSORS, PYTORCH) for file in path.glob(pattern))
    listing = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in weights]
    others = sorted(file for pattern in FILES for file in path.glob(pattern) if file.is_file())
    digests = {file.name: sha256(file.read_bytes()).hexdigest() for file in others}
    return Step(group, run, {"weights": listing, "files": digests})


@cache
def available(
    hub_id: str, revision: str, weights: tuple[str, ...] = (SAFETENSORS, PYTORCH), answer_s: float = ANSWER_S
) -> bool:
    """Whether the weights of a commit are in the hub's local cache, or the hub answers for it within `answer_s`.

    Downloads nothing, never raises, and asks the network once a process and not with HF_HUB_OFFLINE.
    """
    from huggingface_hub import HfApi, is_offline_mode, snapshot_download

    try:
        snapshot = Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
        if any(has_weights(snapshot, pattern) for pattern in weights):
            return True
    except Exception:  # it is not there; the hub's client has a class for each reason
        pass
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
    indexed = (name for index in directory.glob("*.index.json") for name in read_json(index)["weight_map"].values())
    parts = {name for name in indexed if fnmatch(name, pattern)}
    return any(directory.glob(pattern)) and all((directory / name).exists() for name in parts)


def check_link(model_dir: Path) -> None:
    """Raises `InputError` when the files behind a step's `model` are gone."""
    if model_dir.is_symlink() and not model_dir.exists():
        raise InputError(
            f"{model_dir} points to {model_dir.readlink()}, which is gone; remove {model_dir.parent} and run again"
        )


def local(path: str) -> Path:
    """A path as the user wrote it, made absolute."""
    return Path(path).expanduser().absolute()


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
