# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-in of Weaviate: readiness, version, API keys, and a file in its data directory. It stores no vectors."""

from __future__ import annotations

import os
from pathlib import Path

from standin import App, HttpError, Request, Response, json_response, serve

application = App()


@application.route("GET", "/v1/.well-known/ready")
@application.route("GET", "/v1/.well-known/live")
def ready(request: Request) -> Response:
    return Response(200)


@application.route("GET", "/v1/meta")
def meta(request: Request) -> Response:
    require_key(request)
    answer = {"hostname": "http://[::]:8080", "modules": {}, "version": os.environ["STANDIN_VERSION"]}
    return json_response(200, answer)


@application.route("GET", "/v1/schema")
def schema(request: Request) -> Response:
    require_key(request)
    return json_response(200, {"classes": []})


def require_key(request: Request) -> None:
    keys = os.environ.get("AUTHENTICATION_APIKEY_ALLOWED_KEYS", "").split(",")
    given = request.header("Authorization").removeprefix("Bearer ")
    anonymous = os.environ.get("AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED", "false").lower() == "true"
    if given and given not in keys:
        raise HttpError(401, message="unauthorized: invalid api key")
    if not given and not anonymous:
        raise HttpError(401, message="anonymous access not enabled. Please authenticate with an API key.")


if __name__ == "__main__":
    data = Path(os.environ.get("PERSISTENCE_DATA_PATH", "/var/lib/weaviate"))
    data.mkdir(parents=True, exist_ok=True)
    (data / "schema.db").touch()
    serve("weaviate:application", 8080)
