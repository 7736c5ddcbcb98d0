"""A mock of the hub on this machine, as much of it as the real client asks for: no test reaches the real one."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

REVISION = "0123456789abcdef" * 2 + "01234567"
RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([0-9a-f]{40})/(.+)")
API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)/(revision|tree)/([0-9a-f]{40})/?(.*)")


@dataclass
class Repository:
    """At its one commit."""

    files: dict[str, bytes]
    gated: bool = False
    status: int = 0
    """What is answered for each file, if not what is there."""


@dataclass
class MockHub:
    repositories: dict[str, Repository] = field(default_factory=dict)
    """By type and name: `datasets/some/set`, `models/someone/model`."""
    requests: list[str] = field(default_factory=list)
    address: str = ""

    def fetched(self) -> list[str]:
        return [request for request in self.requests if request.startswith("GET") and "/resolve/" in request]


class Handler(BaseHTTPRequestHandler):
    hub: ClassVar[MockHub]

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        if found := RESOLVE.fullmatch(path):
            self._file("datasets" if found[1] else "models", *found.groups()[1:])
        elif found := API.fullmatch(path):
            self._api(*found.groups())
        else:
            self._send(404)

    def _repository(self, kind: str, name: str, revision: str) -> Repository | None:
        repository = self.hub.repositories.get(f"{kind}/{name}")
        if repository is None:
            self._send(401, {"X-Error-Code": "RepoNotFound"})
        elif revision != REVISION:
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
            return None
        return repository

    def _file(self, kind: str, name: str, revision: str, file: str) -> None:
        if not (repository := self._repository(kind, name, revision)):
            return
        if repository.status:
            self._send(repository.status)
        elif repository.gated:
            self._send(401, {"X-Error-Code": "GatedRepo"})
        elif file not in repository.files:
            self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": REVISION})
        else:
            self._send(200, {"X-Repo-Commit": REVISION, "ETag": f'"{hash(file)}"'}, repository.files[file])

    def _api(self, kind: str, name: str, what: str, revision: str, folder: str) -> None:
        if not (repository := self._repository(kind, name, revision)):
            return
        if what == "revision":
            siblings = [{"rfilename": file} for file in repository.files]
            self._json({"id": name, "sha": REVISION, "gated": repository.gated and "auto", "siblings": siblings})
            return
        inside = f"{folder}/" if folder else ""
        below = sorted({file[len(inside) :].split("/")[0] for file in repository.files if file.startswith(inside)})
        entries = [
            {"type": "file", "path": inside + one, "size": 1, "oid": "0"}
            if inside + one in repository.files
            else {"type": "directory", "path": inside + one, "oid": "0"}
            for one in below
        ]
        self._json(entries) if below else self._send(404, {"X-Error-Code": "EntryNotFound"})

    def _json(self, value: Any) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _send(self, status: int, headers: dict[str, str] | None = None, content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *args: object) -> None: ...


def point_at(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path) -> None:
    """Makes the hub's client ask that address."""
    from huggingface_hub import constants

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def serving(hub: MockHub) -> Iterator[MockHub]:
    """While it answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
