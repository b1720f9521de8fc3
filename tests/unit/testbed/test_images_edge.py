# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The TLS edge's stand-in: what it reads from nginx' configuration, what it asks certbot, and its own authority."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "testbed/images/nginx-certbot"))

import edge
import local_ca

SITE = """
server {
    listen 443 ssl;
    server_name dify.test www.dify.test ~^x\\.; # and www
    ssl_certificate     /etc/letsencrypt/live/dify.test/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/dify.test/privkey.pem;
    # ssl_dhparam /etc/letsencrypt/dhparams/dhparam.pem;
}
server {
    server_name dify.test _ api.dify.test;
}
"""


def test_certificate_and_domains_come_from_the_configuration() -> None:
    assert edge.certificates(SITE) == {"dify.test": ["dify.test", "www.dify.test", "api.dify.test"]}


def test_a_key_outside_of_live_is_not_certbots() -> None:
    assert edge.certificates("server_name a.test; ssl_certificate_key /etc/ssl/own.key;") == {}


def test_files_that_a_server_waits_for() -> None:
    live = "/etc/letsencrypt/live/dify.test"
    assert edge.needed_files(SITE) == [f"{live}/fullchain.pem", f"{live}/privkey.pem"]
    assert edge.needed_files("ssl_certificate data:$pem;") == []


def test_servers_are_enabled_when_their_files_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf, user = tmp_path / "conf.d", tmp_path / "user_conf.d"
    conf.mkdir()
    user.mkdir()
    monkeypatch.setattr(edge, "CONF", conf)
    monkeypatch.setattr(edge, "USER_CONF", user)
    (user / "site.conf").write_text(f"ssl_certificate_key {tmp_path}/key.pem;\n")

    def run() -> list[str]:
        edge.link_configurations()
        edge.enable_configurations()
        return sorted(path.name for path in conf.iterdir())

    assert run() == ["site.conf.nokey"]
    (tmp_path / "key.pem").touch()
    assert run() == ["site.conf.nokey"]
    (tmp_path / "key.pem").write_text("key")
    assert run() == ["site.conf"]
    (user / "site.conf").unlink()
    assert run() == []


@pytest.mark.parametrize(
    ("name", "use_ecdsa", "expected"),
    [
        ("dify.test", "1", "ecdsa"),
        ("dify.test", "0", "rsa"),
        ("dify.test.rsa", "1", "rsa"),
        ("dify.test-ecc", "0", "ecdsa"),
    ],
)
def test_key_type(name: str, use_ecdsa: str, expected: str) -> None:
    assert edge.key_type(name, use_ecdsa) == expected


@pytest.mark.parametrize(("text", "seconds"), [("8d", 691200), ("90", 90), ("1.5h", 5400), ("2m", 120)])
def test_interval(text: str, seconds: float) -> None:
    assert edge.interval_seconds(text) == seconds


def test_a_wrong_interval_is_named() -> None:
    with pytest.raises(ValueError, match="RENEWAL_INTERVAL is 'often'"):
        edge.interval_seconds("often")


@pytest.mark.parametrize(
    ("environ", "server"),
    [
        ({}, edge.PRODUCTION),
        ({"STAGING": "0"}, edge.PRODUCTION),
        ({"STAGING": "1"}, edge.STAGING),
        ({"CERTBOT_PRODUCTION_URL": "https://acme.test/dir"}, "https://acme.test/dir"),
        ({"STAGING": "1", "CERTBOT_STAGING_URL": "https://acme.test/stage"}, "https://acme.test/stage"),
    ],
)
def test_certbot_is_sent_to_the_right_authority(environ: dict[str, str], server: str) -> None:
    command = edge.certbot_command("a.test", ["a.test", "b.test"], {"CERTBOT_EMAIL": "a@a.test", **environ})
    assert command[command.index("--server") + 1] == server
    assert command[-4:] == ["--domain", "a.test", "--domain", "b.test"]


@pytest.mark.parametrize(
    ("name", "authenticator"),
    [
        ("a.test", "webroot"),
        ("a.test.dns-rfc2136", "dns-rfc2136"),
        ("a.test.dns-rfc2136.rsa", "dns-rfc2136"),
        ("dns-rfc2136.a.test.webroot", "webroot"),
    ],
)
def test_a_certificates_name_says_how_it_is_proven(name: str, authenticator: str) -> None:
    environ = {
        "CERTBOT_EMAIL": "a@a.test",
        "CERTBOT_DNS_CREDENTIALS_DIR": "/dns",
        "CERTBOT_DNS_PROPAGATION_SECONDS": "5",
    }
    command = edge.certbot_command(name, ["a.test"], environ)
    assert command[command.index("--authenticator") + 1] == authenticator
    assert ("/dns/rfc2136.ini" in command) == (authenticator == "dns-rfc2136")


def test_local_authority_signs_for_names_and_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_CA_DIR", str(tmp_path / "ca"))
    monkeypatch.setattr(local_ca, "LIVE", tmp_path / "live")
    local_ca.issue("a.test", ["a.test", "192.0.2.1"])
    authority = (tmp_path / "ca/caCert.pem").read_bytes()
    local_ca.issue("a.test", ["a.test", "192.0.2.1"])
    assert (tmp_path / "ca/caCert.pem").read_bytes() == authority
    live = tmp_path / "live/a.test"
    for check in (["-verify_hostname", "a.test"], ["-verify_ip", "192.0.2.1"]):
        command = ["openssl", "verify", "-x509_strict", "-CAfile", str(live / "chain.pem"), *check]
        subprocess.run([*command, str(live / "fullchain.pem")], check=True, capture_output=True)
    assert (live / "privkey.pem").stat().st_mode & 0o077 == 0
