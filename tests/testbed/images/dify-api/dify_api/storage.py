# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files below the storage root, written the way the real API writes them: files 0644, directories 0755."""

from __future__ import annotations

import os
from pathlib import Path

DENIED = (
    "PermissionDenied (persistent) at write => permission denied\n\n"
    "Context:\n   service: fs\n   path: {path}\n\n"
    "Source:\n   Permission denied (os error 13)\n"
)


class StorageError(Exception):
    """The message is the one the real API passes on to its caller."""


def root() -> Path:
    return Path(os.environ.get("OPENDAL_FS_ROOT") or "storage")


def save(path: str, content: bytes) -> None:
    """Write below the storage root; `path` is relative to it."""
    target = root() / path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    except PermissionError:
        raise StorageError(DENIED.format(path=path)) from None
    except OSError as error:
        raise StorageError(f"Unexpected (persistent) at write => {error.strerror}, path: {path}") from None


def load(path: str) -> bytes:
    """Read below the storage root."""
    try:
        return (root() / path).read_bytes()
    except OSError as error:
        raise StorageError(f"Unexpected (persistent) at read => {error.strerror}, path: {path}") from None
