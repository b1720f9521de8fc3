# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each role did its own work and needed none of the others."""

from __future__ import annotations

import json
import typing as t

from conftest import Server


def test_docker_was_configured(host: t.Any) -> None:
    assert json.loads(host.file("/etc/docker/daemon.json").content_string)["live-restore"] is True


def test_dify_is_claimed_on_its_own_port(host: t.Any) -> None:
    setup = json.loads(host.check_output("curl -sf http://127.0.0.1:3100/console/api/setup"))
    assert setup["step"] == "finished"
    assert host.check_output("docker compose ls --format json").count('"dify-alone"') == 1


def test_the_edge_serves_the_other_service(server: Server) -> None:
    answer = server.request("GET", "/page.txt")
    assert (answer.status, answer.body) == (200, b"a foreign service")
