# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every finding: what makes it, what it says, and that a healthy server has none."""

from __future__ import annotations

import re
import socket
import typing as t
from pathlib import Path

import pytest
from ansible_collections.selfhost.dify.plugins.module_utils import _instance as instance
from ansible_collections.selfhost.dify.plugins.module_utils import _releases
from ansible_collections.selfhost.dify.plugins.module_utils._connection import Refused
from ansible_collections.selfhost.dify.plugins.module_utils._instance_sources import Container, Project, Service

ROOT = Path(__file__).resolve().parents[4]
PLACE = instance.Place("/opt/dify/docker")
NOW = 1_795_000_000.0
UP = "docker compose --project-directory /opt/dify/docker up --detach"


def container(service: str, **changes: t.Any) -> Container:
    """A container that is well."""
    well = Container(
        service=service,
        name=f"dify-{service}-1",
        id="0",
        image=f"langgenius/dify-{service}:1.16.1",
        image_id="sha256:0",
        state="running",
        health="healthy",
        restarts=0,
        exit_code=0,
        out_of_memory=False,
        error="",
        started=NOW - 86400,
        addresses={"dify_default": "172.18.0.2"},
        environment={},
        ports=[],
        log_path="",
    )
    return well._replace(**changes)


def project(*names: str, one_shot: tuple[str, ...] = (), dropped: dict[str, str] | None = None) -> Project:
    services = {
        name: Service(f"langgenius/dify-{name}:1.16.1", frozenset(), name in one_shot, {}, []) for name in names
    }
    return Project("dify", services, frozenset(names), dropped or {})


def judge(one: Container | None, log: str = "", one_shot: bool = False) -> list[instance.Finding]:
    containers = {one.service: one} if one else {}
    return instance.judge_services(
        project("api", one_shot=("api",) if one_shot else ()), containers, {"api": log}, NOW, PLACE
    )


def ids(findings: t.Iterable[instance.Finding]) -> list[str]:
    return [one.id for one in findings]


@pytest.mark.parametrize(
    ("changes", "found", "seen"),
    [
        ({}, [], ""),
        ({"health": ""}, [], ""),
        ({"restarts": 9, "health": ""}, [], ""),  # long ago
        ({"restarts": 9, "started": NOW - 5}, [], ""),  # and well now
        ({"state": "exited", "exit_code": 137}, ["service_stopped"], "api is exited, exit code 137."),
        (
            {"state": "exited", "exit_code": 137, "out_of_memory": True},
            ["service_stopped"],
            "api is exited, exit code 137. The kernel ended it for want of memory.",
        ),
        ({"state": "created", "error": "port in use"}, ["service_stopped"], "api is created: port in use."),
        ({"state": "paused"}, ["service_stopped"], "api is paused, exit code 0."),
        (
            {"state": "restarting", "restarts": 4, "exit_code": 1},
            ["service_restarting"],
            "api ends and is started again, 4 times so far, last exit code 1.",
        ),
        (
            {"restarts": 4, "started": NOW - 5, "health": ""},
            ["service_restarting"],
            "api ends and is started again, 4 times so far.",
        ),
        ({"health": "unhealthy"}, ["service_unhealthy"], "api runs, but its own health check fails."),
        ({"health": "starting"}, ["service_starting"], "api is starting."),
    ],
)
def test_state(changes: dict[str, t.Any], found: list[str], seen: str) -> None:
    findings = judge(container("api", **changes))
    assert ids(findings) == found
    assert [one.seen for one in findings] == ([seen] if seen else [])


def test_the_log_is_quoted() -> None:
    log = "starting\npsycopg: FATAL: the database system is shut down\n"
    (finding,) = judge(container("api", state="exited", exit_code=1), log)
    assert finding.seen.endswith('Its log ends with: "psycopg: FATAL: the database system is shut down".')
    assert finding.remedy == f"{UP} api"


