# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drill runs can neither be reached, nor reach out, nor touch what runs beside it."""

from __future__ import annotations

import doctest
import importlib
import json
import sys
import typing as t
from pathlib import Path

import pytest

FILES = Path(__file__).resolve().parents[3] / "roles/backup/files"
sys.path.insert(0, str(FILES))

from dify_backup.basics import Problem  # noqa: E402
from dify_backup.drill import isolated, refuse_outside  # noqa: E402
from dify_backup.project import plan  # noqa: E402

ROOT = "/srv/drill"
DOCKER = "/opt/dify/docker"


def bind(source: str, target: str, **more: t.Any) -> dict[str, t.Any]:
    return {"type": "bind", "source": source, "target": target, **more}


def project() -> dict[str, t.Any]:
    return {
        "name": "dify",
        "services": {
            "api": {
                "image": "dify-api:1",
                "depends_on": {"agent": {"condition": "service_started"}, "seekdb": {"required": False}},
                "environment": {"MAIL_TYPE": "smtp", "PASSWORD": "with $$ in it"},
                "extra_hosts": ["host.docker.internal=host-gateway"],
                "networks": {"default": None, "ssrf_proxy_network": None},
                "restart": "always",
                "volumes": [
                    bind(f"{DOCKER}/volumes/app/storage", "/app/api/storage"),
                    bind("/etc/ssl/certs/own.pem", "/own.pem", read_only=True),
                    bind(f"{DOCKER}/nginx/saved.conf", "/saved.conf", read_only=True),
                ],
            },
            "nginx": {
                "image": "nginx:1",
                "container_name": "dify-nginx",
                "network_mode": "host",
                "ports": [{"target": 80, "published": "3000", "host_ip": "127.0.0.1"}],
                "volumes": [bind("/var/run/docker.sock", "/var/run/docker.sock")],
            },
            "agent": {
                "image": "agent:1",
                "privileged": True,
                "volumes": [
                    {"type": "volume", "source": "home", "target": "/home"},
                    {"type": "volume", "source": "queue", "target": "/queue"},
                    {"type": "volume", "target": "/anonymous"},
                    {"type": "tmpfs", "target": "/tmp"},
                ],
            },
        },
        "networks": {"default": {"name": "dify_default"}, "ssrf_proxy_network": {"name": "dify_ssrf"}},
        "volumes": {"home": {"name": "dify_home"}, "queue": {"name": "dify_queue"}},
        "secrets": {"token": {"file": f"{DOCKER}/token"}},
    }


@pytest.fixture
def apart() -> dict[str, t.Any]:
    volumes = {"dify_home": "/var/lib/docker/volumes/dify_home/_data"}
    return isolated(project(), ROOT, volumes, lambda path: path == "/etc/ssl/certs/own.pem")


def test_nothing_is_published_and_nothing_gets_out(apart: dict[str, t.Any]) -> None:
    assert apart["networks"] == {"default": {"name": "selfhost-dify-drill", "internal": True}}
    for service in apart["services"].values():
        assert service["networks"] == {"default": None}
        assert not {"ports", "network_mode", "extra_hosts", "container_name", "privileged"} & set(service)


def test_nothing_of_the_server_is_written_to(apart: dict[str, t.Any]) -> None:
    written = [
        volume["source"]
        for service in apart["services"].values()
        for volume in service["volumes"]
        if volume["type"] != "tmpfs" and not volume.get("read_only")
    ]
    assert len(written) == 5
    assert all(source.startswith(ROOT + "/") for source in written)
    assert "volumes" not in apart
    assert apart["secrets"] == {"token": {"file": f"{ROOT}{DOCKER}/token"}}


def test_what_was_saved_is_used_where_it_was_restored(apart: dict[str, t.Any]) -> None:
    sources = [volume.get("source") for name in ("api", "agent") for volume in apart["services"][name]["volumes"]]
    assert f"{ROOT}{DOCKER}/volumes/app/storage" in sources
    assert f"{ROOT}/var/lib/docker/volumes/dify_home/_data" in sources
    assert f"{ROOT}{DOCKER}/nginx/saved.conf" in sources
    assert "/etc/ssl/certs/own.pem" in sources


def test_nothing_waits_for_a_service_that_is_not_in_use(apart: dict[str, t.Any]) -> None:
    assert apart["services"]["api"]["depends_on"] == {"agent": {"condition": "service_started"}}


def test_settings_stay_as_they_are(apart: dict[str, t.Any]) -> None:
    assert apart["services"]["api"]["environment"] == project()["services"]["api"]["environment"]


def test_the_project_it_was_made_from_is_not_changed() -> None:
    config = project()
    isolated(config, ROOT, {}, lambda path: False)
    assert json.dumps(config) == json.dumps(project())


@pytest.mark.parametrize(
    ("told", "refused"),
    [
        ({}, ""),
        ({"DB_HOST": "db.example.com"}, "The database dify at db.example.com is no service of the project"),
        ({"REDIS_HOST": "10.0.0.7"}, "The Redis at 10.0.0.7 is no service of the project"),
    ],
)
def test_a_server_that_keeps_something_elsewhere_is_refused(told: dict[str, str], refused: str) -> None:
    environment = {"DB_DATABASE": "dify", "DB_HOST": "db_postgres", "REDIS_HOST": "redis", **told}
    services = {"api": {"image": "dify-api:1", "environment": environment}, "db_postgres": {}, "redis": {}}
    found = plan({"name": "dify", "services": services}, DOCKER, {})
    if not refused:
        refuse_outside(found, services)
        return
    with pytest.raises(Problem) as problem:
        refuse_outside(found, services)
    assert refused in str(problem.value)


@pytest.mark.parametrize("name", sorted(path.stem for path in (FILES / "dify_backup").glob("[a-z]*.py")))
def test_examples_in_docstrings_are_true(name: str) -> None:
    assert doctest.testmod(importlib.import_module("dify_backup." + name)).failed == 0
