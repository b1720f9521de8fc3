# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Crowds of connections from another container, silent and slow: more than the image's own nginx.conf holds."""

from __future__ import annotations

import contextlib
import subprocess
import time
import typing as t
from pathlib import Path

from conftest import Server, neighbour_command

CROWD = Path(__file__).with_name("crowd.py").read_text(encoding="utf-8")


class Crowd:
    """Clients that keep a connection each, as said in crowd.py."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.size = self._answer()

    def _answer(self) -> int:
        assert self.process.stdout
        return int(self.process.stdout.readline())

    def say(self, words: str) -> int:
        """How many of them could say it."""
        assert self.process.stdin
        self.process.stdin.write(f"{words}\n")
        self.process.stdin.flush()
        return self._answer()


@contextlib.contextmanager
def crowd(server: Server, *arguments: str) -> t.Iterator[Crowd]:
    command = neighbour_command("python3", "-c", CROWD, server.domain, *arguments, image="tools")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Crowd(process)


def connections(host: t.Any) -> int:
    """How many the server holds."""
    listing = host.check_output("ss --no-header --numeric --tcp state established '( sport = :443 )'")
    return len(listing.splitlines())


def test_ten_thousand_connections_leave_the_edge_answering(server: Server, host: t.Any) -> None:
    with crowd(server, "10000") as silent:
        assert silent.size == 10_000
        assert server.request("GET", "/").status == 200
        assert connections(host) >= 10_000


def test_slow_requests_leave_the_edge_answering_and_are_let_go(server: Server, host: t.Any) -> None:
    with crowd(server, "2500", f"GET / HTTP/1.1~Host: {server.domain}~X-Slow: ") as slow:
        assert slow.size == 2500
        assert server.request("GET", "/").status == 200
        assert slow.say("yes~X-Slow: ") == 2500
        assert connections(host) >= 2500
        deadline = time.monotonic() + 90
        while connections(host) > 30:
            assert time.monotonic() < deadline, "a request that never ends is let go"
            slow.say("yes~X-Slow: ")
            assert server.request("GET", "/").status == 200