def test_missing_and_one_shot() -> None:
    (finding,) = judge(None)
    assert (finding.id, finding.service, finding.remedy) == ("service_missing", "api", f"{UP} api")
    assert judge(container("api", state="exited", health=""), one_shot=True) == []
    assert ids(judge(container("api", state="exited", exit_code=1), one_shot=True)) == ["one_shot_failed"]


def test_a_profile_that_got_lost() -> None:
    (finding,) = instance.judge_services(project(dropped={"weaviate": "weaviate"}), {}, {}, NOW, PLACE)
    assert finding.id == "service_dropped"
    assert finding.remedy == (
        f"Add weaviate to COMPOSE_PROFILES in /opt/dify/docker/.env, then run: {UP}; "
        "or undo every edit of that file: ansible-playbook selfhost.dify.site -e dify_env_drift=overwrite"
    )


def test_images() -> None:
    ones = {name: container(name) for name in ("api", "web")}
    assert instance.judge_images(project("api", "web"), ones, PLACE) == []
    ones["web"] = container("web", image="registry.example.com:5000/langgenius/dify-web:1.15.0@sha256:0a")
    findings = instance.judge_images(project("api", "web"), ones, PLACE)
    assert ids(findings) == ["image_outdated", "images_disagree"]
    assert findings[1].seen == "Images of several releases run together: 1.15.0: web; 1.16.1: api."


@pytest.mark.parametrize(
    ("checked_out", "answered", "found"),
    [
        (_releases.RELEASES[-1], _releases.RELEASES[-1], []),
        (_releases.RELEASES[-1], "", []),
        ("main", "main", []),
        ("1.16.1", "1.16.1", ["release_newer"]),
        ("1.16.1", "1.16.0", ["release_differs", "release_newer"]),
        ("1.10.1", "1.10.1", ["release_security", "release_newer"]),
    ],
)
def test_release(checked_out: str, answered: str, found: list[str]) -> None:
    assert ids(instance.judge_release(checked_out, answered)) == found


def test_a_security_release_is_named_with_what_it_repairs() -> None:
    finding = instance.judge_release("1.10.1", "1.10.1")[0]
    assert "1.10.1-fix.1 repairs CVE-2025-55182" in finding.seen
    assert all(release in _releases.RELEASES for release in _releases.SECURITY)
    assert [*_releases.RELEASES] == sorted(_releases.RELEASES, key=_releases.order)
    assert _releases.newer("1.18.0-rc1") == ["1.18.0", "1.19.0"]


@pytest.mark.parametrize(
    ("ping", "page", "well", "found"),
    [
        (200, 200, True, []),
        (200, 307, True, []),
        (502, 200, True, ["proxy_stale"]),
        (0, 200, True, ["proxy_stale"]),
        (502, 200, False, []),  # the API's own finding says it
        (None, None, True, ["proxy_down"]),
        (200, 0, True, ["web_unhealthy"]),
        (200, 502, True, ["web_unhealthy"]),
    ],
)
def test_proxy(ping: int | None, page: int | None, well: bool, found: list[str]) -> None:
    assert ids(instance.judge_proxy(ping, page, well, "http://127.0.0.1:3000", PLACE)) == found


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (200, {"step": "finished", "setup_at": "2026-11-22T02:37:34"}, []),
        (200, {"step": "not_started"}, ["unclaimed"]),
        (500, {"error": {}}, ["setup_broken"]),
        (502, None, ["setup_broken"]),
    ],
)
def test_setup(status: int, body: t.Any, found: list[str]) -> None:
    assert ids(instance.judge_setup(status, body, "http://127.0.0.1:3000", PLACE)) == found


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (200, {"code": 0, "message": "success", "data": {"error": "", "stdout": "2\n"}}, []),
        (200, {"code": -400, "message": "unsupported language", "data": None}, ["sandbox_python"]),
        (
            200,
            {"code": 0, "message": "success", "data": {"error": "no such file: python3", "stdout": ""}},
            ["sandbox_python"],
        ),
        (401, None, ["sandbox_key"]),
        (503, None, ["sandbox_python"]),
    ],
)
def test_sandbox(status: int, body: t.Any, found: list[str]) -> None:
    assert ids(instance.judge_sandbox("python3", status, body, PLACE)) == found
    assert ids(instance.judge_sandbox("nodejs", 200, {"data": None}, PLACE)) == ["sandbox_javascript"]


