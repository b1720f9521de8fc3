# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-in of Dify's plugin daemon: its database, its storage, its health, and the port for remote debugging."""

from __future__ import annotations

import os
import socketserver
import sys
import threading
from pathlib import Path

import psycopg
from psycopg import sql
from standin import App, HttpError, Request, Response, json_response, serve

STORAGE = Path(os.environ.get("PLUGIN_STORAGE_LOCAL_ROOT", "/app/storage"))
DIRECTORIES = ("assets", "cwd", "plugin", "plugin_packages")

application = App()


@application.route("GET", "/health/check")
def health(request: Request) -> Response:
    version = os.environ["STANDIN_VERSION"]
    pool = {"active": 0, "idle": 0, "total": 0}
    answer = {"status": "ok", "pool_status": pool, "version": version, "build_time": "", "platform": "local"}
    return json_response(200, answer)


@application.route("GET", "/e/<hook>")
def endpoint(request: Request, hook: str) -> Response:
    return Response(301, b"", [("Location", f"/e/{hook}/")])


@application.route("GET", "/e/<hook>/testbed/headers")
def headers(request: Request, hook: str) -> Response:
    """What a plugin's endpoint is told of its own address and its client. Only the stand-in answers this."""
    names = ("Host", "Dify-Hook-Url", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Port")
    return json_response(200, {name: request.header(name) for name in names})


@application.route("GET", "/plugin/<tenant>/management/list")
def plugins(request: Request, tenant: str) -> Response:
    if request.header("X-Api-Key") != os.environ.get("SERVER_KEY", ""):
        raise HttpError(401)
    return json_response(200, {"code": 0, "message": "success", "data": {"list": [], "total": 0}})


def connect(database: str) -> psycopg.Connection:
    return psycopg.connect(
        host=os.environ.get("DB_HOST", "localhost"),
        port=os.environ.get("DB_PORT", "5432"),
        user=os.environ.get("DB_USERNAME", "postgres"),
        password=os.environ.get("DB_PASSWORD", ""),
        dbname=database,
        autocommit=True,
        connect_timeout=5,
    )


def prepare_database(name: str) -> None:
    """Create the daemon's own database beside the API's, and its table."""
    with connect(os.environ.get("DB_DEFAULT_DATABASE", "postgres")) as server:
        if not server.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    with connect(name) as database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS plugins ("
            "id uuid PRIMARY KEY DEFAULT gen_random_uuid(), plugin_unique_identifier text NOT NULL UNIQUE)"
        )


class Debugging(socketserver.StreamRequestHandler):
    """Waits for the key that a developer's plugin sends first, and hangs up: there are no plugins to debug."""

    def handle(self) -> None:
        self.rfile.readline()


def listen_for_debugging() -> None:
    address = ("0.0.0.0", int(os.environ.get("PLUGIN_REMOTE_INSTALLING_PORT", "5003")))
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(address, Debugging) as server:
        server.serve_forever()


if __name__ == "__main__":
    try:
        prepare_database(os.environ.get("DB_DATABASE", "dify_plugin"))
    except psycopg.Error as error:
        sys.exit(f"[PANIC] failed to init dify plugin db: {error}")
    for directory in DIRECTORIES:
        (STORAGE / directory).mkdir(parents=True, exist_ok=True)
    serve("plugin_daemon:application", os.environ.get("SERVER_PORT", "5002"))
else:
    threading.Thread(target=listen_for_debugging, daemon=True).start()
