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


def test_dify_keeps_its_accounts_in_the_database_it_was_told(host: t.Any) -> None:
    query = "docker compose --project-directory /srv/shared exec -T database psql -U dify -Atc"
    assert host.check_output(f"{query} 'SELECT email FROM accounts' dify").strip() == "owner@example.com"
    databases = host.check_output(f"{query} 'SELECT datname FROM pg_database' dify").split()
    assert {"dify", "dify_plugin"} <= {*databases}


def test_dify_runs_no_database_and_no_redis_of_its_own(host: t.Any) -> None:
    services = host.check_output("docker compose --project-name dify-alone ps --all --format '{{.Service}}'").split()
    assert {"api", "worker", "plugin_daemon"} <= {*services}
    assert {"db_postgres", "redis"} & {*services} == set()


def test_the_worker_uses_the_redis_it_was_told(host: t.Any) -> None:
    within = "docker compose --project-directory /srv/shared exec -T -e REDISCLI_AUTH=somebody-elses/p@ss redis"
    assert "worker" in host.check_output(f"{within} redis-cli --tls --insecure -n 1 --scan")


def test_the_edge_serves_the_other_service(server: Server) -> None:
    answer = server.request("GET", "/page.txt")
    assert (answer.status, answer.body) == (200, b"a foreign service")
