# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nobody should send: it ends at the edge, and the edge goes on answering."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import ssl
import typing as t

import pytest
from conftest import Server

SERVICE = b'"peer"'  # every answer of the scenario's service has it
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
NOISE = random.Random(5).randbytes(20_000)

# Requests that the edge refuses by itself, up to the body; `~` ends a line.
REFUSED = {
    "no HTTP": b"hello~~",
    "no version and a space": b"GET / a b~~",
    "HTTP of the future": b"GET / HTTP/9.9~Host: DOMAIN~~",
    "lower-case method": b"get / HTTP/1.1~Host: DOMAIN~~",
    "CONNECT": b"CONNECT 127.0.0.1:22 HTTP/1.1~Host: DOMAIN~~",
    "TRACE": b"TRACE / HTTP/1.1~Host: DOMAIN~~",
    "no host": b"GET / HTTP/1.1~~",
    "two hosts": b"GET / HTTP/1.1~Host: DOMAIN~Host: other~~",
    "host with a path": b"GET / HTTP/1.1~Host: DOMAIN/x~~",
    "host with a space": b"GET / HTTP/1.1~Host: DOMAIN x~~",
    "NUL in the path": b"GET /a\0b HTTP/1.1~Host: DOMAIN~~",
    "encoded NUL in the path": b"GET /a%00b HTTP/1.1~Host: DOMAIN~~",
    "NUL in a header": b"GET / HTTP/1.1~Host: DOMAIN~X-A: a\0b~~",
    "NUL for a name": b"GET / HTTP/1.1~Host: DOMAIN~\0: a~~",
    "path above the root": b"GET /../../etc/passwd HTTP/1.1~Host: DOMAIN~~",
    "encoded path above the root": b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1~Host: DOMAIN~~",
    "broken escape": b"GET /%zz HTTP/1.1~Host: DOMAIN~~",
    "long path": b"GET /" + b"a" * 100_000 + b" HTTP/1.1~Host: DOMAIN~~",
    "long header": b"GET / HTTP/1.1~Host: DOMAIN~X-A: " + b"a" * 100_000 + b"~~",
    "a hundred thousand headers": b"GET / HTTP/1.1~Host: DOMAIN~" + b"X-A: a~" * 100_000 + b"~",
    "space in a header's name": b"GET / HTTP/1.1~Host: DOMAIN~X A: a~~",
    "folded header": b"GET / HTTP/1.1~Host: DOMAIN~X-A: a~ b~~",
    "length that is no number": b"POST / HTTP/1.1~Host: DOMAIN~Content-Length: ten~~0123456789",
    "negative length": b"POST / HTTP/1.1~Host: DOMAIN~Content-Length: -1~~",
    "endless length": b"POST / HTTP/1.1~Host: DOMAIN~Content-Length: 99999999999999999999~~",
    "chunk that is no number": b"POST / HTTP/1.1~Host: DOMAIN~Transfer-Encoding: chunked~~zz~a~0~~",
    "unknown encoding": b"POST / HTTP/1.1~Host: DOMAIN~Transfer-Encoding: cow~~",
}
# Two requests for one of the two sides, if edge and service disagreed where the first one ends.
SMUGGLED = b"GET /smuggled HTTP/1.1~Host: DOMAIN~~"
POST = b"POST / HTTP/1.1~Host: DOMAIN~"
SMUGGLING = {
    "length, then chunks": POST + b"Content-Length: %d~Transfer-Encoding: chunked~~0~~",
    "chunks, then length": POST + b"Transfer-Encoding: chunked~Content-Length: 4~~0~~",
    "two lengths": POST + b"Content-Length: 0~Content-Length: %d~~",
    "two encodings": POST + b"Transfer-Encoding: chunked~Transfer-Encoding: identity~~0~~",
    "space before the colon": POST + b"Transfer-Encoding : chunked~Content-Length: %d~~",
    "tab before the encoding's end": POST + b"Transfer-Encoding: chunked\x0b~Content-Length: %d~~",
    "folded encoding": POST + b"Transfer-Encoding:~ chunked~Content-Length: %d~~",
    "encoding of HTTP/1.0": b"POST / HTTP/1.0~Host: DOMAIN~Transfer-Encoding: chunked~Content-Length: %d~~0~~",
    "line ends in a value": POST + b"X-A: a\rTransfer-Encoding: chunked~Content-Length: %d~~",
}


def exchange(stream: socket.socket, words: bytes) -> bytes:
    """All that comes back until the other side is done, or says nothing for two seconds."""
    stream.settimeout(2)
    received = b""
    # Whoever refuses a request need not read all of it.
    with contextlib.suppress(OSError):
        stream.sendall(words)
    with contextlib.suppress(OSError):
        while chunk := stream.recv(65536):
            received += chunk
    return received


