# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The release that repairs nothing by itself."""

from __future__ import annotations

import typing as t

from conftest import DOCKER_PATH


def test_what_was_left_behind_belongs_to_the_api_now_and_is_still_there(host: t.Any) -> None:
    file = host.file(f"{DOCKER_PATH}/volumes/app/storage/upload_files/old.txt")
    assert (file.uid, file.gid, file.mode, file.content_string) == (1001, 1001, 0o644, "left behind")
    flag = host.file(f"{DOCKER_PATH}/volumes/app/storage/.init_permissions")
    assert (flag.uid, flag.gid) == (1001, 1001)


def test_other_directories_keep_their_owner(host: t.Any) -> None:
    assert host.file(f"{DOCKER_PATH}/volumes/app").uid == 1000
    # The database's started anew when the server was restored; this is the one from before.
    assert host.check_output(f"stat -c %u {DOCKER_PATH}.replaced-*/volumes/db/data") == "1000"


def test_the_given_password_is_not_written_to_the_host(host: t.Any) -> None:
    assert not host.file("/root/.dify/owner_password").exists
