# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server of all these tests was lost and restored: what was saved, restored and saved again is the same."""

from __future__ import annotations

import json
import typing as t

import pytest
from conftest import Server

# What two backups of the same server may differ in: when and how they were made, and where restic keeps them.
OF_THE_RUN = ("set", "started", "duration", "downtime")
OF_THE_SNAPSHOT = ("snapshot", "added", "sha256")


@pytest.fixture(scope="module")
def manifests(host: t.Any) -> list[t.Any]:
    sets = json.loads(host.check_output("dify-backup status"))["complete"]
    return [json.loads(host.check_output("dify-backup show --set %s", one)) for one in (sets[0], sets[-1])]


def test_what_was_restored_makes_an_equal_manifest(manifests: list[t.Any]) -> None:
    before, after = manifests
    assert before["mode"] == after["mode"] == "cold"
    assert before["set"] != after["set"]
    for manifest in manifests:
        for key in OF_THE_RUN:
            del manifest[key]
        for part in manifest["parts"].values():
            for key in OF_THE_SNAPSHOT:
                part.pop(key, None)
    assert after == before


def test_the_edge_came_back_without_an_order(host: t.Any, server: Server) -> None:
    """Its certificate is the one that was saved."""
    volume, certificate = "/var/lib/docker/volumes/nginx_secrets", f"live/{server.domain}/cert.pem"
    host.check_output(f"cmp {volume}/_data/{certificate} {volume}/_data.replaced-*/{certificate}")


def test_users_wait_as_long_as_a_cold_backup_takes(host: t.Any) -> None:
    manifest = json.loads(host.check_output("dify-backup show"))
    print(f"downtime {manifest['downtime']} s of {manifest['duration']} s")
    assert 0 < manifest["downtime"] <= manifest["duration"]


def test_what_was_there_before_a_restore_over_it_is_kept(host: t.Any) -> None:
    aside = host.check_output("ls -d /opt/dify/docker.replaced-*")
    assert host.file(f"{aside}/volumes/app/storage/of-the-broken-server").content_string == "kept\n"
    assert host.file(f"{aside}/.env").content_string == "LOST=1\n"
    assert not host.file("/opt/dify/docker/volumes/app/storage/of-the-broken-server").exists
