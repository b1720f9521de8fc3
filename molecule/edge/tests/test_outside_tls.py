# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What testssl.sh finds from another container; docs/tls-scan.md has all of it."""

from __future__ import annotations

import json
import typing as t

import pytest
from conftest import Server

WEAK = ("NULL", "aNULL", "EXPORT", "LOW", "3DES_IDEA", "OBSOLETED", "STRONG_NOFS")


@pytest.fixture(scope="module")
def findings(server: Server, neighbour: t.Callable[..., str]) -> dict[str, dict[str, str]]:
    command = ["tls-scan", server.domain, "--protocols", "--std", "--server-defaults"]
    found = json.loads(neighbour(*command, image="tools", given="".join(server.roots())))
    return {finding["id"]: finding for finding in found}


def test_no_protocol_below_tls_1_2_is_offered(findings: dict[str, dict[str, str]]) -> None:
    offered = {name: findings[name]["finding"] for name in ("SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3")}
    refused = {name for name, finding in offered.items() if finding == "not offered"}
    assert refused == {"SSLv2", "SSLv3", "TLS1", "TLS1_1"}
    assert offered["TLS1_2"] == "offered"
    assert offered["TLS1_3"].startswith("offered")


def test_no_weak_cipher_is_offered(findings: dict[str, dict[str, str]]) -> None:
    offered = {name: findings[f"cipherlist_{name}"]["finding"] for name in WEAK}
    assert offered == dict.fromkeys(WEAK, "not offered")
    assert findings["cipherlist_STRONG_FS"]["finding"] == "offered"


def test_the_chain_is_complete_and_in_order(findings: dict[str, dict[str, str]]) -> None:
    assert findings["cert_chain_of_trust"]["finding"] == "passed."
    assert findings["certs_list_ordering_problem"]["finding"] == "no"
    assert findings["cert_trust"]["severity"] == "OK"


def test_nothing_else_is_wrong(findings: dict[str, dict[str, str]]) -> None:
    bad = {name for name, finding in findings.items() if finding["severity"] in ("MEDIUM", "HIGH", "CRITICAL", "FATAL")}
    # A test authority publishes no revocations and gives its certificates what time it likes.
    assert {name for name in bad if not name.startswith(("cert_", "intermediate_cert_"))} == set()
