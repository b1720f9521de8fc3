# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small WSGI toolkit shared by the testbed's Python stand-ins: routes, requests, JSON answers."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookies import SimpleCookie
from typing import Any, NoReturn
from urllib.parse import parse_qs

Headers = list[tuple[str, str]]


@dataclass
class Response:
    status: int
    body: bytes | Iterable[bytes] = b""
    headers: Headers = field(default_factory=list)


def json_response(status: int, data: Any, headers: Iterable[tuple[str, str]] = ()) -> Response:
    body = json.dumps(data, separators=(",", ":")).encode()
    return Response(status, body, [("Content-Type", "application/json"), *headers])


def html_response(status: int, html: str) -> Response:
    return Response(status, html.encode(), [("Content-Type", "text/html; charset=utf-8")])


class HttpError(Exception):
    """Ends a request with a status; `App.error_response` gives it the shape the real service has."""

    def __init__(self, status: int, code: str = "", message: str = "", **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code or HTTPStatus(status).phrase.lower().replace(" ", "_")
        self.message = message or HTTPStatus(status).phrase
        self.details = details


class Request:
    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.method: str = environ["REQUEST_METHOD"]
        self.path: str = environ.get("PATH_INFO") or "/"
        self.query = {key: values[-1] for key, values in parse_qs(environ.get("QUERY_STRING", "")).items()}

    def header(self, name: str) -> str:
        """Value of a request header, or an empty string."""
        key = name.upper().replace("-", "_")
        return str(self.environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}", ""))

    @property
    def cookies(self) -> dict[str, str]:
        return {name: morsel.value for name, morsel in SimpleCookie(self.header("Cookie")).items()}

    def body(self) -> bytes:
        return bytes(self.environ["wsgi.input"].read())

    def json(self) -> Any:
        """The body's JSON; raises ValueError when it is none."""
        return json.loads(self.body())


Handler = Callable[..., Response]


class App:
    """Routes by method and path; `<name>` in a path matches one segment and becomes an argument."""

    def __init__(self) -> None:
        self.routes: list[tuple[str, re.Pattern[str], Handler]] = []

    def route(self, method: str, path: str) -> Callable[[Handler], Handler]:
        pattern = re.compile(re.sub(r"<(\w+)>", r"(?P<\1>[^/]+)", path))

        def register(handler: Handler) -> Handler:
            self.routes.append((method, pattern, handler))
            return handler

        return register

    def handle(self, request: Request) -> Response:
        known_path = False
        for method, pattern, handler in self.routes:
            match = pattern.fullmatch(request.path)
            if match:
                known_path = True
                if method == request.method:
                    return handler(request, **match.groupdict())
        raise HttpError(405 if known_path else 404)

    def error_response(self, request: Request, error: HttpError) -> Response:
        return json_response(error.status, {"code": error.code, "message": error.message, "status": error.status})

    def respond(self, request: Request) -> Response:
        try:
            return self.handle(request)
        except HttpError as error:
            return self.error_response(request, error)

    def __call__(self, environ: dict[str, Any], start_response: Callable[[str, Headers], object]) -> Iterable[bytes]:
        response = self.respond(Request(environ))
        headers = list(response.headers)
        if isinstance(response.body, bytes):
            headers.append(("Content-Length", str(len(response.body))))
        start_response(f"{response.status} {HTTPStatus(response.status).phrase}", headers)
        return [response.body] if isinstance(response.body, bytes) else response.body


def log(message: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), message, file=sys.stderr, flush=True)


def serve(application: str, port: int | str, threads: int = 16) -> NoReturn:
    """Become gunicorn serving `module:name` on the port, from the current directory."""
    os.execvp("gunicorn", ["gunicorn", f"--bind=0.0.0.0:{port}", f"--threads={threads}", application])
