# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of a DNS server and made of its answers; the server is a socket that answers what a test says."""

from __future__ import annotations

import socket
import struct
import threading
import typing as t

import pytest
from ansible_collections.selfhost.dify.plugins.module_utils import _dns

Answers = dict[tuple[str, int], t.Union[list[bytes], int]]


def encoded(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


@pytest.fixture
def serve() -> t.Iterator[t.Callable[[Answers], str]]:
    """Starts a DNS server that knows records by name and kind (or the code of a failure); returns its address."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 0))

    threads: list[threading.Thread] = []

    def answer(known: Answers) -> None:
        while True:
            packet, client = listener.recvfrom(512)
            if not packet:
                return
            question = packet[12:]
            labels, offset = [], 0
            while question[offset]:
                labels.append(question[offset + 1 : offset + 1 + question[offset]].decode())
                offset += 1 + question[offset]
            (kind,) = struct.unpack_from(">H", question, offset + 1)
            found = known.get((".".join(labels), kind), 3)
            code, records = (found, []) if isinstance(found, int) else (0, found)
            reply = packet[:2] + struct.pack(">5H", 0x8180 | code, 1, len(records) + 1, 0, 0) + question
            alias = encoded("alias.test")
            reply += b"\xc0\x0c" + struct.pack(">2HIH", 5, 1, 60, len(alias)) + alias
            for data in records:
                reply += encoded("alias.test") + struct.pack(">2HIH", kind, 1, 60, len(data)) + data
            listener.sendto(reply, client)

    def start(known: Answers) -> str:
        threads.append(threading.Thread(target=answer, args=(known,), daemon=True))
        threads[-1].start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield start
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ender:
        ender.sendto(b"", listener.getsockname())
    for thread in threads:
        thread.join()
    listener.close()


def caa(tag: str, value: str, flags: int = 0) -> bytes:
    return bytes([flags, len(tag)]) + tag.encode() + value.encode()


def test_addresses_of_both_kinds_behind_an_alias(serve: t.Callable[[Answers], str]) -> None:
    six = socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    server = serve({("a.test", _dns.A): [b"\xc0\0\x02\x01", b"\xc0\0\x02\x02"], ("a.test", _dns.AAAA): [six]})
    assert _dns.addresses("a.test", [server]) == ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
    assert _dns.addresses("b.test", [server]) == []


def test_the_nearest_caa_records_hold(serve: t.Callable[[Answers], str]) -> None:
    server = serve(
        {("a.b.test", _dns.CAA): [], ("b.test", _dns.CAA): [caa("issue", "ca.example; x=y")], ("test", 257): 2}
    )
    assert _dns.caa("a.b.test", [server]) == [(0, "issue", "ca.example; x=y")]
    with pytest.raises(_dns.DnsError, match="answers with code 2"):
        _dns.caa("c.test", [server])


def test_the_next_server_is_asked_when_one_fails(serve: t.Callable[[Answers], str]) -> None:
    server = serve({("a.test", _dns.A): [b"\xc0\0\x02\x01"]})
    assert _dns.query("a.test", _dns.A, ["127.0.0.1:9", server], 1) == [b"\xc0\0\x02\x01"]
    with pytest.raises(_dns.DnsError, match="no DNS server is known"):
        _dns.query("a.test", _dns.A, [])


@pytest.mark.parametrize(
    ("records", "refusal"),
    [
        ([], ""),
        ([(0, "issue", "letsencrypt.org")], ""),
        ([(0, "issue", "other.example"), (0, "issue", "LetsEncrypt.org ; validationmethods=http-01")], ""),
        ([(0, "iodef", "mailto:a@b.example"), (0, "issuewild", "other.example")], ""),
        ([(0, "issue", "other.example")], "permits other.example"),
        ([(0, "issue", ";")], "permits nobody"),
        ([(128, "unheard", "x"), (0, "issue", "letsencrypt.org")], "demands that issuers understand unheard"),
    ],
)
def test_whom_caa_records_permit(records: list[tuple[int, str, str]], refusal: str) -> None:
    assert _dns.caa_refusal(records, "letsencrypt.org") == refusal


@pytest.mark.parametrize(
    ("found", "own", "wrong", "unclear"),
    [
        (["8.8.8.8"], ["10.0.0.2", "8.8.8.8"], [], []),
        (["8.8.4.4"], ["8.8.8.8"], ["8.8.4.4"], []),
        (["8.8.4.4"], ["10.0.0.2", "fe80::1"], [], ["8.8.4.4"]),
        (["10.0.0.3"], ["10.0.0.2"], ["10.0.0.3"], []),
        (["8.8.8.8", "2606:4700::1"], ["8.8.8.8", "2a00:1450::1"], ["2606:4700::1"], []),
        (["8.8.8.8", "2606:4700::1"], ["8.8.8.8"], [], ["2606:4700::1"]),
    ],
)
def test_whose_an_address_is(found: list[str], own: list[str], wrong: list[str], unclear: list[str]) -> None:
    assert _dns.foreign(found, own) == (wrong, unclear)


def test_servers_of_the_system() -> None:
    text = "# nameserver 9.9.9.9\nsearch example.com\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n"
    assert _dns.resolvers(text) == ["192.0.2.53", "2001:db8::53"]
    assert [
        _dns._endpoint(server) for server in ("192.0.2.53", "2001:db8::53", "[2001:db8::53]:5353", "192.0.2.1:54")
    ] == [
        ("192.0.2.53", 53),
        ("2001:db8::53", 53),
        ("2001:db8::53", 5353),
        ("192.0.2.1", 54),
    ]
