# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a kind of databases tells of its dumps."""

from __future__ import annotations

import dataclasses
import typing as t

from dify_backup.basics import Tap


@dataclasses.dataclass(frozen=True)
class Dump:
    """How a database is saved; ``rows`` by table, complete when all of it is saved."""

    command: list[str]
    rows: dict[str, int]
    tap: Tap | None = None
    more: dict[str, str] = dataclasses.field(default_factory=dict)  # what else loading it takes


class Accounts(t.NamedTuple):
    """What a server knows beside its databases: how it is saved, and put back."""

    part: str
    file: str
    command: list[str]
    loading: list[str]
