# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate that lives two and a half minutes; a host that restarts while ACME server and DNS are out of reach."""

from __future__ import annotations

import hashlib
import subprocess
import time
import typing as t
from pathlib import Path

from authority import Authority
from conftest import TESTBED, Server
from visitor import Visitor, lab, run_one, serves, until, visit

BLACKHOLE = """
[Unit]
Before=docker.service
[Service]
Type=oneshot
RemainAfterExit=true
ExecStart=ip route add blackhole 10.213.0.4
ExecStart=ip route add blackhole 10.213.0.5
[Install]
WantedBy=multi-user.target
"""


def test_a_renewed_certificate_is_served_and_no_answer_is_missed(server: Server, host: t.Any) -> None:
    # Also what happens to a server that changes its directory: one new certificate, of the new one. The container looks
    # for due ones when it starts, before that order, and next when certbot finds this one due: at half of its life.
    run = run_one(
        {
            "nginx_certbot_acme_directory": lab()["acme_staging_directory"],
            "nginx_certbot_renewal_interval": "90s",
            "nginx_certbot_textfile_path": "/var/lib/edge.prom",
        }
    )
    assert not run.failed, run.message
    value = 'nginx_certbot_certificate_not_after_seconds{domain="edge.test"} '
    (line,) = [line for line in host.file("/var/lib/edge.prom").content_string.splitlines() if line.startswith(value)]
    assert 0 < int(line.removeprefix(value)) - time.time() <= 150
    with Visitor(server, "edge.test") as visitor:
        until("no renewal was seen", lambda: len(visitor.certificates) > 1)
        until("the new certificate is not served", lambda: visitor.visits > 200)
    assert visitor.failures == []


def test_the_timer_renews_what_the_container_does_not(server: Server, host: t.Any, tmp_path: Path) -> None:
    assert host.service("nginx-certbot-renew.timer").is_enabled
    kept = "/root/nginx/local_ca/live/other.edge.test/cert.pem"
    renew = "systemctl start nginx-certbot-renew.service"
    host.check_output(renew)
    before = visit(server, "other.edge.test")["certificate"]
    Authority(tmp_path).issue("ending", "other.edge.test", days=1)
    host.check_output("printf %%s %s >%s", (tmp_path / "ending.pem").read_text(encoding="ascii"), kept)
    with Visitor(server, "other.edge.test") as visitor:
        host.check_output(renew)
        until("the new certificate is not served", lambda: len(visitor.certificates) == 2)
    assert visitor.failures == []
    assert visitor.certificates[0] == hashlib.sha256(before).hexdigest(), "with 90 days left nothing was due"


def test_a_restarted_host_serves_without_dns_and_acme(server: Server, host: t.Any) -> None:
    host.check_output("printf %%s %s >/etc/systemd/system/blackhole.service", BLACKHOLE)
    host.check_output("systemctl enable blackhole.service")
    name = host.check_output("hostname")
    subprocess.run([*TESTBED, "host", "restart", name], check=True, timeout=300)

    until("the edge did not come back", lambda: serves(server, "edge.test", "other.edge.test"))
    assert "blackhole 10.213.0.4" in host.check_output("ip route")
