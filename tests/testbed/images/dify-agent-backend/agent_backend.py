# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-in of Dify's agent backend: starts only with a proper server secret, and asks for the run API's token."""

from __future__ import annotations

import base64
import hmac
import os
import re
import sys

from standin import App, HttpError, Request, Response, json_response, serve

SECRET = "DIFY_AGENT_SERVER_SECRET_KEY"
SECRET_BYTES = 32

application = App()


@application.route("GET", "/openapi.json")
def description(request: Request) -> Response:
    info = {"title": "Dify Agent Run Server (stand-in)", "version": os.environ["STANDIN_VERSION"]}
    return json_response(200, {"openapi": "3.1.0", "info": info, "paths": {}})


@application.route("GET", "/runs/<run_id>")
def run_status(request: Request, run_id: str) -> Response:
    given = request.header("Authorization").removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode(), os.environ.get("DIFY_AGENT_API_TOKEN", "").encode()):
        raise HttpError(401)
    raise HttpError(404, message=f"run {run_id} not found")


def secret_complaint(value: str) -> str:
    """Why the real server refuses this secret, or an empty string."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", value) or len(value) % 4 == 1:
        return f"{SECRET} must be valid unpadded base64url text"
    if len(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))) != SECRET_BYTES:
        return f"{SECRET} must decode to exactly {SECRET_BYTES} decoded bytes"
    return ""


if __name__ == "__main__":
    if complaint := secret_complaint(os.environ.get(SECRET, "")):
        sys.exit(f"ValueError: {complaint}")
    serve("agent_backend:application", 5050)
