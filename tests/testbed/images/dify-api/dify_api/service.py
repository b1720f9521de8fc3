# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The routes outside the console: health, the service API, events, WebSocket, and what only says no."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

from standin import HttpError, Request, Response

from dify_api import websocket
from dify_api.addresses import base_url
from dify_api.web import ApiApp


def add_routes(app: ApiApp) -> None:
    @app.route("GET", "/health")
    def health(request: Request) -> Response:
        body = json.dumps({"pid": os.getpid(), "status": "ok", "version": app.release.version})
        return Response(200, body.encode(), [("Content-Type", "application/json")])

    @app.route("GET", "/v1")
    def redirect(request: Request) -> Response:
        query = request.environ.get("QUERY_STRING")
        location = f"{base_url(request)}/v1/{'?' + query if query else ''}"
        return Response(308, b"", [("Content-Type", "text/html; charset=utf-8"), ("Location", location)])

    @app.route("GET", "/v1/testbed/events")
    def stream(request: Request) -> Response:
        """The testbed's own: `count` server-sent events, one every `interval` seconds."""
        count, interval = int(request.query.get("count", "10")), float(request.query.get("interval", "0.5"))
        headers = [("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache")]
        return Response(200, events(count, interval), headers)

    @app.route("POST", "/v1/chat-messages")
    def chat(request: Request) -> Response:
        raise HttpError(401, "unauthorized", "Access token is invalid")

    @app.route("POST", "/mcp/server/<code>/mcp")
    def mcp(request: Request, code: str) -> Response:
        raise HttpError(404)

    @app.route("GET", "/api/passport")
    def passport(request: Request) -> Response:
        raise HttpError(401, "unauthorized", "X-App-Code header is missing.")

    @app.route("POST", "/inner/api/invoke/encrypt")
    def invoke_encrypt(request: Request) -> Response:
        """What plugins ask the API for: no such page without the plugin daemon's key, and here too little with it."""
        key = os.environ.get("INNER_API_KEY_FOR_PLUGIN", "")
        raise HttpError(400 if key and request.header("X-Inner-Api-Key") == key else 404)

    if app.release.has_socket_io:
        app.route("GET", "/socket.io/")(websocket.serve)


def events(count: int, interval: float) -> Iterator[bytes]:
    for number in range(count):
        if number:
            time.sleep(interval)
        data = json.dumps({"event": "ping", "number": number, "at": round(time.time(), 3)})
        yield f"data: {data}\n\n".encode()
