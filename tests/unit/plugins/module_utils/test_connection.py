# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Knocking at services. Signing in to real ones is the scenario pgvector's part."""

from __future__ import annotations

import socket
import threading
import typing as t

import pytest
from ansible_collections.selfhost.dify.plugins.module_utils._connection import (
    Connection,
    Refused,
    knock,
    query,
    redis_command,
    redis_stream,
)

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


def exchange(server: socket.socket, answers: list[bytes]) -> int:
    """Gives the answers one by one, each after something was said; the port."""

    def serve() -> None:
        client, _address = server.accept()
        with client:
            for answer in answers:
                client.recv(65536)
                client.sendall(answer)
            client.recv(65536)

    threading.Thread(target=serve, daemon=True).start()
    return t.cast("int", server.getsockname()[1])


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


READY = message(b"R", (0).to_bytes(4, "big")) + message(b"Z", b"I")


def test_rows(listener: socket.socket) -> None:
    row = message(b"D", b"\0\2" + b"\0\0\0\4dify" + b"\xff\xff\xff\xff")
    answer = message(b"T", b"\0\0") + row + row + message(b"C", b"SELECT 2\0") + message(b"Z", b"I")
    port = exchange(listener, [b"N", READY, answer])
    assert query(Connection("postgresql", "127.0.0.1", port), "SELECT 1", 5) == [["dify", None]] * 2


@pytest.mark.parametrize("sign_in", [True, False])
def test_why_not(sign_in: bool, listener: socket.socket) -> None:
    no = message(b"E", b'SERROR\0C3D000\0Mdatabase "dify" does not exist\0\0')
    port = exchange(listener, [b"N", no] if sign_in else [b"N", READY, no])
    with pytest.raises(Refused, match="does not exist") as caught:
        query(Connection("postgresql", "127.0.0.1", port), "SELECT 1", 5)
    assert caught.value.code == "3D000"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (b"+OK\r\n", "OK"),
        (b":3\r\n", 3),
        (b"$-1\r\n", None),
        (b"*2\r\n$1\r\na\r\n:1\r\n", ["a", 1]),
        (b"*-1\r\n", None),
    ],
)
def test_what_redis_says(said: bytes, meant: t.Any, listener: socket.socket) -> None:
    target = Connection("redis", "127.0.0.1", exchange(listener, [said]))
    with socket.create_connection((target.host, target.port), 5) as plain:
        assert redis_command(redis_stream(target, plain), "GET", "x") == meant


def test_redis_takes_no_writes(listener: socket.socket) -> None:
    target = Connection(
        "redis", "127.0.0.1", exchange(listener, [b"+OK\r\n", b"-OOM command not allowed\r\n"]), password="x"
    )
    with socket.create_connection((target.host, target.port), 5) as plain:
        stream = redis_stream(target, plain)
        with pytest.raises(Refused) as caught:
            redis_command(stream, "SADD", "a", "b")
    assert (caught.value.code, str(caught.value)) == ("OOM", "OOM command not allowed")
