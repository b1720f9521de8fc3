# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two sites on one host, each with a certificate of its own kind."""

from __future__ import annotations

from conftest import Server


def test_the_site_is_served_with_a_trusted_certificate(server: Server) -> None:
    answer = server.request("GET", "/where?a=b")
    assert answer.status == 200
    assert answer.json()["path"] == "/where?a=b"
