# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-in of the local sandbox of Dify's agents: healthy, and closed to whoever lacks the token."""

from __future__ import annotations

import os

from standin import App, HttpError, Request, Response, json_response, serve

application = App()


@application.route("GET", "/healthz")
def health(request: Request) -> Response:
    return json_response(200, {"status": "ok"})


@application.route("GET", "/v1/jobs")
def jobs(request: Request) -> Response:
    token = os.environ.get("SHELLCTL_AUTH_TOKEN")
    if token and request.header("Authorization") != f"Bearer {token}":
        raise HttpError(401)
    return json_response(200, {"jobs": []})


if __name__ == "__main__":
    serve("local_sandbox:application", 5004)
