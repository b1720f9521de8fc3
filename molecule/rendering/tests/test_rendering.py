# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Compose makes of each release's files and ours: what would start, with which settings, reachable from where."""

from __future__ import annotations

import json
import re
import typing as t
from dataclasses import dataclass

import pytest
from conftest import Server

FIRST = {
    *("api", "worker", "worker_beat", "web", "nginx", "redis", "db_postgres", "weaviate"),
    *("sandbox", "plugin_daemon", "ssrf_proxy"),
}
STARTED = {
    "1.10.1": FIRST,
    "1.12.1": FIRST | {"init_permissions"},
    "1.14.2": FIRST | {"init_permissions", "api_websocket"},
    "1.16.1": FIRST | {"init_permissions", "api_websocket", "agent_backend", "local_sandbox", "agent_ssrf_proxy"},
}
# The Compose file of the older layout hands every setting to the API. These belong to services elsewhere that nobody
# told Dify to use, and to stores that do not run: their public defaults open nothing.
PLACEHOLDERS = {
    *("ALIYUN_OSS_ACCESS_KEY", "ALIYUN_OSS_SECRET_KEY", "AZURE_BLOB_ACCOUNT_KEY", "BAIDU_OBS_ACCESS_KEY"),
    *("BAIDU_OBS_SECRET_KEY", "HUAWEI_OBS_ACCESS_KEY", "HUAWEI_OBS_SECRET_KEY", "OCI_ACCESS_KEY", "OCI_SECRET_KEY"),
    *("SUPABASE_API_KEY", "TENCENT_COS_SECRET_KEY", "VOLCENGINE_TOS_ACCESS_KEY", "VOLCENGINE_TOS_SECRET_KEY"),
    *("ANALYTICDB_KEY_ID", "ANALYTICDB_KEY_SECRET", "ANALYTICDB_NAMESPACE_PASSWORD", "ANALYTICDB_PASSWORD"),
    *("BAIDU_VECTOR_DB_API_KEY", "ELASTICSEARCH_API_KEY", "HUAWEI_CLOUD_PASSWORD", "LINDORM_PASSWORD"),
    *("MATRIXONE_PASSWORD", "ORACLE_WALLET_PASSWORD", "RESEND_API_KEY", "TABLESTORE_ACCESS_KEY_ID"),
    *("TABLESTORE_ACCESS_KEY_SECRET", "TENCENT_VECTOR_DB_API_KEY", "TIDB_ON_QDRANT_API_KEY", "TIDB_PRIVATE_KEY"),
    *("TIDB_PUBLIC_KEY", "UPSTASH_VECTOR_TOKEN", "VIKINGDB_ACCESS_KEY", "VIKINGDB_SECRET_KEY"),
}
SECRET = re.compile(r"(PASSWORD|PWD|KEYS?|KEY_ID|SECRET|TOKEN|CREDENTIALS)$")


@dataclass(frozen=True)
class Release:
    """A configured release as Compose resolves it."""

    version: str
    started: list[str]
    warnings: str
    # Every service of every profile, and those of them that would start.
    every: dict[str, dict[str, t.Any]]
    # Secrets in the release's own examples.
    public: dict[str, str]

    @property
    def services(self) -> dict[str, dict[str, t.Any]]:
        return {name: self.every[name] for name in self.started}

    def environment(self, service: str) -> dict[str, str]:
        return t.cast("dict[str, str]", self.every[service].get("environment") or {})


@pytest.fixture(scope="module", params=STARTED)
def release(request: pytest.FixtureRequest, host: t.Any) -> Release:
    here = f"cd /srv/{request.param}/dify/docker"
    started = host.run(f"{here} && docker compose config --services")
    assert started.rc == 0, started.stderr
    project = host.check_output(f"{here} && docker compose --profile '*' config --format json")
    # The root file last, as Compose reads it.
    examples = host.check_output(f"{here} && find envs -name '*.env.example' -exec cat {{}} + ; cat .env.example")
    settings = dict(re.findall(r"^(\w+)=(.+)$", examples, re.MULTILINE))
    return Release(
        version=request.param,
        started=started.stdout.split(),
        warnings=started.stderr,
        every=json.loads(project)["services"],
        public={key: value for key, value in settings.items() if SECRET.search(key) and not value.startswith("${")},
    )


def test_the_release_is_checked_out(release: Release, host: t.Any) -> None:
    git = f"git -C /srv/{release.version}/dify"
    assert host.check_output(f"{git} describe --tags --exact-match").strip() == release.version
    assert release.every["api"]["image"] == f"langgenius/dify-api:{release.version}"


def test_compose_resolves_every_setting(release: Release) -> None:
    assert release.warnings == ""


def test_exactly_the_expected_services_would_start(release: Release) -> None:
    assert sorted(release.started) == sorted(STARTED[release.version])


