# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API's side of HTTP: two shapes of errors, and headers on every answer."""

from __future__ import annotations

import os
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from standin import App, HttpError, Request, Response, json_response, log

from dify_api.release import Release

# Paths that moved to the framework with the newer shape of errors in 1.12.0.
TYPED_PATHS = tuple(f"/console/api/{name}" for name in ("init", "ping", "setup", "version"))
TYPED_ERRORS = {
    401: "authentication_error",
    403: "authorization_error",
    404: "resource_not_found",
    405: "method_not_allowed",
    422: "validation_error",
    500: "internal_server_error",
}


class ApiApp(App):
    """Answers as this release does; the given errors of the database and of Redis become its status 500."""

    def __init__(self, release: Release, outages: tuple[type[Exception], ...] = ()) -> None:
        super().__init__()
        self.release = release
        self.outages = outages

    def is_typed(self, request: Request) -> bool:
        return self.release.typed_console_api and request.path in TYPED_PATHS

    def reply(
        self, request: Request, data: Any, status: int = 200, headers: Iterable[tuple[str, str]] = ()
    ) -> Response:
        """JSON as this path of this release writes it."""
        response = json_response(status, data, headers)
        if not self.is_typed(request) and isinstance(response.body, bytes):
            response.body = response.body.replace(b"/", b"\\/") + b"\n"
        return response

    def error_response(self, request: Request, error: HttpError) -> Response:
        if self.is_typed(request):
            message = error.message if error.status in (422, 500) else HTTPStatus(error.status).phrase
            body = {"type": TYPED_ERRORS.get(error.status, "error"), "message": message, "status": error.status}
            return self.reply(request, {"error": body | error.details}, error.status)
        body = {"code": error.code, "message": error.message, **error.details, "status": error.status}
        headers = [("WWW-Authenticate", 'Bearer realm="api"')] if error.status == 401 else []
        return self.reply(request, body, error.status, headers)

    def respond(self, request: Request) -> Response:
        try:
            response = super().respond(request)
        except self.outages as error:
            log(f"{request.method} {request.path}: {error}")
            message = str(error) if self.is_typed(request) else ""
            response = self.error_response(request, HttpError(500, "unknown", message))
        response.headers += [("X-Version", self.release.version), ("X-Env", os.environ.get("DEPLOY_ENV", "PRODUCTION"))]
        return response


def json_object(request: Request) -> dict[str, Any]:
    """The body's JSON object; anything else is empty, so that the fields it lacks are complained about."""
    try:
        data = request.json()
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
