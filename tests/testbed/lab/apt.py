# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""This machine's own apt sources, read to make a root file system of another release from the same mirror."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# Settings that decide whether the machine's mirror can be used at all; they go into the root file system too.
_OPTIONS = re.compile(r'^Acquire::(?:Check-Valid-Until|Check-Date|Retries|https?::Proxy\S*) "[^"]*";$', re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """One suite of one archive; `signed_by` is the keyring's path, or empty for apt's trusted ones."""

    uri: str
    suite: str
    components: str
    signed_by: str

    def line(self) -> str:
        options = f"[signed-by={self.signed_by}] " if self.signed_by else ""
        return f"deb {options}{self.uri} {self.suite} {self.components}"


def parse_one_line(text: str) -> list[Source]:
    """Sources of a `sources.list` file."""
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)", line)
        if match:
            options = dict(option.split("=", 1) for option in (match[1] or "").split() if "=" in option)
            found.append(Source(match[2], match[3], " ".join(match[4].split()), options.get("signed-by", "")))
    return found


def parse_deb822(text: str) -> list[Source]:
    """Sources of a `*.sources` file; an inline key is treated as apt's trusted ones."""
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace():
                fields[name] = f"{fields.get(name, '')}\n{line.strip()}"
            elif ":" in line:
                name, value = line.split(":", 1)
                name = name.lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        signed_by = fields.get("signed-by", "")
        found += [
            Source(uri, suite, " ".join(fields.get("components", "").split()),
                   signed_by if signed_by.startswith("/") else "")
            for uri in fields.get("uris", "").split()
            for suite in fields.get("suites", "").split()
        ]  # fmt: skip
    return found


def machine_sources(root: Path = Path("/etc/apt")) -> list[Source]:
    found = []
    for path in [root / "sources.list", *sorted((root / "sources.list.d").glob("*"))]:
        if path.suffix == ".list" and path.is_file():
            found += parse_one_line(path.read_text())
        elif path.suffix == ".sources" and path.is_file():
            found += parse_deb822(path.read_text())
    return found


def for_release(sources: Iterable[Source], own: str, wanted: str) -> list[str]:
    """The machine's archives of its own release (`bookworm`, `bookworm-security` …), turned to another's."""
    lines = []
    for source in sources:
        if source.suite == own or source.suite in (f"{own}-updates", f"{own}-security"):
            suite = wanted + source.suite[len(own) :]
            line = Source(source.uri, suite, "main", source.signed_by).line()
            if line not in lines:
                lines.append(line)
    return lines


def options(apt_config_dump: str) -> list[str]:
    """The lines of `apt-config dump` that the mirror needs."""
    return _OPTIONS.findall(apt_config_dump)


def os_release(text: str) -> dict[str, str]:
    """`/etc/os-release` as a dictionary."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key: value.strip("\"'") for key, value in pairs}
