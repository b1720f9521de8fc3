# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server installed by hand: taken over as it is, then freed of a public secret, then moved to a newer release."""

from __future__ import annotations

import typing as t

import pytest
from conftest import DOCKER_PATH, Server, run_playbook, run_site

NEWER = "1.16.1"
SECRETS = (
    *("SECRET_KEY", "DB_PASSWORD", "REDIS_PASSWORD", "CELERY_BROKER_URL", "SANDBOX_API_KEY", "CODE_EXECUTION_API_KEY"),
    *("PLUGIN_DAEMON_KEY", "PLUGIN_DIFY_INNER_API_KEY", "WEAVIATE_API_KEY"),
)


def settings(host: t.Any, file: str = ".env") -> dict[str, str]:
    lines = host.check_output(f"cat {DOCKER_PATH}/{file}").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def sign_in(server: Server, password: str, version: str) -> dict[str, str]:
    return Server(**{**vars(server), "version": version}).sign_in(password)


def test_what_the_server_used_is_kept(host: t.Any) -> None:
    example, present = settings(host, ".env.example"), settings(host)
    for key in SECRETS:
        assert example[key], key
        assert present[key] == example[key], key
    assert present["LOG_LEVEL"] == "DEBUG"
    assert host.file(f"{DOCKER_PATH}/.env").mode == 0o600


def test_public_secrets_are_reported_with_the_remedy() -> None:
    run = run_site({})
    assert (run.failed, run.changed) == (False, 0), run.message
    used, _between, unused = run.output.partition("Public, too, but of services that do not run here")
    assert "Still the public default" in used
    assert "selfhost.dify.rotate_secrets -e secret=" in used
    made_of_others = {"CELERY_BROKER_URL", "CODE_EXECUTION_API_KEY"}
    named = used.partition("Still the public default")[2]
    assert {secret for secret in SECRETS if secret not in named} == made_of_others
    assert "QDRANT_API_KEY" in unused.partition(".")[0]


def test_the_owner_signs_in_over_https(server: Server, password: str) -> None:
    assert server.sign_in(password)


@pytest.mark.parametrize("port", [5003, 3000])
def test_former_ports_are_closed(port: int, host: t.Any) -> None:
    listeners = host.check_output(f"ss -Hltn '( sport = :{port} )'").split()
    assert f"127.0.0.1:{port}" in listeners
    assert f"0.0.0.0:{port}" not in listeners


def test_another_project_name_is_refused() -> None:
    run = run_site({"dify_project_name": "dify"})
    assert (run.failed, run.changed) == (True, 0)
    assert 'runs as Compose project docker, but dify_project_name is "dify"' in run.message


def test_a_public_secret_is_replaced(host: t.Any, server: Server, password: str) -> None:
    before = settings(host)
    run = run_playbook("rotate_secrets", {"secret": "DB_PASSWORD"})
    assert not run.failed, run.message
    after = settings(host)
    assert {key for key in before if before[key] != after[key]} == {"DB_PASSWORD"}
    assert server.sign_in(password)


def test_it_moves_to_a_newer_release(host: t.Any, server: Server, password: str) -> None:
    before = settings(host)
    refused = run_site({"dify_version": NEWER})
    assert (refused.failed, refused.changed) == (True, 0)
    assert "set dify_upgrade=true" in refused.message
    run = run_site({"dify_version": NEWER, "dify_upgrade": True})
    assert not run.failed, run.message
    after = settings(host)
    assert {key: after[key] for key in SECRETS} == {key: before[key] for key in SECRETS}
    assert after["LOG_LEVEL"] == "DEBUG"
    assert sign_in(server, password, NEWER)
    assert run_site({"dify_version": NEWER}).changed == 0


def test_it_does_not_go_back() -> None:
    run = run_site({"dify_upgrade": True})
    assert (run.failed, run.changed) == (True, 0)
    assert "its database cannot go back" in run.message
