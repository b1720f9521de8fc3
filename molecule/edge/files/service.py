# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small service on loopback that says what reached it: method, path, headers, size of the body, and the peer.

Besides: `/events` streams, `/socket.io/` echoes over a WebSocket, `/received` tells how much of a body has arrived, and
`/console/api/init` answers as an owned or unowned server does, which a PUT to `/owner` decides.
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
            return self.events()
        if path == "/socket.io/":
            return self.socket()
        body = self.read()
        if path == "/owner":
            STATE["owner"] = body == b"yes"
        if path == "/console/api/init" and self.command == "POST":
            return self.reply({}, 403 if STATE["owner"] else 401)
        if path == "/received":
            return self.reply({"received": STATE["received"]})
        framing = {"X-Frame-Options": "DENY"} if path == "/own-rule" else {}
        seen = {"method": self.command, "path": self.path, "headers": self.headers.items(), "received": len(body)}
        self.reply({**seen, "peer": self.client_address[0]}, 200, framing)

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
        """Where the connection was upgraded: gives back what it gets, byte by byte as it came, without looking at frames."""
        self.close_connection = True
        key = self.headers.get("Sec-WebSocket-Key")
        if self.headers.get("Upgrade") != "websocket" or key is None:
            return self.reply({"headers": self.headers.items()}, 400)
        accept = base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept.decode())
        self.end_headers()
        while data := self.rfile.read1():
            self.wfile.write(data)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def log_message(self, *_: object) -> None:
        """Nothing: the edge logs requests."""


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
