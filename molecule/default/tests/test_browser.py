# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server as its owner sees it: a browser that trusts the scenario's authority signs in and stays signed in."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

from conftest import Server

BROWSER = Path(__file__).with_name("browser.py").read_text(encoding="utf-8")


def test_the_owner_signs_in_and_stays_signed_in(server: Server, password: str, neighbour: t.Callable[..., str]) -> None:
    told = {"domain": server.domain, "roots": server.roots(), "email": server.email, "password": password}
    seen = json.loads(neighbour("python3", "-c", BROWSER, image="browser", given=json.dumps(told)))
    assert seen["before"]["status"] == 401
    assert seen["signed in"] == {"status": 200, "email": server.email}
    assert seen["reloaded"] == {"status": 200, "email": server.email}
    assert seen["path"].startswith("/apps")
    tokens = {name: secure for name, secure in seen["cookies"].items() if name.endswith("_token")}
    assert tokens == {f"__Host-{name}_token": True for name in ("access", "refresh", "csrf")}
    assert seen["complaints"] == []
