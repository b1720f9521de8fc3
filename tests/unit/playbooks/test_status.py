# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reports of status.yml, rendered from what the module returns."""

from __future__ import annotations

import html.parser
import json
import typing as t
from pathlib import Path

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

PLAYBOOKS = Path(__file__).resolve().parents[3] / "playbooks"
WELL = {
    "changed": False,
    "healthy": True,
    "findings": [
        {"id": "release_newer", "severity": "info", "service": "", "seen": "1.16.1 runs.", "remedy": "Upgrade."}
    ],
    "release": {"checked_out": "1.16.1", "commit": "6f8ed69ee15f9a2e7189ca066275e973d091d1e9"},
    "engine": {"version": "28.2.2", "root": "/var/lib/docker"},
    "services": {
        "api": {
            "expected": True,
            "one_shot": False,
            "state": "running",
            "health": "healthy",
            "restarts": 0,
            "exit_code": 0,
            "image": "langgenius/dify-api:1.16.1",
            "uptime_seconds": 90061,
            "last_error": None,
            "log": [],
        },
        "worker": {
            "expected": True,
            "one_shot": False,
            "state": "missing",
            "health": None,
            "restarts": 0,
            "exit_code": None,
            "image": None,
            "uptime_seconds": None,
            "last_error": None,
            "log": ["FATAL: first line", "<script>alert(1)</script>"],
        },
    },
    "setup": {"step": "finished", "setup_at": "2026-11-22T02:37:34"},
    "api": {"healthy": True, "version": "1.16.1"},
    "worker": {"answered": ["celery@1"]},
    "database": {"type": "postgresql", "reachable": True, "databases": ["dify"], "revision": "a", "head": "a"},
    "redis": {"reachable": True, "version": "6.2.21", "used_bytes": 1891232, "limit_bytes": 0},
    "vector_store": {"name": "weaviate", "ready": True},
    "storage": [{"path": "/s", "wrong": 0, "examined": 3}],
    "certificate": {"expires": 1795478400.0, "days_left": 60},
    "open_ports": [22, 443],
    "disks": [{"mount": "/", "used_percent": 51, "inodes_percent": 7, "free_bytes": 41281802752}],
    "images_bytes": 4500000000,
    "images_unused_bytes": 0,
    "logs_bytes": 12000000,
    "durations": {},
}
BAD = {
    "changed": False,
    "healthy": False,
    "findings": [
        {"id": "not_installed", "severity": "error", "service": "", "seen": "</ul>no Dify.", "remedy": "site"}
    ],
    "durations": {},
}
# What an engine that is down, or a server half there, leaves open.
HALF = {
    **WELL,
    "setup": None,
    "worker": {"answered": None},
    "database": {"type": "mysql", "reachable": None, "databases": None, "revision": None, "head": None},
    "redis": {"reachable": None},
    "vector_store": {"name": "milvus", "ready": None},
    "certificate": None,
}
HOSTS = {"a.example.com": WELL, "b.example.com": BAD, "c.example.com": None, "d.example.com": HALF}


def render(name: str) -> str:
    variables = {
        "ansible_play_hosts_all": list(HOSTS),
        "hostvars": {host: {"__dify_status": status} if status else {} for host, status in HOSTS.items()},
    }
    templar = Templar(loader=DataLoader(), variables=variables)
    return str(
        templar.template(trust_as_template("{{ lookup('template', '" + str(PLAYBOOKS / "templates" / name) + "') }}"))
    )


def test_table() -> None:
    text = render("status_table.j2")
    assert "a.example.com: HEALTHY (1 x info)\nDify 1.16.1, commit 6f8ed69ee15f, Docker 28.2.2\n" in text
    assert "b.example.com: NOT HEALTHY (1 x error)\n" in text
    assert "ERROR    not_installed: </ul>no Dify.\n         do: site\n" in text
    assert "c.example.com: NOT REACHABLE\n" in text
    assert "api                running     healthy           0  1d 1h     langgenius/dify-api:1.16.1\n" in text
    assert "worker             missing     -                 0  -         -\n" in text
    assert "certificate        60 days left\n" in text
    assert "vector store       milvus, not asked\n" in text
    assert "workers            unknown\n" in text
    assert "None" not in text


def test_json() -> None:
    assert json.loads(render("status_json.j2")) == HOSTS


class Page(html.parser.HTMLParser):
    """Counts open tags and notes what a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.fetched += [str(value) for name, value in attrs if name in ("src", "href", "action")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page() -> t.Iterator[tuple[str, Page]]:
    text = render("status_html.j2")
    parsed = Page()
    parsed.feed(text)
    parsed.close()
    yield text, parsed


def test_html_is_whole_and_needs_nothing_else(page: tuple[str, Page]) -> None:
    text, parsed = page
    assert parsed.open == []
    assert parsed.fetched == []
    assert not {"script", "link", "img", "iframe"} & parsed.tags
    assert "url(" not in text and "@import" not in text


def test_html_shows_what_was_seen_as_text(page: tuple[str, Page]) -> None:
    text, _parsed = page
    assert "FATAL: first line\n&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "&lt;/ul&gt;no Dify." in text
    assert all(host in text for host in HOSTS)
    assert "not reachable" in text
