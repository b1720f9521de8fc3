# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What containers see of volumes that were owned on the host of a remapped daemon."""

from __future__ import annotations

import typing as t

IMAGE = "postgres:15-alpine"
RUN = "docker run --rm --entrypoint sh --volume storage:/storage --volume disk:/disk"


def test_the_daemon_remaps_users(host: t.Any) -> None:
    assert "name=userns" in host.check_output("docker info --format '{{.SecurityOptions}}'")


def test_everything_in_the_volumes_belongs_to_the_containers_user(host: t.Any) -> None:
    found = host.check_output(f"{RUN} {IMAGE} -c 'find /storage /disk ! -user 1001 -o ! -group 1001'")
    assert found == ""
    files = host.check_output(f"{RUN} {IMAGE} -c 'find /storage /disk | sort'").split()
    assert files == [
        *("/disk", "/disk/file", "/storage", "/storage/link", "/storage/privkeys", "/storage/privkeys/tenant"),
        "/storage/privkeys/tenant/private.pem",
    ]


def test_the_containers_user_can_write(host: t.Any) -> None:
    host.check_output(
        f"{RUN} --user 1001:1001 {IMAGE} -c 'echo key > /storage/privkeys/tenant/private.pem && : > /disk/file'"
    )


def test_the_number_on_the_host_is_another_one(host: t.Any) -> None:
    first = int(host.check_output("grep ^dockremap: /etc/subuid").split(":")[1])
    assert host.file("/srv/disk/file").uid == first + 1001


def test_the_link_was_not_followed(host: t.Any) -> None:
    assert host.file("/etc/passwd").uid == 0


def test_the_database_beside_them_is_untouched_and_starts_again(host: t.Any) -> None:
    host.check_output("docker restart database")
    host.check_output(
        "for try in $(seq 60); do docker exec database pg_isready --host=127.0.0.1 && exit; sleep 1; done; exit 1"
    )
    assert host.check_output("docker exec database stat -c '%u %a' /var/lib/postgresql/data") == "70 700"