def test_one_database_one_vector_store_and_collaboration_where_the_release_has_it(release: Release) -> None:
    assert {"db_postgres", "db_mysql"} & {*release.started} == {"db_postgres"}
    assert {"db_postgres", "db_mysql", "qdrant", "pgvector", "milvus-standalone"} <= {*release.every}
    assert "weaviate" in release.started
    assert ("api_websocket" in release.started) is (release.version in ("1.14.2", "1.16.1"))


def test_every_published_port_of_every_profile_is_on_loopback(release: Release) -> None:
    ports = {
        f"{name} {port.get('host_ip')}:{port['published']}"
        for name, service in release.every.items()
        for port in service.get("ports", [])
    }
    assert {"nginx 127.0.0.1:3000", "plugin_daemon 127.0.0.1:5003", "kibana 127.0.0.1:5601"} <= ports
    assert {port for port in ports if " 127.0.0.1:" not in port} == set()


def test_every_service_of_every_profile_rotates_its_log(release: Release) -> None:
    rotated = {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}}
    assert {name for name, service in release.every.items() if service.get("logging") != rotated} == set()


def test_no_public_default_secret_is_left_in_what_would_start(release: Release) -> None:
    assert {"DB_PASSWORD", "REDIS_PASSWORD", "SANDBOX_API_KEY", "PLUGIN_DAEMON_KEY"} <= {*release.public}
    same = {
        key
        for name in release.started
        for key, value in release.environment(name).items()
        if release.public.get(key) == value
    }
    assert same == (PLACEHOLDERS if release.version in ("1.10.1", "1.12.1") else set())
    # Under whatever name, in a command, an address or a health check; an image may well be called like a password.
    resolved = json.dumps([{**service, "image": ""} for service in release.services.values()])
    long = {key: value for key, value in release.public.items() if len(value) > 8 and key not in same}
    assert {key for key, value in long.items() if value in resolved} == set()


def test_secrets_that_must_agree_do(release: Release) -> None:
    api, worker, daemon = (release.environment(name) for name in ("api", "worker", "plugin_daemon"))
    redis = release.environment("redis")["REDISCLI_AUTH"]
    pairs = [
        (api["DB_PASSWORD"], release.environment("db_postgres")["POSTGRES_PASSWORD"]),
        (api["DB_PASSWORD"], daemon["DB_PASSWORD"]),
        (api["REDIS_PASSWORD"], redis),
        (api["CELERY_BROKER_URL"], f"redis://:{redis}@redis:6379/1"),
        (api["CODE_EXECUTION_API_KEY"], release.environment("sandbox")["API_KEY"]),
        (api["PLUGIN_DAEMON_KEY"], daemon["SERVER_KEY"]),
        (api["INNER_API_KEY_FOR_PLUGIN"], daemon["DIFY_INNER_API_KEY"]),
        (api["WEAVIATE_API_KEY"], release.environment("weaviate")["AUTHENTICATION_APIKEY_ALLOWED_KEYS"]),
        (api["SECRET_KEY"], worker["SECRET_KEY"]),
    ]
    if "agent_backend" in release.started:
        agent = release.environment("agent_backend")
        pairs += [
            (api["AGENT_BACKEND_API_TOKEN"], agent["DIFY_AGENT_API_TOKEN"]),
            (agent["DIFY_AGENT_SHELLCTL_AUTH_TOKEN"], release.environment("local_sandbox")["SHELLCTL_AUTH_TOKEN"]),
        ]
    assert [pair for pair in pairs if pair[0] != pair[1] or len(pair[0]) < 30] == []
    assert len({pair[0] for pair in pairs}) == len(pairs) - 1  # DB_PASSWORD is there twice


def test_what_users_see_is_https(release: Release, server: Server) -> None:
    url = f"https://{server.domain}"
    expected = {
        **dict.fromkeys(("CONSOLE_API_URL", "CONSOLE_WEB_URL", "SERVICE_API_URL", "APP_API_URL", "APP_WEB_URL"), url),
        **dict.fromkeys(("FILES_URL", "TRIGGER_URL", "CONSOLE_CORS_ALLOW_ORIGINS", "WEB_API_CORS_ALLOW_ORIGINS"), url),
        "ENDPOINT_URL_TEMPLATE": f"{url}/e/{{hook_id}}",
        "INTERNAL_FILES_URL": "http://api:5001",
        "RESPECT_XFORWARD_HEADERS_ENABLED": "true",
    }
    for name in ("api", "worker"):
        environment = release.environment(name)
        assert {key: environment.get(key) for key in expected} == expected
    web = release.environment("web")
    assert (web["CONSOLE_API_URL"], web["APP_API_URL"]) == (url, url)
    socket = f"wss://{server.domain}" if "api_websocket" in release.started else None
    assert web.get("NEXT_PUBLIC_SOCKET_URL") == socket
    assert not re.search(rf"(http|ws)://{re.escape(server.domain)}", json.dumps(release.every))
