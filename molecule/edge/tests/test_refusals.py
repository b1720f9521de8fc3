# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is refused before anything changes, and orders that fail while the site stays up."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
from authority import Authority
from conftest import Server, run_at_once
from visitor import ONE_SITE, Visitor, lab, run_one, serves, tell_dns, until

ALIASES = {"nginx_certbot_aliases": ["www.edge.test"]}
ELSEWHERE = "10.213.0.250"


@pytest.fixture(scope="module")
def dns(server: Server) -> t.Iterator[str]:
    """A DNS server that knows a name that leads elsewhere and a name that another authority owns."""
    tell_dns("add-a", host="away.edge.test", addresses=[ELSEWHERE])
    tell_dns("add-a", host="caa.edge.test", addresses=[server.address])
    tell_dns("add-caa", host="caa.edge.test", policies=[{"tag": "issue", "value": "other.example"}])
    yield str(lab()["dns"])
    for name in ("away.edge.test", "caa.edge.test"):
        tell_dns("clear-a", host=name)
    tell_dns("clear-caa", host="caa.edge.test")


def test_nothing_that_cannot_work_is_begun(server: Server, host: t.Any, dns: str, tmp_path: Path) -> None:
    own = Authority(tmp_path)
    chain, key = own.issue("good", "edge.test")
    _chain, other_key = own.issue("other", "edge.test")

    def files(chain: Path, key: Path) -> dict[str, t.Any]:
        paths = {"nginx_certbot_certificate": str(chain), "nginx_certbot_private_key": str(key)}
        return {"nginx_certbot_tls": "files", "nginx_certbot_upstream": "http://127.0.0.1:1", **paths}

    def new(domain: str, **variables: t.Any) -> dict[str, t.Any]:
        return {"nginx_certbot_domain": domain, "nginx_certbot_resolvers": [dns], **variables}

    cases: dict[str, tuple[dict[str, t.Any], str]] = {
        "expired": (files(*own.issue("old", "edge.test", days=-1)), "CN=edge.test expired at "),
        "mismatched": (files(chain, other_key), "of its private key: it belongs to another certificate"),
        "order": (files(own.turned("good"), key), "certificate 1 (CN=Own intermediate) was issued by CN=Own root, but"),
        "names": (files(*own.issue("wrong", "x.test")), "it is for x.test, not for edge.test"),
        "no file": (files(tmp_path / "none.pem", key), "none.pem, but there is no such file on the controller"),
        "no name": (new("nowhere.edge.test"), "nowhere.edge.test has no address in the DNS"),
        "wrong DNS": (new("away.edge.test"), f"away.edge.test leads to {ELSEWHERE} in the DNS, but this host has"),
        "CAA": (new("caa.edge.test", nginx_certbot_caa_issuer="letsencrypt.org"), "permits other.example, not letsenc"),
    }
    before = host.check_output("find /root/nginx /data/nginx -type f -exec sha256sum {} + | sort")
    runs = run_at_once(ONE_SITE, {name: variables for name, (variables, _words) in cases.items()}, tmp_path)
    for name, (_variables, words) in cases.items():
        assert (runs[name].failed, runs[name].changed) == (True, 0), runs[name]
        assert words in runs[name].message, name
    assert host.check_output("find /root/nginx /data/nginx -type f -exec sha256sum {} + | sort") == before


def test_a_program_that_holds_port_80_is_named(server: Server, host: t.Any) -> None:
    host.check_output("docker stop nginx-certbot")
    host.check_output("systemd-run --unit=held python3 -m http.server 80")
    host.check_output("for try in $(seq 100); do ss -Hltn | grep -q ':80 ' && exit; sleep 0.1; done; exit 1")
    run = run_one(ALIASES)
    host.check_output("systemctl stop held && docker start nginx-certbot")
    until("the edge did not come back", lambda: serves(server, "edge.test"))
    assert (run.failed, run.changed) == (True, 0)
    assert "Port 80 of this host is held by python3 (process " in run.message
    assert "stop and disable that program, then run again" in run.message


def test_orders_that_fail_leave_the_site_up_and_are_not_repeated_at_once(server: Server, host: t.Any, dns: str) -> None:
    # the authority is sent elsewhere, which this host cannot see
    names = {"nginx_certbot_aliases": ["away.edge.test"], "nginx_certbot_check_names": False}
    closed = {"nginx_certbot_tls": "staging", "nginx_certbot_staging_directory": "https://10.213.0.4:14999/dir"}
    with Visitor(server, "edge.test") as visitor:
        unreachable = run_one({**ALIASES, **closed})
        assert unreachable.failed
        assert "https://10.213.0.4:14999/dir issued no certificate for edge.test, www.edge.test" in unreachable.message
        assert "Connection refused" in unreachable.message
        assert not host.file("/root/nginx/edge.test.failed").exists

        failed = run_one(names)
        assert failed.failed
        assert "Domain: away.edge.test" in failed.message
        assert "Some challenges have failed" in failed.message

        soon = run_one(names)
        assert (soon.failed, soon.changed) == (True, 0)
        assert "1 order for edge.test failed, the last with" in soon.message
        assert re.search(r"the next try is due in 1?[0-9] min", soon.message)
        assert "-e nginx_certbot_retry=true" in soon.message

        tell_dns("clear-a", host="away.edge.test")
        tell_dns("add-a", host="away.edge.test", addresses=[server.address])
        resumed = run_one({**names, "nginx_certbot_retry": True})
        assert not resumed.failed, resumed.message
    assert visitor.failures == []
    assert not host.file("/root/nginx/edge.test.failed").exists
