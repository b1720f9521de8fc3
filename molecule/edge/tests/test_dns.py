# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A name that is not reached from outside: its certificate is proven by a record that certbot puts into the DNS."""

from __future__ import annotations

import ssl
import typing as t

from conftest import Server
from visitor import lab, run_one, visit

NAME = "inside.zone.test"
CREDENTIALS = "/root/nginx/dns/rfc2136.ini"
LIVE = f"/etc/letsencrypt/staging/live/{NAME}.dns-rfc2136"


def test_a_name_that_leads_nowhere_is_proven_by_the_dns(server: Server, host: t.Any) -> None:
    zone = lab()["zone"]
    credentials = {
        "dns_rfc2136_server": zone["address"],
        "dns_rfc2136_name": zone["name"],
        "dns_rfc2136_secret": zone["secret"],
        "dns_rfc2136_algorithm": zone["algorithm"],
    }
    site = {
        "nginx_certbot_domain": NAME,
        # the directory of this mode is no setting of the container, which so stays the one it is
        "nginx_certbot_tls": "staging",
        "nginx_certbot_staging_directory": lab()["acme_zone_directory"],
        "nginx_certbot_dns_authenticator": "rfc2136",
        "nginx_certbot_dns_credentials": credentials,
    }
    wrong = {**credentials, "dns_rfc2136_secret": "d3Jvbmc="}
    refused = run_one({**site, "nginx_certbot_dns_credentials": wrong})
    assert refused.failed
    assert f"issued no certificate for {NAME}" in refused.message
    assert "The peer didn't like the signature we sent" in refused.message

    run = run_one(site, "--diff", "-v")
    assert not run.failed, run.message
    assert zone["secret"] not in run.output
    shown = visit(server, NAME)
    assert shown["status"] == 200
    ordered = host.check_output(f"docker exec nginx-certbot cat {LIVE}/cert.pem")
    assert ssl.PEM_cert_to_DER_cert(ordered) == shown["certificate"]
    names = host.check_output(f"docker exec nginx-certbot openssl x509 -in {LIVE}/cert.pem -noout -ext subjectAltName")
    assert f"DNS:{NAME}" in names
    kept = host.file(CREDENTIALS)
    assert (kept.user, kept.mode) == ("root", 0o600)
    again = run_one(site)
    assert (again.failed, again.changed) == (False, 0)
