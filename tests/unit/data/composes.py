# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every real Compose binary found here.

The pinned one of requirements-dev.txt is always there. Others are taken from .cache/compose/, where
tests/gates/compose.sh puts them, from the paths in SELFHOST_COMPOSE (separated by colons) and from Docker's plugin
directories.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGINS = ("/usr/libexec/docker", "/usr/lib/docker", "/usr/local/lib/docker", str(Path.home() / ".docker"))
CACHE = Path(__file__).parents[3] / ".cache" / "compose"


def find_binaries() -> dict[str, Path]:
    """One binary of each version."""
    candidates = [
        Path(sys.prefix) / "bin" / "docker-compose",
        *(Path(path) for path in os.environ.get("SELFHOST_COMPOSE", "").split(":") if path),
        *sorted(CACHE.glob("docker-compose-*")),
        *(Path(path) / "cli-plugins" / "docker-compose" for path in PLUGINS),
    ]
    found: dict[str, Path] = {}
    for path in candidates:
        if path.is_file():
            with contextlib.suppress(OSError):  # made for another machine
                said = subprocess.run([path, "version", "--short"], capture_output=True, text=True, check=True)
                found.setdefault(said.stdout.strip().lstrip("v"), path)
    return found


BINARIES = find_binaries()
every_compose = pytest.mark.parametrize("binary", BINARIES.values(), ids=BINARIES.keys())
