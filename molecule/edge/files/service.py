# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small service on loopback that says what reached it: method, path, headers, size of the body, and the peer.

Besides: `/events` streams, `/socket.io/` echoes over a WebSocket, `/received` tells how much of the last body arrived.
`/console/api/init` answers as an owned server does after a PUT to `/owner`, and as an unowned one after a POST.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

STATE = {"owner": False, "received": 0}


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        path = urlsplit(self.path).path
        if path == "/events":
            self.events()
        elif path == "/socket.io/" and self.headers.get("Upgrade") == "websocket":
            self.socket()
        else:
            self.describe(path, len(self.read()))

    def describe(self, path: str, received: int) -> None:
        if path == "/owner":
            STATE["owner"] = self.command == "PUT"
        if path == "/received":
            self.reply({"received": STATE["received"]})
        elif path == "/console/api/init" and self.command == "POST":
            self.reply({}, 403 if STATE["owner"] else 401)
        else:
            host, port = self.client_address
            seen = {"method": self.command, "path": self.path, "headers": self.headers.items(), "received": received}
            framing = {"X-Frame-Options": "DENY"} if path == "/own-rule" else {}
            self.reply({**seen, "peer": host, "port": port}, 200, framing)

    def read(self) -> bytes:
        """The body; what of it has arrived is known on the way."""
        pieces = []
        left = int(self.headers.get("Content-Length") or 0)
        if left:
            STATE["received"] = 0
        while left and (piece := self.rfile.read1(left)):
            left -= len(piece)
            STATE["received"] += len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def reply(self, data: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def events(self) -> None:
        """An event at once, then silence for `idle` seconds, then another."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for pause in (0, int(parse_qs(urlsplit(self.path).query)["idle"][0])):
            time.sleep(pause)
            event = b"data: %d\n\n" % pause
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
        self.wfile.write(b"0\r\n\r\n")

    def socket(self) -> None:
        """Takes the upgrade, then gives back what it gets, as it came, without looking at frames."""
        self.close_connection = True
        key = self.headers["Sec-WebSocket-Key"].encode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        accept = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(accept).decode())
        self.end_headers()
        while data := self.rfile.read1():
            self.wfile.write(data)

    do_GET = do_HEAD = do_POST = do_PUT = do_OPTIONS = answer

    def log_message(self, *_: object) -> None:
        """Nothing: the edge logs requests."""


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
