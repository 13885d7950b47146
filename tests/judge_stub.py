"""A chat endpoint on this machine whose answers and faults a test defines.

Loaded by the fixture `judge_stub`. Every request is a `Seen`; `JudgeStub.reply` turns it into a reply.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

QUICKLY = {"retry-after-ms": "1"}  # so that tests need not wait for the client's back-off

_STEP = re.compile(r"^(##[0-9a-f]{16}) step (\d+):\n(.*?)\n\1 end of step \2$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Seen:
    """One request. `number`: how many came before it."""

    number: int
    body: dict[str, Any]
    headers: dict[str, str]
    path: str

    @property
    def model(self) -> str:
        return self.body["model"]

    @property
    def prompt(self) -> str:
        (message,) = self.body["messages"]
        return message["content"]

    @property
    def steps(self) -> list[str]:
        """The texts of the steps to be judged."""
        return [text for _, _, text in _STEP.findall(self.prompt)]


@dataclass(frozen=True)
class Reply:
    """`body` None: the connection is closed without an answer."""

    body: bytes | None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def says(text: str | None, tokens: tuple[int, int] | None = (100, 10)) -> Reply:
    """A completion with this text."""
    body: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": text}}]}
    if tokens is not None:
        body["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    return Reply(json.dumps(body).encode(), headers={"content-type": "application/json"})


def votes(*words: str) -> Reply:
    """A valid answer; E is essential, R redundant: votes("E", "R")."""
    names = {"E": "essential", "R": "redundant"}
    return says(json.dumps({str(number): names[word] for number, word in enumerate(words, start=1)}))


def by_text(seen: Seen) -> Reply:
    """Steps that hold the word NEEDED are essential."""
    return votes(*("E" if "NEEDED" in text else "R" for text in seen.steps))


def fails(status: int, message: str = "no", **headers: str) -> Reply:
    body = json.dumps({"error": {"message": message}}).encode()
    return Reply(body, status, {"content-type": "application/json", **QUICKLY, **headers})


class JudgeStub:
    """Answers with `reply`, from as many threads as there are requests; `seen` has the requests in their order."""

    def __init__(self) -> None:
        self.reply: Callable[[Seen], Reply] = by_text
        self.seen: list[Seen] = []
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def hangs(self) -> Reply:
        """No answer until the test is over."""
        self.over.wait(60)
        return Reply(None)

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _record(self, body: bytes, headers: dict[str, str], path: str) -> Seen:
        with self._lock:
            self.seen.append(Seen(len(self.seen), json.loads(body), headers, path))
            return self.seen[-1]

    def _handler(stub) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                reply = stub.reply(stub._record(body, headers, self.path))
                if reply.body is None:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                for name, value in {"content-length": str(len(reply.body)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler
