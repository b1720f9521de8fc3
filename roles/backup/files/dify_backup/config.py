# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role wrote for this program."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from dify_backup.basics import Problem

# Of a server that is backed up, and of one that only reads the backups of another one.
CONFIGS = ("/etc/selfhost-dify-backup/config.json", "/etc/selfhost-dify-backup/restore.json")


@dataclasses.dataclass(frozen=True)
class Config:
    """What the role wrote; see its options of the same names."""

    name: str
    repository: str
    password_file: str
    environment_file: str
    restic: str
    restic_options: list[str]
    project_path: str
    database_image: str
    mode: str
    paths: list[str]
    edge_paths: list[str]
    edge_volumes: list[str]
    keep: dict[str, int]
    append_only: bool
    check_subset: str
    textfile_path: str
    alert_command: list[str]
    lock_timeout: int
    halt_timeout: int
    owner_password_file: str
    start_timeout: int
    drill_path: str
    state_path: str
    cache_path: str
    version: str

    @classmethod
    def read(cls, path: str) -> Config:
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise Problem(f"{path} cannot be read ({error}); run the role backup again.") from None

    def state(self, name: str) -> Path:
        return Path(self.state_path) / name
