# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server that was lost, on another host and under another name."""

from __future__ import annotations

import base64
import datetime
import json
import typing as t

import pytest
from conftest import Server
from truth import FILE, WRITTEN, truth

# What the new server does by itself: its nginx and Dify's init container write these.
OWN = (".init_permissions",)


@pytest.fixture(scope="module")
def before() -> dict[str, list[str]]:
    return t.cast("dict[str, list[str]]", json.loads(FILE.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def after(host: t.Any) -> dict[str, list[str]]:
    return truth(host)


PSQL = "docker exec dify-db_postgres-1 psql -qAtU postgres -d dify -c %s"


@pytest.fixture(scope="module")
def manifest(host: t.Any) -> t.Any:
    """Of the set that was restored."""
    return json.loads(host.check_output("dify-backup --config /etc/selfhost-dify-backup/restore.json show"))


# Signing in, as other tests do, notes when and from where.
CHANGING = "INSERT INTO public.accounts "


def test_every_row_of_both_databases_is_there(before: dict[str, list[str]], after: dict[str, list[str]]) -> None:
    def steady(lines: list[str]) -> list[str]:
        return [line for line in lines if not line.startswith(CHANGING)]

    missing = set(steady(before["rows"])) - set(after["rows"])
    assert not missing
    more = [line for line in steady(after["rows"]) if line not in set(before["rows"])]
    assert not [line for line in more if "writer " not in line]
    assert len([line for line in before["rows"] if "author/plugin" in line]) == 500


@pytest.mark.parametrize("section", ["entries", "contents"])
def test_every_file_is_as_it_was(before: dict[str, list[str]], after: dict[str, list[str]], section: str) -> None:
    def own(lines: list[str]) -> set[str]:
        return {line for line in lines if not any(name in line for name in OWN)}

    assert not own(before[section]) - own(after[section])
    assert not [line for line in own(after[section]) - own(before[section]) if "upload_files/" not in line]


def test_what_was_accepted_before_the_backup_began_is_there(host: t.Any, manifest: t.Any) -> None:
    written = [json.loads(line) for line in WRITTEN.read_text(encoding="utf-8").splitlines()]
    began = datetime.datetime.fromisoformat(manifest["started"]).timestamp()
    accepted = {line["id"] for line in written if line["asked"] + line["took"] < began}
    query = "SELECT id FROM upload_files WHERE name LIKE 'writer %'"
    there = set(host.check_output(PSQL, query).split())
    assert accepted
    assert accepted <= there
    print(f"longest answer while it was backed up: {max(line['took'] for line in written):.1f} s of {len(written)}")


MISSING = """
cd /opt/dify/docker/volumes/app/storage
docker exec dify-db_postgres-1 psql -qAtU postgres -d dify -c "SELECT key FROM upload_files" |
  while read -r key; do test -f "$key" || echo "$key"; done
"""


def test_every_row_has_its_file(host: t.Any) -> None:
    assert host.check_output("sh -ec %s", MISSING) == ""


def test_secrets_and_the_owners_password_are_the_same(
    before: dict[str, list[str]], after: dict[str, list[str]]
) -> None:
    assert after["secrets"] == before["secrets"]


def test_the_owner_signs_in_under_the_new_name(server: Server, session: dict[str, str]) -> None:
    assert server.domain == "dify-restored.test"
    profile = server.request("GET", "/console/api/account/profile", headers=session)
    assert profile.json()["email"] == "owner@example.com"


def test_owner_file_and_credential_are_verified(host: t.Any) -> None:
    said = json.loads(host.check_output("dify-backup verify"))
    assert said["owner"] == "owner@example.com"
    assert said["file"].endswith(" bytes")
    assert said["credentials"] == "1 workspaces' keys fit, 1 secrets decrypted"


def test_a_drill_proves_the_newest_set_and_leaves_nothing_behind(host: t.Any, manifest: t.Any) -> None:
    drill = json.loads(host.check_output("cat /var/lib/selfhost-dify-backup/state.json"))["drill"]
    assert drill["success"]
    assert drill["set"] == manifest["set"]
    assert drill["rows"]["dify_plugin"] == 500
    assert drill["verified"]["credentials"] == "1 workspaces' keys fit, 1 secrets decrypted"
    assert "selfhost-dify-drill" not in host.check_output("docker ps --all; docker network ls; docker volume ls")
    assert not host.file("/var/lib/selfhost-dify-backup/selfhost-dify-drill").exists


def test_a_key_of_another_workspace_is_noticed(host: t.Any) -> None:
    with host.sudo():
        key = host.check_output("ls /opt/dify/docker/volumes/app/storage/privkeys/*/private.pem")
        host.check_output(
            f"cp -p {key} {key}.kept && openssl genrsa -out /tmp/other.pem 2048 && cat /tmp/other.pem >{key}"
        )
        said = host.run("dify-backup verify")
        host.check_output(f"mv {key}.kept {key}")
    assert said.rc == 1
    assert "does not fit its public key" in said.stderr


# Says whether a container reaches the machine's own network: the address of its host's router.
REACH = """
import socket, sys
sys.exit(socket.socket().connect_ex((sys.argv[1], 53)) not in (0, 111))
"""


RUNNING = 'until [ "$(docker inspect -f {{{{.State.Running}}}} {})" = true ]; do sleep 0.2; done'
ENDED = (
    "while systemctl show --property ActiveState selfhost-dify-backup-drill | grep -q activating; do sleep 0.2; done"
)


def test_a_drill_cannot_be_reached_and_gets_nowhere(host: t.Any, server: Server) -> None:
    router = host.check_output("ip -json route show default").split('"gateway":"')[1].split('"')[0]
    reach = f"docker exec {{}} timeout 5 python3 -c '{REACH}' {router}"
    assert host.run(reach.format("dify-api-1")).rc == 0
    host.check_output("systemctl start --no-block selfhost-dify-backup-drill")
    name = "selfhost-dify-drill-api-1"
    host.check_output("timeout 300 sh -c %s", RUNNING.format(name))
    assert host.run(reach.format(name)).rc not in (0, 126, 127)
    assert host.check_output(f"docker port {name}") == ""
    assert server.request("GET", "/console/api/setup").status == 200
    host.check_output("timeout 300 sh -c %s", ENDED)
    assert host.check_output("systemctl show --property Result selfhost-dify-backup-drill") == "Result=success"


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
    # sudo notes the very command that looks for it
    assert host.run("journalctl --no-pager _COMM!=sudo | grep -F %s", secret).rc == 1


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


@pytest.fixture
def other_release(host: t.Any) -> t.Iterator[None]:
    """Another commit is checked out."""
    git = "git -C /opt/dify -c user.name=other -c user.email=other@example.com"
    commit = host.check_output(f"{git} rev-parse HEAD")
    host.check_output(f"{git} commit --quiet --allow-empty --message other")
    yield
    host.check_output(f"{git} reset --quiet --soft {commit}")


@pytest.mark.usefixtures("other_release")
@pytest.mark.parametrize(("option", "said"), [("", "set dify_version to"), ("--other-release", "is no empty target")])
def test_another_release_is_refused_unless_told(host: t.Any, option: str, said: str) -> None:
    done = host.run(f"dify-backup --config /etc/selfhost-dify-backup/restore.json restore {option}")
    assert done.rc == 1
    assert said in done.stderr
