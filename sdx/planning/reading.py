"""The steps that only read data come first, and run in a plan: a bad file shows before anything is computed."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from sdx.sources.files import FetchedFile, LocalFile
from sdx.sources.hub import HubFile
from sdx.store.estimate import READABLE_BYTES
from sdx.store.step import Step, Workspace
from sdx.store.store import Store


def only_reads(step: Step) -> bool:
    return step.reads and all(map(only_reads, step.inputs.values()))


def first(store: Store, steps: Sequence[Step]) -> list[Step]:
    """Steps still to do that read from outside: data of this machine, then downloaded data, then models."""

    @cache
    def is_downloaded(step: Step) -> bool:
        return not store.cached(step) and (step.downloads or any(map(is_downloaded, step.inputs.values())))

    needed = [step for step in store.needed(steps).values() if not store.cached(step)]
    data = sorted(filter(only_reads, needed), key=is_downloaded)
    return [*data, *(step for step in needed if step.brings_model)]


def check_files(store: Store, steps: Sequence[Step]) -> None:
    """Reads files of this machine and of the hub's cache, and raises InputError, as the run would; keeps nothing."""
    with TemporaryDirectory(prefix="sdx-plan-") as folder:

        @cache
        def made(step: Step) -> Path:
            if store.cached(step):
                return store.path(step)
            path = Path(folder, step.name, step.key)
            path.mkdir(parents=True, exist_ok=True)
            if file := file_of(step):
                (path / file.name).unlink(missing_ok=True)
                (path / file.name).symlink_to(file)
            else:
                step.run(Workspace(path, {name: made(inner) for name, inner in step.inputs.items()}))
            return path

        for step in store.needed(steps).values():
            if step.read_in_plan and not store.cached(step) and _is_here(store, step):
                made(step)


def file_of(step: Step) -> Path | None:
    """The file on this machine that a step publishes."""
    return step.hub.path() if isinstance(step.hub, HubFile) else step.path


def _is_here(store: Store, step: Step) -> bool:
    """Whether a step is made only from files that are on this machine and not too large."""
    if step.inputs:
        return step.read_in_plan and all(_is_here(store, inner) for inner in step.inputs.values())
    file = file_of(step)
    if not isinstance(step, LocalFile | FetchedFile) or not (file or store.cached(step)):
        return False
    return file is None or (file.is_file() and file.stat().st_size <= READABLE_BYTES)