@pytest.mark.parametrize(
    ("health", "keyed", "found"),
    [(200, 200, []), (500, 500, ["plugin_daemon_unhealthy"]), (200, 401, ["plugin_daemon_key"]), (200, 404, [])],
)
def test_plugin_daemon(health: int, keyed: int, found: list[str]) -> None:
    assert ids(instance.judge_plugin_daemon(health, keyed, PLACE)) == found


def test_what_else_answers() -> None:
    assert instance.judge_api(200, {"status": "ok"}, PLACE) == []
    assert ids(instance.judge_api(200, None, PLACE)) == ids(instance.judge_api(500, {}, PLACE)) == ["api_unhealthy"]
    assert instance.judge_worker(["celery@a"], PLACE) == []
    assert ids(instance.judge_worker([], PLACE)) == ["worker_silent"]
    assert instance.judge_ssrf_proxy(403, PLACE) == []
    assert ids(instance.judge_ssrf_proxy(504, PLACE)) == ["ssrf_proxy_open"]
    assert instance.judge_plugins([]) == []
    assert "langgenius/openai" in instance.judge_plugins(["langgenius/openai"])[0].seen


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "database_unreachable"),
        (socket.timeout("timed out"), "database_unreachable"),
        (Refused('password authentication failed for user "postgres"', "28P01"), "database_refuses_password"),
        (Refused('database "dify" does not exist', "3D000"), "database_missing"),
        (Refused("the database system is starting up", "57P03"), "database_refuses"),
    ],
)
@pytest.mark.parametrize("service", ["db_postgres", ""])
def test_database(error: Exception, found: str, service: str) -> None:
    finding = instance.judge_database(error, "dify", service, PLACE)
    assert finding.id == found
    assert service or "db_postgres" not in finding.remedy


@pytest.mark.parametrize(
    ("current", "found"),
    [(["b"], []), (["a"], ["migrations_behind"]), ([], ["migrations_behind"]), (["f00d"], ["migrations_unknown"])],
)
def test_migrations(current: list[str], found: list[str]) -> None:
    assert ids(instance.judge_migrations(current, {"a", "b"}, {"b"}, PLACE)) == found


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "redis_unreachable"),
        (Refused("WRONGPASS invalid username-password pair", "WRONGPASS"), "redis_refuses_password"),
        (Refused("ERR invalid password", "ERR"), "redis_refuses_password"),  # Redis up to 5
        (Refused("OOM command not allowed when used memory > 'maxmemory'.", "OOM"), "redis_refuses_writes"),
        (Refused("READONLY You can't write against a read only replica.", "READONLY"), "redis_refuses_writes"),
        (Refused("MISCONF Redis is configured to save RDB snapshots", "MISCONF"), "redis_refuses_writes"),
        (Refused("LOADING Redis is loading the dataset in memory", "LOADING"), "redis_refuses"),
    ],
)
def test_redis(error: Exception, found: str) -> None:
    assert instance.judge_redis(error, PLACE).id == found


def test_storage() -> None:
    row = {"service": "api", "path": "/s", "owner": 1001, "group": 1001, "examined": 10, "wrong": 0, "sample": []}
    row |= {"complete": True, "missing": False}
    assert instance.judge_storage(row) == []
    (finding,) = instance.judge_storage({**row, "wrong": 2, "sample": [("a", "0:0"), ("", "0:0")]})
    assert finding.id == "storage_owner"
    assert finding.seen == "2 of the 10 entries examined in /s do not belong to 1001:1001: a (0:0), . (0:0)."
    assert finding.remedy.endswith("chown --recursive 1001:1001 /s")
    assert ids(instance.judge_storage({**row, "complete": False})) == ["storage_unseen"]
    assert ids(instance.judge_storage({**row, "missing": True})) == ["storage_missing"]


