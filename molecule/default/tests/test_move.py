# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A variable that was changed: the server moves to another port, and the edge follows."""

from __future__ import annotations

import typing as t

from conftest import Server, run_site


def test_another_port_moves_the_server(host: t.Any, server: Server) -> None:
    run = run_site({"dify_http_port": 3001})
    assert run.code == 0, run.message
    assert host.run("curl -sf http://127.0.0.1:3000/console/api/ping").rc != 0
    assert host.check_output("curl -sf http://127.0.0.1:3001/console/api/ping") == '{"result":"pong"}'
    assert server.request("GET", "/console/api/setup").json()["step"] == "finished"
    assert run_site({"dify_http_port": 3001}).changed == 0
