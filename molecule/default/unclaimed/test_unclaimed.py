# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The edge was put in front of a server that nobody owns yet: nobody from outside can own it."""

from __future__ import annotations

import json
import typing as t

import pytest
from conftest import Server

SETUP = {"email": "intruder@example.com", "name": "Intruder", "password": "intruder1"}


def test_the_server_is_unclaimed_and_on_the_air(host: t.Any, server: Server) -> None:
    setup = json.loads(host.check_output("curl -sf http://127.0.0.1:3001/console/api/setup"))
    assert setup["step"] == "not_started"
    assert server.request("GET", "/console/api/ping").json() == {"result": "pong"}


@pytest.mark.parametrize(
    "path",
    [
        *("/install", "/init", "/console/api/setup", "/console/api/init"),
        *("/console/api/setup?x=1", "/console/api//setup", "/console/api/s%65tup", "/console%2Fapi%2Fsetup"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "OPTIONS"])
def test_nothing_of_the_setup_answers(method: str, path: str, server: Server) -> None:
    answer = server.request(method, path, SETUP if method in ("POST", "PUT") else None)
    assert (answer.status, answer.header("X-Version")) == (403, None)
