# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use it from outside selfhost.dify.

"""Dify's releases as far as this version of the collection knows them, and what they are ordered by."""

from __future__ import annotations

import re

RELEASES = (
    *("1.10.1", "1.10.1-fix.1", "1.11.0", "1.11.1", "1.11.2", "1.11.3", "1.11.4", "1.12.0", "1.12.1", "1.13.0"),
    *("1.13.1", "1.13.2", "1.13.3", "1.14.0", "1.14.1", "1.14.2", "1.15.0", "1.16.0", "1.16.1", "1.17.0", "1.17.1"),
    *("1.18.0", "1.19.0"),
)

# Release to what it repairs, as advisories have it.
SECURITY = {
    "1.10.1-fix.1": "CVE-2025-55182 and CVE-2025-66478 (React2Shell: anybody can run programs in the web container)",
    "1.14.2": "CVE-2026-41947, CVE-2026-41949 and CVE-2026-41950 (data of other workspaces)",
    "1.15.0": "CVE-2026-41948 (the plugin daemon's internal API)",
    "1.16.0": "CVE-2026-61461 (SQL injection through MyScale)",
}


def order(version: str) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
    """What releases are sorted by: C(1.10.1-fix.1) comes after C(1.10.1), C(1.11.0-rc1) before C(1.11.0)."""
    base, _dash, suffix = version.partition("-")
    rank = 0 if not suffix else 1 if suffix.startswith("fix") else -1
    return _numbers(base), rank, _numbers(suffix)


def is_release(version: str) -> bool:
    """Whether a version can be compared at all: an image of one's own may be called anything."""
    return bool(re.fullmatch(r"\d+\.\d+\.\d+(-(fix|rc|alpha|beta)\.?\d*(\.\d+)?)?", version))


def newer(version: str) -> list[str]:
    """The known releases after a version, oldest first."""
    return [release for release in RELEASES if order(release) > order(version)] if is_release(version) else []


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))