@pytest.mark.parametrize(
    ("space", "inodes", "found"),
    [(50, 10, []), (85, 10, ["disk_filling"]), (97, 10, ["disk_full"]), (50, 100, ["disk_full"])],
)
def test_disks(space: int, inodes: int, found: list[str]) -> None:
    disk = {"mount": "/", "used_percent": space, "inodes_percent": inodes, "volumes": ["/opt/dify/docker/volumes"]}
    assert ids(instance.judge_disks([disk])) == found


def test_ports() -> None:
    ports = [("127.0.0.1", "3000", "80"), ("0.0.0.0", "5003", "5003"), ("::", "5003", "5003"), ("::1", "1", "1")]
    one = container("plugin_daemon", ports=ports)
    (finding,) = instance.judge_ports([one], [], PLACE)
    assert (finding.id, finding.service) == ("port_open", "plugin_daemon")
    assert "port 5003" in finding.seen
    assert instance.judge_ports([one], ["plugin_daemon:5003"], PLACE) == []


@pytest.mark.parametrize(
    ("days", "found"), [(60, []), (13.9, ["certificate_expiring"]), (-0.5, ["certificate_expired"])]
)
def test_certificate(days: float, found: list[str]) -> None:
    assert ids(instance.judge_certificate("dify.example.com", NOW + days * 86400, NOW)) == found


@pytest.mark.parametrize(
    ("days", "failed", "found"),
    [
        (1, {}, []),
        (1, {"check": "it was cut short"}, ["backup_failed"]),
        (3, {"backup": "no space left"}, ["backup_failed", "backup_old"]),
        (None, {}, []),
    ],
)
def test_backup(days: int | None, failed: dict[str, str], found: list[str]) -> None:
    age = None if days is None else days * 86400
    assert ids(instance.judge_backup({"age_seconds": age, "failed": failed})) == found


def test_environment_logs_and_clock() -> None:
    assert instance.judge_environment([], [], PLACE) == []
    assert ids(instance.judge_environment(["A"], ["B"], PLACE)) == ["env_drift", "public_secrets"]
    assert instance.judge_logs(0, PLACE) == []
    assert ids(instance.judge_logs(6 * 1024**3, PLACE)) == ["logs_large"]
    assert instance.judge_clock(-3) == []
    assert "86400 seconds behind" in instance.judge_clock(-86400)[0].seen


def test_causes_come_before_what_follows() -> None:
    found = [
        instance.Finding("release_newer", "n", "r"),
        instance.Finding("setup_broken", "b", "r", "api"),
        instance.Finding("env_drift", "d", "r"),
        instance.Finding("service_stopped", "s", "r", "db_postgres"),
    ]
    assert [row["id"] for row in instance.ordered(found)] == [
        "service_stopped",
        "setup_broken",
        "env_drift",
        "release_newer",
    ]


def test_every_finding_is_made_somewhere_and_documented() -> None:
    sources = [ROOT / f"plugins/module_utils/_instance{part}.py" for part in ("", "_probes")]
    made = " ".join(re.sub(r"(?s)\nFINDINGS = \{.*?\n\}", "", path.read_text(encoding="utf-8")) for path in sources)
    # sandbox_ is put together with the language's name
    assert [name for name in instance.FINDINGS if f'"{name}"' not in made and not name.startswith("sandbox_")] == []
    documented = re.findall(
        r"^\| `([a-z_]+)` \| (?:error|warning|info) \|",
        (ROOT / "docs/status.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert sorted(documented) == sorted(instance.FINDINGS)
