# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A variable that was changed: the server was begun on port 3001, and converge moved it and the edge to 3000."""

from __future__ import annotations

import typing as t

from conftest import Server


def test_another_port_moved_the_server(host: t.Any, server: Server) -> None:
    assert host.run("curl -sf http://127.0.0.1:3001/console/api/ping").rc != 0
    assert host.check_output("curl -sf http://127.0.0.1:3000/console/api/ping") == '{"result":"pong"}'
    assert server.request("GET", "/console/api/setup").json()["step"] == "finished"
