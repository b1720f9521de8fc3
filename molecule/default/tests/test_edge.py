# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What crosses the edge besides plain requests. The first two use endpoints that only the stand-ins have."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import time
import typing as t

import pytest
from conftest import Server

# What a client may say of itself, of which nothing is believed. The API would take the first before all others.
FORGED = {
    "CF-Connecting-IP": "192.0.2.61",
    "True-Client-IP": "192.0.2.62",
    "X-Real-IP": "192.0.2.63",
    "X-Forwarded-For": "192.0.2.64, 192.0.2.65",
    "Forwarded": "for=192.0.2.66;proto=http",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "elsewhere.example.com",
}


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


def own_address(server: Server) -> str:
    with socket.create_connection((server.address, 443)) as connection:
        return str(connection.getsockname()[0])


@pytest.mark.parametrize("headers", [{}, FORGED], ids=["plain", "forged"])
def test_the_api_stores_the_clients_own_address_and_nothing_else(
    headers: dict[str, str], server: Server, password: str
) -> None:
    session = server.sign_in(password, headers)
    profile = server.request("GET", "/console/api/account/profile", headers=session).json()
    assert profile["last_login_ip"] == own_address(server)


def test_who_comes_in_through_loopback_is_not_believed_to_be_cloudflare(
    host: t.Any, server: Server, session: dict[str, str], password: str
) -> None:
    """Dify's own nginx takes the client's address from the edge, which is to say from this host, in one header only."""
    body = {"email": server.email, "password": base64.b64encode(password.encode()).decode()}
    forged = "-H CF-Connecting-IP:192.0.2.61 -H True-Client-IP:192.0.2.62 -H X-Forwarded-For:192.0.2.64"
    login = f"curl -sf {forged} -H Content-Type:application/json -d %s http://127.0.0.1:3000/console/api/login"
    host.check_output(login, json.dumps(body))
    profile = server.request("GET", "/console/api/account/profile", headers=session).json()
    assert profile["last_login_ip"] == "192.0.2.64"


def test_cookies_are_bound_to_https(server: Server, password: str) -> None:
    secret = base64.b64encode(password.encode()).decode()
    body = {"email": server.email, "password": secret, "remember_me": True}
    answer = server.request("POST", "/console/api/login", body, FORGED)
    cookies = [value for name, value in answer.headers if name.lower() == "set-cookie"]
    assert len(cookies) == 3
    for cookie in cookies:
        assert cookie.startswith("__Host-")
        assert "Secure" in cookie.split("; ")


@pytest.mark.parametrize("path", ["/chatbot/token", "/chat/token", "/completion/token", "/workflow/token"])
def test_a_published_app_can_be_embedded(path: str, server: Server) -> None:
    answer = server.request("GET", path)
    assert answer.header("X-Frame-Options") is None
    assert "frame-ancestors" not in (answer.header("Content-Security-Policy") or "")


@pytest.mark.parametrize("path", ["/apps", "/signin", "/console/api/ping"])
def test_nothing_else_can_be_embedded(path: str, server: Server) -> None:
    answer = server.request("GET", path)
    policy = answer.header("Content-Security-Policy") or ""
    assert answer.header("X-Frame-Options") == "DENY" or "frame-ancestors 'self'" in policy


@pytest.mark.parametrize("path", ["/console/api/setup", "/console/api/init"])
def test_an_owned_server_can_be_asked_but_not_set_up_from_outside(path: str, server: Server) -> None:
    assert server.request("GET", path).status == 200
    refused = server.request("POST", path, {"password": "x"})
    assert (refused.status, refused.header("X-Version")) == (403, None)
