"""Wheels and npm packages, pinned by version and SHA-256, and downloaded with pip and npm.

The tools obey the user's configuration: mirrors, proxies, and for pip PIP_NO_INDEX and PIP_FIND_LINKS, with which a
folder of wheels replaces the index.
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
    """A file of a registry."""

    name: str
    version: str
    sha256: str

    tool: ClassVar[str]
    suffix: ClassVar[str]

    @abstractmethod
    def command(self, folder: Path) -> list[str]:
        """The command that downloads the file into `folder`."""

    @abstractmethod
    def members(self, path: Path) -> Iterator[tuple[str, IO[bytes]]]:
        """(path inside the package, content) of each regular file."""


@dataclass(frozen=True)
class Wheel(Package):
    """Args: platform: of a wheel with compiled code, whose data are used on every machine."""

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
    """A tarball of the npm registry, with its files in `package/`."""

    tool = "npm"
    suffix = ".tgz"

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    def command(self, folder: Path) -> list[str]:
        options = ("--ignore-scripts", "--loglevel=error", "--pack-destination", str(folder))
        if not (npm := shutil.which("npm")):
            raise InputError(f"npm, which downloads {self}, is missing: install npm")
        return [npm, "pack", *options, str(self)]

    def members(self, path: Path) -> Iterator[tuple[str, IO[bytes]]]:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and (content := archive.extractfile(member)):
                    with content:
                        yield member.name.removeprefix("./"), content


def download(package: Package, into: Path, instead: str) -> Path:
    """The file, in its own folder under `into`. A complete one is not downloaded again.

    Raises:
        InputError: the tool is missing or fails, or the file is not the pinned one; ends in `instead`.
    """
    folder = into / package.name.replace("/", "_")
    found = list(folder.glob(f"*{package.suffix}"))
    if not found or sha256_of(found[0]) != package.sha256:  # an interrupted copy
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            command = package.command(folder)
        except InputError as error:
            raise InputError(f"{error}, or {instead}") from None
        log.info("downloading  %s", package)
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
        found = list(folder.glob(f"*{package.suffix}"))
        if done.returncode or not found:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            codes = [line for line in lines if line.startswith(("npm error code", "npm ERR! code"))]
            reason = (codes or lines or [f"exit status {done.returncode}"])[-1]  # npm's last line only names a log file
            raise InputError(f"{package.tool} could not download {package} ({reason}): {instead}")
    digest = sha256_of(found[0])
    if digest != package.sha256:
        raise InputError(
            f"the {package.suffix} of {package} has SHA-256 {digest}, expected {package.sha256}: {instead}"
        )
    return found[0]


def _has_pip() -> bool:
    # Not `find_spec`: setuptools takes that for a build by pip and removes its distutils for the rest of the process,
    # in which torch then cannot compile.
    return any(True for _ in distributions(name="pip"))


def _pip() -> list[str]:
    """The command that runs pip. uv's environments lack pip, but any pip downloads the same wheels."""
    if _has_pip():
        return [sys.executable, "-m", "pip"]
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "--quiet", "pip"]
    if pip := shutil.which("pip"):
        return [pip]
    raise InputError("pip, which downloads packaged assets, is missing: run `python -m ensurepip`")
