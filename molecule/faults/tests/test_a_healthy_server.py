# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of a server that is well: by the playbook, in its report, and to Prometheus."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from asked import errors, status
from conftest import DOCKER_PATH, PROJECT, Server, run_playbook

COLLECTOR = "/var/lib/prometheus/node-exporter"
BROWSER = Path(__file__).with_name("browser.py").read_text(encoding="utf-8")


def samples(text: str) -> dict[str, float]:
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def test_the_report_is_one_page_that_a_browser_shows(
    server: Server, neighbour: t.Callable[..., str], tmp_path: Path
) -> None:
    report = tmp_path / "status.html"
    run = run_playbook("status", {"status_format": "html", "status_file": str(report)})
    assert (run.failed, run.changed) == (False, 0), run.message
    html = report.read_text(encoding="utf-8")
    seen = json.loads(neighbour("python3", "-c", BROWSER, image="browser", given=html))
    assert seen["title"] == "Dify servers: status"
    assert f"healthy\nDify {server.version}" in seen["text"]
    assert seen["rows"] >= 10
    assert len(seen["fetched"]) == 1
    assert seen["complaints"] == []
    assert not seen["desk"]["wide"]
    assert not seen["phone"]["wide"]
    assert not set(seen["desk"]["colors"]) & set(seen["phone"]["colors"])


def test_a_timer_tells_prometheus(host: t.Any, server: Server) -> None:
    timer = host.service("selfhost-dify-status.timer")
    assert timer.is_running
    assert timer.is_enabled
    assert (
        host.check_output("systemctl show --property LastTriggerUSec selfhost-dify-status.timer") != "LastTriggerUSec="
    )
    host.check_output("systemctl start selfhost-dify-status.service")  # it looked before the edge was there
    file = host.file(f"{COLLECTOR}/dify.prom")
    assert (file.user, file.group, file.mode) == ("root", "root", 0o644)
    told = samples(file.content_string)
    assert told["dify_healthy"] == 1
    assert told['dify_service_running{service="api"}'] == 1
    # The edge tells the end of its certificate in a file and under a name of its own.
    edge = samples(host.file(f"{COLLECTOR}/nginx_certbot.prom").content_string)
    ends = edge[f'nginx_certbot_certificate_not_after_seconds{{domain="{server.domain}"}}']
    assert told["dify_certificate_expires_timestamp_seconds"] == ends
    assert not {name.split("{")[0] for name in told} & {name.split("{")[0] for name in edge}


# 2.40.3 comes as a package for this processor alone.
@pytest.fixture(params=[*(["2.40.3"] if platform.machine() == "x86_64" else []), "5"])
def another_compose(request: pytest.FixtureRequest, server: Server, host: t.Any) -> t.Iterator[str]:
    """The host's own Compose, which is 2.26, hidden by one of another version among root's plugins."""
    subprocess.run([PROJECT / "tests/gates/compose.sh"], check=True)
    pinned, kept = Path(sys.prefix) / "bin/docker-compose", PROJECT / f".cache/compose/docker-compose-{request.param}"
    binary = pinned if request.param == "5" else kept
    assert binary.exists(), "tests/gates/compose.sh and requirements-dev.txt bring it"
    ssh = ["ssh", "-i", server.private_key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    install = "sudo install -D -m 0755 /dev/stdin /root/.docker/cli-plugins/docker-compose"
    with binary.open("rb") as program:
        subprocess.run([*ssh, f"{server.user}@{server.address}", install], stdin=program, check=True)
    yield request.param
    host.check_output("rm -r /root/.docker")


def test_the_output_of_another_compose_is_understood(another_compose: str, host: t.Any) -> None:
    assert host.check_output("docker compose version --short").lstrip("v").startswith(another_compose)
    code, facts = status()
    assert (code, facts["healthy"], errors(facts)) == (0, True, set()), facts["findings"]
    assert {name for name, service in facts["services"].items() if service["expected"]} >= {"api", "worker", "nginx"}
    host.check_output(f"docker compose --project-directory {DOCKER_PATH} stop worker_beat")
    code, facts = status()
    host.check_output(f"docker compose --project-directory {DOCKER_PATH} start worker_beat")
    assert (code, errors(facts) & {"service_stopped"}) == (2, {"service_stopped"}), facts["findings"]
