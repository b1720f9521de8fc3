# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stand-in of Dify's console API with the state of one server: unclaimed until setup, gated by INIT_PASSWORD.

Usage: console_api.py FILE. Writes its port to FILE and serves on loopback until POST /stop.
"""

from __future__ import annotations

import base64
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

INIT_PASSWORD = "Gate12345"
OWNER: dict = {}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        step = "finished" if OWNER else "not_started"
        if self.path == "/console/api/setup":
            self.reply(200, {"step": step, "setup_at": "2026-11-22T02:37:34" if OWNER else None})
        else:
            self.reply(200, {"status": step})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        if self.path == "/stop":
            self.reply(200, {})
            threading.Thread(target=self.server.shutdown).start()
        elif self.path == "/console/api/login":
            password = base64.b64decode(body["password"]).decode()
            good = (body["email"], password) == (OWNER["email"], OWNER["password"])
            self.reply(
                200 if good else 401, {"result": "success"} if good else {"message": "Invalid email or password."}
            )
        elif OWNER:
            self.reply(403, {"error": {"type": "authorization_error", "message": "Forbidden", "status": 403}})
        elif self.path == "/console/api/init":
            good = body["password"] == INIT_PASSWORD
            self.reply(
                201 if good else 401, {"result": "success"}, cookie="session=open; HttpOnly; Path=/" if good else ""
            )
        elif self.headers.get("Cookie") != "session=open":
            self.reply(401, {"error": {"type": "authentication_error", "message": "Unauthorized", "status": 401}})
        else:
            OWNER.update(body)
            self.reply(201, {"result": "success"})

    def reply(self, status: int, body: dict, cookie: str = "") -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("X-Version", "1.16.1")
        self.send_header("Content-Length", str(len(data)))
        if cookie:
            self.send_header("Set-Cookie", cookie)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
Path(sys.argv[1]).write_text(str(server.server_port))
server.serve_forever()
