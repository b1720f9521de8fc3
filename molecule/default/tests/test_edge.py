# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What crosses the edge besides plain requests. The first two use endpoints that only the stand-ins have."""

from __future__ import annotations

import base64
import contextlib
import os
import time

import pytest
from conftest import Server


@pytest.mark.standin
def test_server_sent_events_arrive_one_by_one(server: Server) -> None:
    connection = server.connection()
    connection.request("GET", "/v1/testbed/events?count=5&interval=0.5", headers={"Host": server.domain})
    response = connection.getresponse()
    arrivals = []
    while line := response.readline():
        if line.startswith(b"data:"):
            arrivals.append(time.monotonic())
    connection.close()
    assert len(arrivals) == 5
    gaps = [later - earlier for earlier, later in zip(arrivals, arrivals[1:])]
    assert min(gaps) > 0.1, "a buffered stream arrives in one piece"


@pytest.mark.standin
def test_a_websocket_upgrades_and_echoes(server: Server) -> None:
    key = base64.b64encode(os.urandom(16)).decode()
    connection = server.connection()
    connection.connect()
    stream = connection.sock
    stream.settimeout(20)
    lines = [
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1",
        f"Host: {server.domain}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    ]
    stream.sendall("\r\n".join([*lines, "", ""]).encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += stream.recv(4096)
    assert head.startswith(b"HTTP/1.1 101 ")
    received = head.split(b"\r\n\r\n", 1)[1]
    mask, text = b"\x01\x02\x03\x04", b"hello"
    stream.sendall(bytes([0x81, 0x80 | len(text)]) + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(text)))
    while text not in received:
        chunk = stream.recv(4096)
        assert chunk, received
        received += chunk
    connection.close()


def upload(server: Server, session: dict[str, str], size: int, name: str, kind: str) -> int:
    """Uploads a file of so many megabytes through the edge; returns the status."""
    disposition = f'Content-Disposition: form-data; name="file"; filename="{name}"'
    head = f"--boundary\r\n{disposition}\r\nContent-Type: {kind}\r\n\r\n".encode()
    body = head + b"x" * (size * 1024 * 1024) + b"\r\n--boundary--\r\n"
    headers = {**session, "Content-Type": "multipart/form-data; boundary=boundary"}
    return server.request("POST", "/console/api/files/upload", body, headers).status


@pytest.mark.parametrize(("name", "kind"), [("film.mp4", "video/mp4"), ("book.pdf", "application/pdf")])
def test_an_upload_at_the_limit_passes(name: str, kind: str, server: Server, session: dict[str, str]) -> None:
    assert upload(server, session, 100, name, kind) == 201


def test_an_upload_above_the_limit_is_refused(server: Server, session: dict[str, str]) -> None:
    # nginx may close the connection while the body is still being sent
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        assert upload(server, session, 102, "film.mp4", "video/mp4") == 413
    assert server.request("GET", "/console/api/ping").status == 200
