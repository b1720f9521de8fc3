# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server that was lost, on another host and under another name."""

from __future__ import annotations

import base64
import json
import typing as t

import pytest
from conftest import Server
from truth import FILE, truth

# The key of the tenant and what was encrypted with it, both from the restored server.
DECRYPT = """
cd /opt/dify/docker
docker compose exec -T db_postgres psql -qAtU postgres -d dify -c "SELECT encrypted_config FROM provider_credentials" |
  base64 -d | openssl pkeyutl -decrypt -inkey volumes/app/storage/privkeys/*/private.pem
"""
# What the new server does by itself: its nginx and Dify's init container write these.
OWN = (".init_permissions",)


@pytest.fixture(scope="module")
def before() -> dict[str, list[str]]:
    return t.cast("dict[str, list[str]]", json.loads(FILE.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def after(host: t.Any) -> dict[str, list[str]]:
    return truth(host)


# Signing in, as other tests do, notes when and from where.
CHANGING = "INSERT INTO public.accounts "


def test_every_row_of_both_databases_is_there(before: dict[str, list[str]], after: dict[str, list[str]]) -> None:
    def steady(lines: list[str]) -> list[str]:
        return [line for line in lines if not line.startswith(CHANGING)]

    assert steady(after["rows"]) == steady(before["rows"])
    assert len([line for line in before["rows"] if "author/plugin" in line]) == 500


@pytest.mark.parametrize("section", ["entries", "contents"])
def test_every_file_is_as_it_was(before: dict[str, list[str]], after: dict[str, list[str]], section: str) -> None:
    def own(lines: list[str]) -> set[str]:
        return {line for line in lines if not any(name in line for name in OWN)}

    assert own(after[section]) == own(before[section])


def test_secrets_and_the_owners_password_are_the_same(
    before: dict[str, list[str]], after: dict[str, list[str]]
) -> None:
    assert after["secrets"] == before["secrets"]


def test_the_owner_signs_in_under_the_new_name(server: Server, session: dict[str, str]) -> None:
    assert server.domain == "dify-restored.test"
    profile = server.request("GET", "/console/api/account/profile", headers=session)
    assert profile.json()["email"] == "owner@example.com"


def test_a_credential_can_be_decrypted(host: t.Any) -> None:
    assert host.check_output("sh -ec %s", DECRYPT) == "sk-of-a-model"


def test_settings_say_the_new_name_only(environment: dict[str, str]) -> None:
    assert environment["CONSOLE_API_URL"] == "https://dify-restored.test"
    assert not [name for name, value in environment.items() if "dify-lost.test" in value]


def test_sparse_files_take_no_room(host: t.Any) -> None:
    used = host.check_output("du -k /opt/dify/docker/volumes/plugin_daemon/cwd/many/sparse").split()[0]
    assert int(used) < 1024


def test_it_is_backed_up_from_now_on(host: t.Any) -> None:
    assert host.service("selfhost-dify-backup.timer").is_running
    assert host.service("selfhost-dify-backup.timer").is_enabled


def test_its_first_backup_equals_the_one_it_came_from(host: t.Any) -> None:
    """What was saved, restored and saved again is the same but for what a new name and a sign-in change."""
    host.check_output("systemctl start selfhost-dify-backup")
    was = json.loads(host.check_output("dify-backup --config /etc/selfhost-dify-backup/restore.json show"))
    now = json.loads(host.check_output("dify-backup show"))
    for key in ("release", "project", "keys", "owners"):
        assert now[key] == was[key], key
    assert set(now["parts"]) == set(was["parts"])
    for part, saved in was["parts"].items():
        if "rows" in saved:
            assert now["parts"][part]["rows"] == saved["rows"]
    assert now["parts"]["store"]["digest"] == was["parts"]["store"]["digest"]


def test_the_repository_holds_nothing_that_can_be_read(host: t.Any, password: str) -> None:
    for text in (password, "Übersicht", "sk-of-a-model", "BEGIN RSA PRIVATE KEY", "owner@example.com"):
        assert host.run("grep -rlF %s /srv/backup/repository", text).rc == 1
        encoded = base64.b64encode(text.encode()).decode().rstrip("=")
        assert host.run("grep -rlF %s /srv/backup/repository", encoded).rc == 1


def test_nothing_of_the_password_is_in_the_journal(host: t.Any) -> None:
    secret = host.check_output("cat /etc/selfhost-dify-backup/password").strip()
    assert host.run("journalctl --no-pager | grep -F %s", secret).rc == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("restore", "is no empty target"),
        ("restore --set 20200101T000000Z-000000", "There is no set"),
    ],
)
def test_a_restore_over_a_server_is_refused(host: t.Any, arguments: str, said: str) -> None:
    done = host.run(f"dify-backup --config /etc/selfhost-dify-backup/restore.json {arguments}")
    assert done.rc == 1
    assert said in done.stderr
