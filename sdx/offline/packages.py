"""Files of package registries: wheels and npm packages, downloaded by their own tools as set up.

A package is pinned by version and SHA-256. The tools obey what the user has configured: mirrors, proxies, and for pip
PIP_NO_INDEX and PIP_FIND_LINKS, so that a folder of wheels serves where no index can be reached.
"""

import shutil
import subprocess
import sys
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distributions
from logging import getLogger
from pathlib import Path
from typing import IO, ClassVar
from zipfile import ZipFile

from sdx import InputError
from sdx.process.disk import sha256_of

log = getLogger("sdx")


@dataclass(frozen=True)
class Package(ABC):
    """One file of a registry."""

    name: str
    version: str
    sha256: str

    tool: ClassVar[str]
    suffix: ClassVar[str]

    @abstractmethod
    def command(self, folder: Path) -> list[str]:
        """Downloads the file into `folder`."""

    @abstractmethod
    def members(self, path: Path) -> Iterator[tuple[str, IO[bytes]]]:
        """The regular files of a downloaded package: (path inside it, content)."""


@dataclass(frozen=True)
class Wheel(Package):
    """A wheel, taken with pip.

    Args:
        platform: of a wheel with compiled code; its data serve everywhere.
    """

    platform: str | None = None

    tool = "pip"
    suffix = ".whl"

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"

    def command(self, folder: Path) -> list[str]:
        options = ("--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check")
        platform = ("--platform", self.platform) if self.platform else ()
        return [*_pip(), "download", *options, *platform, "--dest", str(folder), str(self)]

    def members(self, path: Path) -> Iterator[tuple[str, IO[bytes]]]:
        with ZipFile(path) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    with archive.open(member) as content:
                        yield member.filename, content


class NpmPackage(Package):
    """A tarball of the npm registry; its files lie in `package/`."""

    tool = "npm"
    suffix = ".tgz"

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    def command(self, folder: Path) -> list[str]:
        options = ("--ignore-scripts", "--loglevel=error", "--pack-destination", str(folder))
        return [_installed("npm", self), "pack", *options, str(self)]

    def members(self, path: Path) -> Iterator[tuple[str, IO[bytes]]]:
        with tarfile.open(path) as archive:
            yield from _files(archive)


def download(package: Package, into: Path, instead: str) -> Path:
    """The checked package in a folder of its own under `into`; one that is there and whole is not fetched again.

    Raises:
        InputError: the tool is missing or fails, or the file is not the pinned one; ends in `instead`.
    """
    folder = into / package.name.replace("/", "_")
    there = list(folder.glob(f"*{package.suffix}"))
    if not there or sha256_of(there[0]) != package.sha256:  # an interrupted copy
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            command = package.command(folder)
        except InputError as error:
            raise InputError(f"{error}, or {instead}") from None
        log.info("downloading  %s", package)
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
        there = list(folder.glob(f"*{package.suffix}"))
        if done.returncode or not there:
            reason = _reason(done.stderr) or f"exit status {done.returncode}"
            raise InputError(f"{package.tool} could not download {package} ({reason}): {instead}")
    digest = sha256_of(there[0])
    if digest != package.sha256:
        raise InputError(
            f"the {package.suffix} of {package} has SHA-256 {digest}, expected {package.sha256}: {instead}"
        )
    return there[0]


def _files(archive: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes]]]:
    for member in archive:
        if member.isfile() and (content := archive.extractfile(member)):
            with content:
                yield member.name.removeprefix("./"), content


def _reason(stderr: str) -> str:
    """The line of a tool's output that tells what went wrong; npm's last one only names a log file."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("npm error code", "npm ERR! code"))]
    return (told or lines or [""])[-1]


def _installed(tool: str, package: Package) -> str:
    if found := shutil.which(tool):
        return found
    raise InputError(f"{tool}, which {package} is taken with, is missing: install {tool}")


def _has_pip() -> bool:
    """Not by `find_spec`: setuptools takes that for a build by pip and steps back from distutils for the rest of the
    process, in which torch then compiles nothing."""
    return any(True for _ in distributions(name="pip"))


def _pip() -> list[str]:
    """The command that runs pip. uv's environments lack it, but any pip fetches the same pure wheels."""
    if _has_pip():
        return [sys.executable, "-m", "pip"]
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "--quiet", "pip"]
    if pip := shutil.which("pip"):
        return [pip]
    raise InputError("pip, which downloads packaged assets, is missing: run `python -m ensurepip`")
