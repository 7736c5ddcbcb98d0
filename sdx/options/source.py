"""Where something comes from outside: the keys that say so, and what can be wrong with them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from sdx import InputError
from sdx.options import fields

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
COMMIT = re.compile("[0-9a-f]{40}")
READABLE = re.compile(r"\.((jsonl|json|csv|tsv)(\.gz)?|parquet)$", re.IGNORECASE)
ENDINGS = ".jsonl, .json, .csv, .tsv (each also with .gz) or .parquet"
MOSES = ".{language}"
"""End of the path of a Moses corpus, two files of plain lines."""
MANIFEST = "manifest.json"
"""A file of that name would pass for the one of the step that copies it."""


@dataclass(kw_only=True)
class Source:
    """A `path`, a commit of `hub_id`, or, in what has the key, a packaged `asset`."""

    path: str | None = fields.path()
    """On this machine: of a model its directory in Hugging Face format, of data a file."""
    hub_id: str | None = None
    """Repository on the Hugging Face hub; needs `revision`."""
    revision: str | None = None
    """Commit of the repository, 40 hexadecimal digits: a branch name would let it change."""

    def check(self, group: str, instead: str = "", required: bool = True) -> None:
        """Raises InputError for what cannot be a source. Reads nothing and asks no network.

        Args:
            group: what its keys begin with, such as `corpus` or `task.xnli.test`.
            instead: what else the user can do.
            required: whether there has to be one.
        """
        if self.path == "":
            raise InputError(f"{group}.path= is empty; give the path of a file, as in {group}.path=/data/mine.jsonl")
        keys = [key for key in ("asset", "hub_id", "path") if hasattr(self, key)]
        check_exclusive({f"{group}.{key}": getattr(self, key) for key in keys}, instead, required)
        if self.hub_id:
            if not HUB_ID.fullmatch(self.hub_id):
                raise InputError(
                    f"{group}.hub_id={self.hub_id} names no repository; give its owner and its name, as owner/name"
                )
            if not COMMIT.fullmatch(self.revision or ""):
                raise InputError(
                    f"{group}.revision={self.revision} does not pin {group}.hub_id={self.hub_id}; "
                    f"give the 40 hexadecimal digits of a commit as {group}.revision=..."
                )
        elif self.revision and not self.path:
            raise InputError(
                f"{group}.revision={self.revision} belongs to {group}.hub_id; give that too or leave it out"
            )


@dataclass(kw_only=True)
class FileSource(Source):
    """Data in a file."""

    file: str | None = None
    """Path inside the dataset of `hub_id`, with the placeholders of `path`."""

    def where(self, group: str, placeholders: Mapping[str, str]) -> str:
        """The source in messages: `corpus.path=/x/y.jsonl` or `corpus.hub_id=someone/set corpus.file=y.jsonl`.

        Args:
            placeholders: name -> what `{name}` stands for; a name that is not given stays.
        """
        name = fill(self.path or self.file or "", placeholders)
        return f"{group}.path={name}" if self.path else f"{group}.hub_id={self.hub_id} {group}.file={name}"

    def check(self, group: str, instead: str = "", required: bool = True) -> None:
        super().check(group, instead, required)
        if getattr(self, "asset", None):
            return
        if self.hub_id and not self.file:
            raise InputError(
                f"{group}.hub_id={self.hub_id} needs {group}.file=..., the path of the data inside the dataset"
            )
        if self.file and not (self.hub_id or self.path):
            raise InputError(f"{group}.file={self.file} belongs to {group}.hub_id; give that too or leave it out")
        if name := self.path or self.file:
            where = self.where(group, {})
            if not READABLE.search(name) and not (group == "parallel" and name.endswith(MOSES)):
                raise InputError(f"{where} cannot be read by its ending; convert it to {ENDINGS}")
            if PurePath(name).name == MANIFEST:
                raise InputError(f"{where}: a file may not be named {MANIFEST}; rename it")


def fill(template: str, placeholders: Mapping[str, str]) -> str:
    """`template` with the values of the placeholders that are given."""
    return re.sub(r"\{(\w+)\}", lambda found: placeholders.get(found[1], found[0]), template)


def check_exclusive(values: Mapping[str, Any], instead: str = "", required: bool = False) -> None:
    """Raises InputError unless one of these keys, or at most one, has a value; `instead` is what else to do."""
    given = [key for key, value in values.items() if value]
    if len(given) > 1 or (required and not given):
        *first, last = values
        got = " and ".join(f"{key}={values[key]}" for key in given) or "none of them"
        drop = f"drop one, as in {given[0]}=null; " if given else ""
        number = "exactly" if required else "at most"
        error = f"give {number} one of {', '.join(first)} and {last}, not {got}; {drop}{instead}"
        raise InputError(error.removesuffix("; "))
