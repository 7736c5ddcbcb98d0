"""A server that wandb talks to, on this machine: it keeps the history, or answers nothing."""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

KEY = "0123456789abcdef0123456789abcdef01234567"


class Server(ThreadingHTTPServer):
    """Runs by id, each a list of the rows that arrived. `silence` makes it accept and never answer."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs: dict[str, list[dict[str, Any]]] = {}
        self.began: dict[str, dict[str, Any]] = {}
        """What was said of a run at its beginning."""
        self.silent = False
        self.closed = Event()

    @property
    def environment(self) -> dict[str, str]:
        return {"WANDB_BASE_URL": f"http://127.0.0.1:{self.server_address[1]}", "WANDB_API_KEY": KEY}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.reply({})

    def do_PUT(self) -> None:
        self.body()
        self.reply({})

    def do_POST(self) -> None:
        body = self.body()
        if self.server.silent:
            self.server.closed.wait()
        elif self.path.endswith("/graphql"):
            self.reply(self.graphql(json.loads(body)))
        elif "file_stream" in self.path:
            self.stream(self.path.split("/")[-2], json.loads(body))
        else:
            self.reply({})

    def body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def reply(self, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def graphql(self, query: dict[str, Any]) -> dict[str, Any]:
        name, given = query.get("operationName"), query.get("variables") or {}
        entity = {"id": "e", "name": "e"}
        project = {"id": "p", "name": "p", "entity": entity}
        if name == "RunResumeStatus":
            rows = self.server.runs.get(given["name"])
            return {"data": {"model": {**project, "bucket": None if rows is None else resumed(given["name"], rows)}}}
        if name == "UpsertBucket":
            run = given["name"]
            self.server.runs.setdefault(run, [])
            self.server.began.setdefault(run, given)
            bucket = {"id": "x", "name": run, "displayName": run, "description": "", "config": "{}", "sweepName": None}
            bucket |= {"project": project, "historyLineCount": len(self.server.runs[run])}
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
        if name == "Viewer" or "viewer" in query["query"]:
            viewer = {"id": "u", "entity": "e", "username": "e", "email": "e", "flags": "{}", "teams": {"edges": []}}
            return {"data": {"viewer": viewer, "serverInfo": {}}}
        return {"data": None, "errors": [{"message": f"{name} is not known here"}]}

    def stream(self, run: str, sent: dict[str, Any]) -> None:
        if history := (sent.get("files") or {}).get("wandb-history.jsonl"):
            rows = self.server.runs.setdefault(run, [])
            rows[history["offset"] :] = [json.loads(line) for line in history["content"]]
        self.reply({"exitcode": None, "limits": {}})


def resumed(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    last = {"_step": rows[-1]["_step"]} if rows else {}
    return {
        "id": "x",
        "name": name,
        "displayName": name,
        "summaryMetrics": json.dumps(last),
        "historyLineCount": len(rows),
        "eventsLineCount": 0,
        "logLineCount": 0,
        "historyTail": json.dumps([json.dumps(last)] if rows else []),
        "eventsTail": "[]",
        "config": "{}",
        "tags": [],
        "notes": "",
        "wandbConfig": '{"t": 1}',
    }


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.closed.set()
        server.shutdown()
        server.server_close()
