# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A variable that was changed: the server moves to another port, and the edge follows; then both move back."""

from __future__ import annotations

import typing as t

from conftest import Server, run_site


def assert_moved(host: t.Any, server: Server, former: int, port: int) -> None:
    assert host.run(f"curl -sf http://127.0.0.1:{former}/console/api/ping").rc != 0
    assert host.check_output(f"curl -sf http://127.0.0.1:{port}/console/api/ping") == '{"result":"pong"}'
    assert server.request("GET", "/console/api/setup").json()["step"] == "finished"


def test_another_port_moves_the_server(host: t.Any, server: Server) -> None:
    run = run_site({"dify_http_port": 3001})
    assert not run.failed, run.message
    assert_moved(host, server, 3000, 3001)
    run = run_site({})
    assert not run.failed, run.message
    assert_moved(host, server, 3001, 3000)
