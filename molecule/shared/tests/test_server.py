# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every server must be after a run, whatever its release."""

from __future__ import annotations

import json
import socket
import ssl
import typing as t

import pytest
import yaml
from conftest import DOCKER_PATH, PROJECT, Server

STORAGE = f"{DOCKER_PATH}/volumes/app/storage"
SCAN = """
import asyncio, sys
async def answers(port, gate):
    async with gate:
        try:
            _reader, writer = await asyncio.wait_for(asyncio.open_connection(sys.argv[1], port), 5)
        except (OSError, asyncio.TimeoutError):
            return None
        writer.close()
        return port
async def main():
    gate = asyncio.Semaphore(500)
    found = await asyncio.gather(*(answers(port, gate) for port in range(1, 65536)))
    print(*[port for port in found if port])
asyncio.run(main())
"""


def secrets() -> set[str]:
    """Every setting that the role's table calls a secret."""
    table = yaml.safe_load((PROJECT / "roles/dify/vars/main.yml").read_text(encoding="utf-8"))["__dify_secrets"]
    return {key for row in table for key in (row["key"], *row.get("also", {}))}


def running_services(project: dict[str, t.Any], environment: dict[str, str]) -> dict[str, t.Any]:
    """The services of the profiles that the settings ask for."""
    active = {environment["VECTOR_STORE"], environment["DB_TYPE"], "collaboration"}
    services = project["services"].items()
    return {
        name: service for name, service in services if not service.get("profiles") or active & {*service["profiles"]}
    }


def test_engine_and_plugins_are_installed(host: t.Any) -> None:
    assert host.service("docker").is_running
    assert host.service("docker").is_enabled
    for command in (
        "git --version",
        "curl --version",
        "gpg --version",
        "docker compose version",
        "docker buildx version",
    ):
        host.check_output(command)
    options = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert options["log-opts"]["max-size"]


def test_checkout_is_exactly_the_tag(host: t.Any, server: Server) -> None:
    git = "git -C /opt/dify"
    assert host.check_output(f"{git} describe --tags --exact-match").strip() == server.version
    assert host.check_output(f"{git} status --porcelain --untracked-files=no") == ""


@pytest.mark.parametrize(
    "path", [f"{DOCKER_PATH}/.env", f"{DOCKER_PATH}/.env.applied", "/root/nginx/nginx-certbot.env"]
)
def test_files_with_secrets_are_roots_alone(host: t.Any, path: str) -> None:
    file = host.file(path)
    assert (file.user, file.group, file.mode) == ("root", "root", 0o600)


def test_no_public_default_secret_is_left(host: t.Any, project: dict[str, t.Any], environment: dict[str, str]) -> None:
    example = host.check_output(f"cat {DOCKER_PATH}/.env.example").splitlines()
    defaults = dict(line.split("=", 1) for line in example if "=" in line and not line.startswith("#"))
    public = {key: defaults[key] for key in secrets() if defaults.get(key)}
    assert {"DB_PASSWORD", "REDIS_PASSWORD", "SANDBOX_API_KEY", "PLUGIN_DAEMON_KEY", "WEAVIATE_API_KEY"} <= set(public)
    assert {key for key, value in public.items() if environment[key] == value} == set()
    services = running_services(project, environment).values()
    resolved = json.dumps([{key: value for key, value in service.items() if key != "image"} for service in services])
    assert {key for key, value in public.items() if len(value) > 8 and value in resolved} == set()


