# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-in of Dify's sandbox: runs Python code in a process of an unprivileged user. No isolation: for tests only.

Of JavaScript it knows `console.log` of a sum alone: the stand-ins bring no Node.js.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from standin import App, Request, Response, json_response, serve

CONFIGURATION = Path("/conf/config.yaml")
UNPRIVILEGED = 65537

application = App()


@application.route("GET", "/health")
def health(request: Request) -> Response:
    return json_response(200, "ok")


@application.route("POST", "/v1/sandbox/run")
def run(request: Request) -> Response:
    if request.header("X-Api-Key") != os.environ.get("API_KEY"):
        return Response(401)
    task = request.json()
    if task.get("language") == "nodejs":
        total = re.fullmatch(r"console\.log\((\d+) *\+ *(\d+)\);?", task.get("code", "").strip())
        if total:
            return answer(0, "success", {"error": "", "stdout": f"{int(total[1]) + int(total[2])}\n"})
        return answer(0, "success", {"error": "the stand-in runs no such JavaScript", "stdout": ""})
    if task.get("language") != "python3":
        return answer(-400, "unsupported language", None)
    timeout = float(os.environ.get("WORKER_TIMEOUT", "15"))
    try:
        done = subprocess.run(
            ["python3", "-I", "-c", task.get("code", "")],
            capture_output=True,
            check=False,
            cwd="/",
            group=UNPRIVILEGED,
            extra_groups=[],
            text=True,
            timeout=timeout,
            user=UNPRIVILEGED,
        )
    except subprocess.TimeoutExpired:
        return answer(0, "success", {"error": "error: timeout", "stdout": ""})
    return answer(0, "success", {"error": done.stderr, "stdout": done.stdout})


def answer(code: int, message: str, data: dict[str, str] | None) -> Response:
    return json_response(200, {"code": code, "message": message, "data": data})


if __name__ == "__main__":
    if not CONFIGURATION.is_file():
        sys.exit("panic: open conf/config.yaml: no such file or directory")
    serve("sandbox:application", os.environ.get("SANDBOX_PORT", "8194"))