def say(server: Server, words: bytes, scheme: str = "https", name: str = "") -> bytes:
    """What the edge answers to these words on a connection made for the name."""
    words = words.replace(b"DOMAIN", (name or server.domain).encode()).replace(b"~", b"\r\n")
    with socket.create_connection((server.address, 443 if scheme == "https" else 80), 30) as plain:
        if scheme == "http":
            return exchange(plain, words)
        with server.tls().wrap_socket(plain, server_hostname=server.domain) as stream:
            return exchange(stream, words)


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in STATUS.findall(answer)]


@pytest.fixture(autouse=True)
def answering(server: Server) -> t.Iterator[None]:
    yield
    assert server.request("GET", "/after").json()["path"] == "/after"


@pytest.mark.parametrize("words", REFUSED.values(), ids=REFUSED)
def test_a_broken_request_ends_at_the_edge(words: bytes, server: Server) -> None:
    answer = say(server, words)
    assert SERVICE not in answer
    # nginx says 501 and 505 of what it does not know; another 5xx would be a failure behind it.
    assert all(400 <= status < 500 or status in (501, 505) for status in statuses(answer)), answer
    assert len(statuses(answer)) <= 1


@pytest.mark.parametrize("words", SMUGGLING.values(), ids=SMUGGLING)
def test_no_request_hides_in_another(words: bytes, server: Server) -> None:
    inner = SMUGGLED.replace(b"DOMAIN", server.domain.encode())
    length = len(inner) + inner.count(b"~") + (5 if words.endswith(b"~~0~~") else 0)
    answer = say(server, words.replace(b"%d", str(length).encode()) + inner)
    assert b"/smuggled" not in answer
    assert len(statuses(answer)) <= 1
    assert all(status < 500 or status == 501 for status in statuses(answer)), answer


@pytest.mark.parametrize(
    "words",
    [
        b"GET /" + b"a" * 6000 + b" HTTP/1.1~Host: DOMAIN~Connection: close~~",
        b"GET / HTTP/1.1~Host: DOMAIN~Cookie: " + b"a" * 6000 + b"~Connection: close~~",
        b"GET / HTTP/1.0~Host: DOMAIN~~",
        b"GET https://DOMAIN/ HTTP/1.1~Host: elsewhere.example~Connection: close~~",
        b"~~GET / HTTP/1.1~Host: DOMAIN~Connection: close~~",
    ],
    ids=["long path", "long cookie", "HTTP/1.0", "absolute address", "empty lines first"],
)
def test_the_unusual_but_right_is_served_as_the_site(words: bytes, server: Server) -> None:
    answer = say(server, words)
    assert statuses(answer) == [200]
    assert f'["Host", "{server.domain}"]'.encode() in answer


@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize("name", ["unknown.example", "127.0.0.1", "localhost", "ADDRESS", "x" * 300, "_", "''"])
def test_an_unknown_host_never_reaches_the_service(name: str, scheme: str, server: Server) -> None:
    name = name.replace("ADDRESS", server.address)
    for address in (b"/", b"https://DOMAIN/"):
        answer = say(server, b"GET " + address + b" HTTP/1.1~Host: DOMAIN~Connection: close~~", scheme, name)
        assert SERVICE not in answer
        assert all(status < 500 for status in statuses(answer)), answer


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_no_host_at_all_never_reaches_the_service(scheme: str, server: Server) -> None:
    assert SERVICE not in say(server, b"GET / HTTP/1.0~~", scheme)


@pytest.mark.parametrize("name", ["unknown.example", None])
def test_an_unknown_name_gets_no_certificate(name: str | None, server: Server) -> None:
    context = server.tls()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((server.address, 443), 30) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(plain, server_hostname=name)


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\nHost: DOMAIN\r\n\r\n",
        NOISE,
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + NOISE[:37],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + NOISE[:505],
        b"\x16\x03\x01\xff\xff" + NOISE,
        b"\x00" * 20_000,
    ],
    ids=["plain HTTP", "noise", "SSL 2", "hello of noise", "record too long", "zeros"],
)
def test_what_is_no_tls_ends_at_the_edge(words: bytes, server: Server) -> None:
    with socket.create_connection((server.address, 443), 30) as plain:
        answer = exchange(plain, words.replace(b"DOMAIN", server.domain.encode()))
    assert SERVICE not in answer
    assert all(status == 400 for status in statuses(answer)), answer


def test_noise_in_http2_ends_at_the_edge(server: Server) -> None:
    context = server.tls()
    context.set_alpn_protocols(["h2"])
    for words in (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + NOISE, NOISE, b"\x00" * 20_000):
        plain = socket.create_connection((server.address, 443), 30)
        with context.wrap_socket(plain, server_hostname=server.domain) as stream:
            assert stream.selected_alpn_protocol() == "h2"
            assert SERVICE not in exchange(stream, words)
