# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs between the releases this image stands in for."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Release:
    """A release by its tag, for example `1.12.1` or `1.10.1-fix.1`."""

    version: str

    @property
    def number(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.version.split("-")[0].split("."))

    @property
    def encoded_login_password(self) -> bool:
        """Sign-in wants the password Base64-encoded."""
        return self.number >= (1, 11, 2)

    @property
    def typed_console_api(self) -> bool:
        """Setup, init and ping answer errors in the newer shape; e-mail addresses are lower-cased."""
        return self.number >= (1, 12, 0)

    @property
    def failed_migration_is_fatal(self) -> bool:
        return self.number >= (1, 13, 0)

    @property
    def has_socket_io(self) -> bool:
        return self.number >= (1, 14, 0)

    @property
    def generates_secret_key(self) -> bool:
        return self.number >= (1, 14, 1)


def current() -> Release:
    return Release(os.environ["STANDIN_VERSION"])
