"""A stand-in for an endpoint with OpenAI's API, which this machine does not have: it answers from the prompt alone.

It answers a prompt as often as it is asked and keeps every request. A fault is what a prompt gets in place of an
answer: faults come in their order, one a request, and after the last one the answer.
"""

import hashlib
import json
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HANGING_S = 30
"""Longer than any test lets the client wait."""
FAULTS = ("429", "500", "503", "hang", "drop", "cut", "garbage", "html", "no choices", "null")


def reply(prompt: str) -> str:
    """The answer to a prompt: one to twelve words of its own."""
    digest = hashlib.sha256(prompt.encode()).digest()
    return " ".join(f"w{number}" for number in digest[: 1 + digest[-1] % 12])


class Endpoint:
    """A server on a free port.

    Args:
        faults: the faults of the n-th new prompt.
        limit: prompts that are answered before all others wait for ever; None: no limit.
    """

    def __init__(
        self,
        faults: Callable[[int], Sequence[str]] = lambda number: (),
        answer: Callable[[str], str] = reply,
        limit: int | None = None,
        key: str = "none",
        model: str = "tiny",
    ) -> None:
        self.answer, self.faults, self.limit, self.key, self.model = answer, faults, limit, key, model
        self.requests: dict[str, list[dict[str, Any]]] = defaultdict(list)
        """Bodies, with the headers and `_s`, the time, by prompt."""
        self.answered: list[str] = []
        self.at_once = self.most_at_once = 0
        self.lock, self.full = threading.Lock(), threading.Event()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # connections are used again

            def do_POST(self) -> None:
                with endpoint.busy():
                    endpoint.serve(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign] # of a client that has gone
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def __enter__(self) -> "Endpoint":
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @contextmanager
    def busy(self) -> Iterator[None]:
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            yield
        finally:
            with self.lock:
                self.at_once -= 1

    def serve(self, call: BaseHTTPRequestHandler) -> None:
        body = json.loads(call.rfile.read(int(call.headers["Content-Length"])))
        chats = call.path.endswith("/chat/completions")
        prompt = body["messages"][-1]["content"] if chats else body["prompt"]
        headers = {name.lower(): value for name, value in call.headers.items()}
        with self.lock:
            number = list(self.requests).index(prompt) if prompt in self.requests else len(self.requests)
            self.requests[prompt].append({**body, "headers": headers, "_s": time.monotonic()})
            left = self.faults(number)[len(self.requests[prompt]) - 1 :]
        if headers["authorization"] != f"Bearer {self.key}":
            return self.send(call, 401, {"error": {"message": "Incorrect API key provided"}})
        if body["model"] != self.model:
            return self.send(call, 404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
        if left:
            return self.fail(call, left[0])
        with self.lock:
            if self.limit is not None and len(self.answered) >= self.limit:
                self.full.set()
            else:
                self.answered.append(prompt)
        if self.full.is_set():
            time.sleep(HANGING_S)
        words = self.answer(prompt).split()
        is_cut, text = len(words) >= body["max_tokens"], " ".join(words[: body["max_tokens"]])
        for stop in body.get("stop") or ():
            text = text.partition(stop)[0]
        written = {"message": {"role": "assistant", "content": text}} if chats else {"text": text}
        choice = {"index": 0, "finish_reason": "length" if is_cut else "stop", **written}
        usage = {"prompt_tokens": 1, "completion_tokens": len(text.split()) + (not is_cut), "total_tokens": 1}
        return self.send(call, 200, {"id": "x", "object": "text_completion", "choices": [choice], "usage": usage})

    def fail(self, call: BaseHTTPRequestHandler, fault: str) -> None:
        if fault == "hang":
            time.sleep(HANGING_S)
        elif fault == "drop":
            call.close_connection = True
            call.connection.shutdown(socket.SHUT_RDWR)
        elif fault == "cut":
            self.send(call, 200, {"id": "x", "choices": []}, missing=9)
        elif fault == "garbage":
            self.send(call, 200, '{"choices": [{"te')
        elif fault == "html":
            self.send(call, 200, "<html>502 Bad Gateway</html>", kind="text/html")
        elif fault == "no choices":
            self.send(call, 200, {"id": "x", "choices": []})
        elif fault == "null":
            choice = {"index": 0, "finish_reason": "stop", "text": None, "message": None}
            self.send(call, 200, {"id": "x", "choices": [choice]})
        else:
            self.send(call, int(fault), {"error": {"message": f"injected {fault}"}}, retry_after="1")

    def send(
        self,
        call: BaseHTTPRequestHandler,
        status: int,
        content: dict[str, Any] | str,
        kind: str = "application/json",
        missing: int = 0,
        retry_after: str = "",
    ) -> None:
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        call.send_response(status)
        call.send_header("Content-Type", kind)
        call.send_header("Content-Length", str(len(data) + missing))
        if retry_after and status == 429:
            call.send_header("Retry-After", retry_after)
        call.end_headers()
        call.wfile.write(data)
        call.close_connection = bool(missing)