def test_every_group_of_settings_is_there(environment: dict[str, str], server: Server) -> None:
    url = f"https://{server.domain}"
    expected = {
        "EXPOSE_NGINX_PORT": "127.0.0.1:3000",
        "EXPOSE_NGINX_SSL_PORT": "127.0.0.1:42743",
        "EXPOSE_PLUGIN_DEBUGGING_PORT": "5003",
        "NGINX_HTTPS_ENABLED": "false",
        "COMPOSE_PROJECT_NAME": "dify",
        **dict.fromkeys(("CONSOLE_API_URL", "CONSOLE_WEB_URL", "SERVICE_API_URL", "APP_API_URL", "APP_WEB_URL"), url),
        **dict.fromkeys(("FILES_URL", "TRIGGER_URL", "CONSOLE_CORS_ALLOW_ORIGINS", "WEB_API_CORS_ALLOW_ORIGINS"), url),
        "ENDPOINT_URL_TEMPLATE": f"{url}/e/{{hook_id}}",
        "INTERNAL_FILES_URL": "http://api:5001",
    }
    assert {key: environment.get(key) for key in expected} == expected
    assert environment["COMPOSE_PROFILES"].startswith("${VECTOR_STORE:-weaviate},${DB_TYPE:-postgresql}")
    assert environment["SANDBOX_API_KEY"] == environment["CODE_EXECUTION_API_KEY"]
    assert environment["REDIS_PASSWORD"] in environment["CELERY_BROKER_URL"]
    assert all(environment[key] for key in ("SECRET_KEY", "INIT_PASSWORD", "DB_PASSWORD", "PLUGIN_DIFY_INNER_API_KEY"))


def test_every_published_port_of_every_profile_is_on_loopback(project: dict[str, t.Any]) -> None:
    ports = {
        f"{name} {port.get('host_ip')}:{port['published']}"
        for name, service in project["services"].items()
        for port in service.get("ports", [])
    }
    assert len(ports) > 3
    assert {port for port in ports if " 127.0.0.1:" not in port} == set()


def test_only_ssh_and_the_edge_answer_another_host(server: Server, neighbour: t.Callable[..., str]) -> None:
    assert neighbour("python3", "-c", SCAN, server.address).split() == ["22", "80", "443"]


def test_every_service_runs(host: t.Any, project: dict[str, t.Any], environment: dict[str, str]) -> None:
    wanted = {
        name for name, service in running_services(project, environment).items() if service.get("restart") != "no"
    }
    states = host.check_output(
        f"cd {DOCKER_PATH} && docker compose ps --all --format '{{{{.Service}}}} {{{{.State}}}}'"
    )
    assert {line.split()[0] for line in states.splitlines() if line.endswith(" running")} == wanted


@pytest.mark.parametrize("service", ["api", "worker", "worker_beat"])
def test_processes_run_as_uid_1001(host: t.Any, service: str) -> None:
    assert host.check_output(f"cd {DOCKER_PATH} && docker compose exec -T {service} id -u").strip() == "1001"


def test_storage_is_owned_to_the_last_file_and_nothing_else_is(host: t.Any) -> None:
    assert host.check_output(f"find {STORAGE} ! -user 1001 -o ! -group 1001") == ""
    assert host.check_output(f"find {STORAGE}/privkeys -name private.pem")
    assert (
        host.check_output(f"find {DOCKER_PATH}/volumes/db {DOCKER_PATH}/volumes/redis -user 1001 -o -group 1001") == ""
    )
    data = host.file(f"{DOCKER_PATH}/volumes/db/data/pgdata")
    assert (data.uid, data.mode) == (70, 0o700)


def test_setup_is_finished_and_the_owner_can_sign_in(server: Server, session: dict[str, str]) -> None:
    assert server.request("GET", "/console/api/setup").json()["step"] == "finished"
    profile = server.request("GET", "/console/api/account/profile", headers=session)
    assert profile.status == 200
    assert profile.json()["email"].lower() == server.email


def test_certificate_is_issued_for_the_domain_and_verified(server: Server) -> None:
    connection = server.connection()
    connection.connect()
    names = connection.sock.getpeercert()["subjectAltName"]
    connection.close()
    assert names == (("DNS", server.domain),)


@pytest.mark.parametrize("path", ["/signin", "/apps?page=2"])
def test_http_is_redirected_with_path_and_query(server: Server, path: str) -> None:
    answer = server.request("GET", path, scheme="http")
    assert (answer.status, answer.header("Location")) == (301, f"https://{server.domain}{path}")


@pytest.mark.parametrize("path", ["/signin", "/install", "/apps"])
def test_pages_are_served_over_https(server: Server, path: str) -> None:
    assert server.request("GET", path).status == 200


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_tls_is_refused(server: Server) -> None:
    context = server.tls()
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection((server.address, 443)) as raw, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(raw, server_hostname=server.domain)
