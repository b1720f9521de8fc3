# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A local HTTP server that replays recorded answers of Dify's console API and remembers what it was asked."""

from __future__ import annotations

import dataclasses
import json
import ssl
import threading
import typing as t
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Reply:
    """What to answer to one method on one path. A status of 0 is no answer at all until the server stops."""

    method: str
    path: str
    status: int
    body: str = ""
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)


@dataclasses.dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: t.Any


def recorded(version: str, note: str, method: str, path: str) -> Reply:
    """Return the recorded answer of that version with that note."""
    for entry in json.loads((HERE / f"console-api-{version}.json").read_text()):
        request, response = entry["request"], entry["response"]
        if (entry["note"], request["method"], request["path"]) == (note, method, f"/console/api/{path}"):
            headers = tuple((name, value) for name, value in response["headers"])
            return Reply(method, request["path"], response["status"], response["body"], headers)
    raise LookupError(f"No answer {note!r} to {method} {path} of {version} is recorded")


class Replay:
    """Serves replies in the order given for each method and path; the last one is given again for ever."""

    def __init__(self, *replies: Reply, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self._queues: dict[tuple[str, str], list[Reply]] = {}
        for reply in replies:
            self._queues.setdefault((reply.method, reply.path), []).append(reply)
        self._stopped = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._server.server_port}"

    def asked_for(self, method: str, path: str) -> list[Asked]:
        return [asked for asked in self.asked if (asked.method, asked.path) == (method, f"/console/api/{path}")]

    def __enter__(self) -> Replay:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        replay = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = json.loads(raw) if raw else None
                replay.asked.append(Asked(self.command, self.path, dict(self.headers.items()), body))
                queue = replay._queues.get((self.command, self.path))
                reply = Reply(self.command, self.path, 599, "not recorded") if not queue else queue[0]
                if queue and len(queue) > 1:
                    del queue[0]
                if reply.status == 0:
                    replay._stopped.wait()
                    return
                self.send_response(reply.status)
                for name, value in reply.headers:
                    self.send_header(name, value)
                data = reply.body.encode()
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = answer

            def log_message(self, *_: object) -> None:
                pass

        return Handler
