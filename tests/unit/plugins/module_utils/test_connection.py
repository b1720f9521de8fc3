# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Knocking at services. Signing in to real ones is the scenario pgvector's part."""

from __future__ import annotations

import socket
import threading
import typing as t

import pytest
from ansible_collections.selfhost.dify.plugins.module_utils._connection import Connection, knock

PROTOCOLS = ["tcp", "http", "redis", "mysql", "postgresql"]


@pytest.fixture
def listener() -> t.Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server


def says(server: socket.socket, words: bytes) -> int:
    """Says the same to whoever comes, then hangs up; the port."""

    def serve() -> None:
        client, _address = server.accept()
        with client:
            client.recv(4096) if words != MYSQL_NO else None
            client.sendall(words)

    threading.Thread(target=serve, daemon=True).start()
    return t.cast("int", server.getsockname()[1])


MYSQL_NO = b"\x2c\x00\x00\x00\xff\x6a\x04Host '10.0.0.1' is not allowed to connect"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nobody_listens(protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert knock(Connection(protocol, "127.0.0.1", port), 5) == "Connection refused"


@pytest.mark.parametrize("protocol", PROTOCOLS[1:])
def test_nobody_answers(protocol: str, listener: socket.socket) -> None:
    target = Connection(protocol, "127.0.0.1", listener.getsockname()[1])
    assert knock(target, 0.2) == "no answer within 0.2 seconds"


def test_no_such_name() -> None:
    assert "not known" in knock(Connection("tcp", "no-such-name.invalid", 1), 5)


@pytest.mark.parametrize("protocol", ["tcp", "http", "redis"])
def test_no_tls_where_it_was_asked_for(protocol: str, listener: socket.socket) -> None:
    port = says(listener, b"-ERR unknown command\r\n")
    assert knock(Connection(protocol, "127.0.0.1", port, tls=True), 5).startswith("it does not speak TLS as asked")


@pytest.mark.parametrize(
    ("protocol", "words", "reason"),
    [
        ("redis", b"-NOAUTH Authentication required.\r\n", "NOAUTH Authentication required."),
        ("redis", b"", "it closed the connection, as it does when it expects TLS"),
        ("mysql", MYSQL_NO, "Host '10.0.0.1' is not allowed to connect"),
        ("postgresql", b"HTTP/1.1 400 Bad Request\r\n\r\n", "it does not answer as a PostgreSQL server does"),
        ("http", b"HTTP/1.1 403 Forbidden\r\n\r\n", ""),
        ("redis", b"+PONG\r\n", ""),
    ],
)
def test_answers(protocol: str, words: bytes, reason: str, listener: socket.socket) -> None:
    assert knock(Connection(protocol, "127.0.0.1", says(listener, words)), 5) == reason


def test_a_postgresql_without_tls_is_refused_only_where_tls_was_asked_for(listener: socket.socket) -> None:
    target = Connection("postgresql", "127.0.0.1", says(listener, b"N"), tls=True)
    assert knock(target, 5) == "it offers no TLS"
