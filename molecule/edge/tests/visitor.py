# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody who visits a site over and over, and what the scenario's tests share besides."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import ssl
import threading
import time
import typing as t
import urllib.request
from pathlib import Path

from conftest import Run, Server, run_playbook

ONE_SITE = "../molecule/edge/site"


def run_one(variables: dict[str, t.Any], *options: str) -> Run:
    """Runs the role for edge.test with these variables on top."""
    return run_playbook(ONE_SITE, variables, *options)


def lab() -> dict[str, t.Any]:
    text = (Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "testbed.json").read_text(encoding="utf-8")
    return t.cast("dict[str, t.Any]", json.loads(text))


def tell_dns(action: str, **record: t.Any) -> None:
    """Changes what the testbed's DNS answers, for everybody who asks it."""
    request = urllib.request.Request(f"{lab()['dns_management']}/{action}", json.dumps(record).encode())
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10).close()


def visit(server: Server, name: str, context: ssl.SSLContext | None = None) -> dict[str, t.Any]:
    """One request on a connection of its own: the status and the certificate that was shown, in DER.

    Without a ``context`` any certificate will do. Raises OSError.
    """
    if context is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection((server.address, 443), 10)
    with plain, context.wrap_socket(plain, server_hostname=name) as connection:
        connection.sendall(f"GET /visit HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return {"status": int(answer.split()[1]), "certificate": connection.getpeercert(True)}


def serves(server: Server, *names: str) -> bool:
    """Whether somebody who visits these names now is served."""
    try:
        return all(visit(server, name)["status"] == 200 for name in names)
    except (OSError, IndexError):
        return False


def until(what: str, condition: t.Callable[[], bool], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


class Visitor(threading.Thread):
    """Visits a site all the time while the block runs; ``failures`` and the ``certificates`` seen, in their order."""

    def __init__(self, server: Server, name: str) -> None:
        super().__init__(daemon=True)
        self.server, self.name_asked = server, name
        self.leaving = threading.Event()
        self.visits = 0
        self.failures: list[str] = []
        self.certificates: list[str] = []

    def __enter__(self) -> Visitor:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.leaving.set()
        self.join()

    def run(self) -> None:
        while not self.leaving.wait(0.1):
            self.visits += 1
            try:
                found = visit(self.server, self.name_asked)
                assert found["status"] == 200, found["status"]
            except (OSError, AssertionError, IndexError) as error:
                self.failures.append(repr(error))
                continue
            seen = hashlib.sha256(found["certificate"]).hexdigest()
            if seen not in self.certificates:
                self.certificates.append(seen)
