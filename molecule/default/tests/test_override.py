# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the override makes of the release's containers, and what its nginx tells the services behind it."""

from __future__ import annotations

import json
import socket
import typing as t

import pytest
import yaml
from conftest import DOCKER_PATH, PROJECT, Server, run_site

# What a client may say of itself, of which nothing is believed.
FORGED = {"X-Forwarded-For": "192.0.2.66", "X-Forwarded-Proto": "http", "X-Forwarded-Port": "99"}
ASK_NGINX = (
    "import sys, urllib.request as u; print(u.urlopen(u.Request(sys.argv[1], headers={headers})).read().decode())"
)


@pytest.fixture(scope="module")
def containers(host: t.Any) -> dict[str, t.Any]:
    """What Docker knows of the project's containers, by service."""
    text = host.check_output(f"cd {DOCKER_PATH} && docker inspect $(docker compose ps --all --quiet)")
    return {container["Config"]["Labels"]["com.docker.compose.service"]: container for container in json.loads(text)}


def test_every_container_rotates_its_logs(containers: dict[str, t.Any]) -> None:
    found = {name: container["HostConfig"]["LogConfig"] for name, container in containers.items()}
    rotating = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "5"}}
    assert found == dict.fromkeys(found, rotating)


def test_no_image_floats(containers: dict[str, t.Any]) -> None:
    pins = yaml.safe_load((PROJECT / "roles/dify/vars/main.yml").read_text(encoding="utf-8"))["__dify_image_pins"]
    images = {container["Config"]["Image"] for container in containers.values()}
    assert {image for image in images if image.endswith(":latest") or ":" not in image} == set()
    assert {f"{name}:{tag}" for name, tag in pins.items()} <= images


def test_weaviate_has_time_to_stop(containers: dict[str, t.Any]) -> None:
    assert containers["weaviate"]["Config"]["StopTimeout"] == 300


@pytest.mark.parametrize("headers", [{}, FORGED], ids=["plain", "forged"])
def test_redirects_stay_on_https(server: Server, headers: dict[str, str]) -> None:
    answer = server.request("GET", "/v1", headers=headers)
    assert (answer.status, answer.header("Location")) == (308, f"https://{server.domain}/v1/")


@pytest.mark.standin
@pytest.mark.parametrize("headers", [{}, FORGED], ids=["plain", "forged"])
def test_a_plugins_endpoint_knows_its_own_address_and_its_client(server: Server, headers: dict[str, str]) -> None:
    told = server.request("GET", "/e/hook/testbed/headers?a=b", headers=headers).json()
    client = told.pop("X-Forwarded-For")
    assert told == {
        "Host": server.domain,
        "Dify-Hook-Url": f"https://{server.domain}/e/hook/testbed/headers?a=b",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Port": "443",
    }
    with socket.create_connection((server.address, 443)) as connection:
        assert client == connection.getsockname()[0]


@pytest.mark.standin
def test_another_container_is_not_believed(host: t.Any) -> None:
    script = ASK_NGINX.format(headers=FORGED)
    url = "http://nginx/e/hook/testbed/headers"
    told = json.loads(host.check_output("docker exec dify-api-1 python3 -c %s %s", script, url))
    assert told["X-Forwarded-For"] in host.check_output("docker exec dify-api-1 hostname -i").split()
    assert told["X-Forwarded-Proto"] == "https"


def nginx(host: t.Any) -> str:
    return str(host.check_output("docker inspect --format '{{.Id}}' dify-nginx-1"))


def test_a_run_recreates_an_nginx_that_is_older_than_what_is_behind_it(host: t.Any, server: Server) -> None:
    """What a run leaves that was killed after `up` recreated the API and before nginx was recreated."""
    before = nginx(host)
    host.check_output(f"cd {DOCKER_PATH} && docker compose up --detach --force-recreate api")
    assert nginx(host) == before
    run = run_site({})
    assert (run.failed, run.changed) == (False, 1), run.message
    assert nginx(host) != before
    assert server.request("GET", "/console/api/setup").json()["step"] == "finished"


def test_a_proxy_template_that_was_edited_by_hand_is_put_right_in_the_container_too(host: t.Any) -> None:
    before = nginx(host)
    host.check_output(f"echo '# edited' >>{DOCKER_PATH}/nginx/selfhost-proxy.conf.template")
    run = run_site({})
    assert (run.failed, run.changed) == (False, 2), run.message
    assert nginx(host) != before
    assert "# edited" not in host.check_output("docker exec dify-nginx-1 cat /etc/nginx/proxy.conf.template")
