# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two sites on one host, each with a certificate of its own kind, and moves from every kind to another."""

from __future__ import annotations

import os
import ssl
import typing as t
from pathlib import Path

import pytest
from authority import Authority
from conftest import Server
from visitor import Visitor, lab, run_one, visit

NAMES = ["edge.test", "www.edge.test"]
ALIASES = {"nginx_certbot_aliases": ["www.edge.test"]}
RENEWAL = "/etc/letsencrypt/renewal/edge.test.conf"
LIVE = "/etc/letsencrypt/live/edge.test"


def trusting(root: Path | str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(root))


def trusts(server: Server, name: str, root: Path | str) -> bool:
    """Whether somebody who trusts this root alone believes the server."""
    try:
        return bool(visit(server, name, trusting(root))["status"] == 200)
    except ssl.SSLCertVerificationError:
        return False


@pytest.mark.parametrize("name", NAMES)
def test_a_site_serves_all_of_its_names(name: str, server: Server) -> None:
    assert trusts(server, name, server.acme_root)


def test_another_site_beside_it_is_believed_by_who_has_the_fetched_root(server: Server) -> None:
    root = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "local-ca.pem"
    assert trusts(server, "other.edge.test", root)
    assert not trusts(server, "edge.test", root)


def test_the_key_is_on_a_curve(host: t.Any) -> None:
    key = host.check_output(f"docker exec nginx-certbot openssl pkey -in {LIVE}/privkey.pem -noout -text")
    assert "NIST CURVE: P-256" in key


def test_keys_are_roots_alone(host: t.Any) -> None:
    readable = "find /root/nginx /var/lib/docker/volumes/nginx_secrets -type f -name '*.pem' -path '*priv*' -perm /077"
    assert host.check_output(readable) == ""
    assert host.file("/root/nginx").mode == 0o700


def test_the_authoritys_key_is_not_where_the_edge_is(host: t.Any) -> None:
    assert host.file("/root/nginx/local_ca/authority/caPrivkey.pem").exists
    assert host.check_output("docker exec nginx-certbot find / -xdev -name caPrivkey.pem") == ""
    mounted = "docker exec nginx-certbot find /etc/letsencrypt /etc/nginx-certbot -name 'caPrivkey.pem'"
    assert host.check_output(mounted) == ""


def test_every_move_takes_one_run_and_no_answer_is_missed(server: Server, host: t.Any, tmp_path: Path) -> None:
    own = Authority(tmp_path)
    first, second = own.issue("first", *NAMES), own.issue("second", *NAMES)
    local = tmp_path / "local.pem"
    for source, place in zip(second, ("/root/second.pem", "/root/second.key")):
        host.check_output("printf %%s %s >%s", source.read_text(encoding="ascii"), place)

    def files(chain: Path | str, key: Path | str, on_host: bool) -> dict[str, t.Any]:
        return {
            "nginx_certbot_tls": "files",
            "nginx_certbot_certificate": str(chain),
            "nginx_certbot_private_key": str(key),
            "nginx_certbot_certificate_remote_src": on_host,
        }

    moves: list[tuple[dict[str, t.Any], str | None]] = [
        ({"nginx_certbot_tls": "staging"}, None),
        ({"nginx_certbot_tls": "local_ca", "nginx_certbot_local_ca_dest": str(local)}, str(local)),
        (files(*first, False), str(own.root)),
        (files("/root/second.pem", "/root/second.key", True), str(own.root)),
        ({"nginx_certbot_tls": "acme"}, server.acme_root),
    ]
    started = host.check_output("docker inspect --format '{{.State.StartedAt}}' nginx-certbot")
    kept = host.check_output(f"docker exec nginx-certbot sha256sum {LIVE}/cert.pem")
    with Visitor(server, "edge.test") as visitor, Visitor(server, "other.edge.test") as neighbour:
        for variables, root in moves:
            run = run_one({**ALIASES, **variables}, "--diff")
            assert not run.failed, run.message
            assert "PRIVATE KEY" not in run.output
            for name in NAMES:
                assert visit(server, name)["status"] == 200
                assert not root or trusts(server, name, root), (variables, name)
                assert root == server.acme_root or not trusts(server, name, server.acme_root)
    assert visitor.failures == neighbour.failures == []
    assert visitor.visits > 100
    assert len(visitor.certificates) == len(moves), "acme serves what it served before"
    assert host.check_output("docker inspect --format '{{.State.StartedAt}}' nginx-certbot") == started
    assert host.check_output(f"docker exec nginx-certbot sha256sum {LIVE}/cert.pem") == kept
    assert host.check_output("ls /root/nginx/files/edge.test /root/nginx/local_ca/sites").split() == [
        "/root/nginx/files/edge.test:",
        "/root/nginx/local_ca/sites:",
        "other.edge.test.conf",
    ]


def test_a_certificate_of_the_staging_directory_is_replaced_once(server: Server, host: t.Any) -> None:
    """As on a server whose own directory once was the staging one: the same name, issued elsewhere."""
    directory = lab()["acme_staging_directory"]
    host.check_output(f"docker exec nginx-certbot sed -i 's#^server = .*#server = {directory}#' {RENEWAL}")
    kept = host.check_output(f"docker exec nginx-certbot sha256sum {LIVE}/cert.pem")
    run = run_one(ALIASES)
    assert not run.failed, run.message
    assert host.check_output(f"docker exec nginx-certbot sha256sum {LIVE}/cert.pem") != kept
    assert trusts(server, "edge.test", server.acme_root)
