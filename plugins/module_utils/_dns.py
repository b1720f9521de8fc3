# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the DNS says of a name: addresses and who may issue certificates (RFC 1035, RFC 8659).

Asks DNS servers itself: the system's resolver would answer from /etc/hosts, and knows nothing of CAA.

Note that this module util is **PRIVATE** to the collection. It can change at any time without notice.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import struct
import typing as t

A, AAAA, CAA = 1, 28, 257
_KNOWN_TAGS = ("issue", "issuewild", "iodef", "issuemail", "issuevmc", "contactemail", "contactphone")


class DnsError(Exception):
    """Why there is no answer, in one sentence."""


def resolvers(text: str) -> list[str]:
    """The DNS servers that resolv.conf names."""
    return re.findall(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE)


def query(name: str, kind: int, servers: t.Sequence[str], timeout: float = 3) -> list[bytes]:
    """The data of a name's records of one kind, behind its aliases; empty when it has none.

    ``servers``: addresses, each with a port or without, asked in turn until one answers. Raises DnsError.
    """
    failure = "no DNS server is known"
    for server in servers:
        try:
            return _ask(name, kind, server, timeout)
        except (OSError, DnsError, struct.error, IndexError) as error:
            failure = f"DNS server {server}: {error or 'no answer'}"
    raise DnsError(failure)


def addresses(name: str, servers: t.Sequence[str]) -> list[str]:
    """All IPv4 and IPv6 addresses of a name."""
    return [str(ipaddress.ip_address(data)) for kind in (A, AAAA) for data in query(name, kind, servers)]


def caa(name: str, servers: t.Sequence[str]) -> list[tuple[int, str, str]]:
    """The CAA records that hold for a name, as flags, tag and value: its own, or those of the nearest parent."""
    labels = name.split(".")
    for depth in range(len(labels)):
        found = query(".".join(labels[depth:]), CAA, servers)
        if found:
            return [
                (
                    data[0],
                    data[2 : 2 + data[1]].decode("ascii", "replace").lower(),
                    data[2 + data[1] :].decode("utf-8", "replace"),
                )
                for data in found
            ]
    return []


def caa_refusal(records: t.Sequence[tuple[int, str, str]], issuer: str) -> str:
    """Why CAA records keep an issuer from a plain name; empty when they permit it."""
    for flags, tag, _value in records:
        if flags & 128 and tag not in _KNOWN_TAGS:
            return f"demands that issuers understand {tag}"
    issuers = [value.split(";")[0].strip().lower() for _flags, tag, value in records if tag == "issue"]
    if issuers and issuer.lower() not in issuers:
        return f"permits {', '.join(filter(None, issuers)) or 'nobody'}"
    return ""


def foreign(found: t.Iterable[str], own: t.Iterable[str]) -> tuple[list[str], list[str]]:
    """The addresses that are not this host's, and those of which that cannot be told.

    A host behind NAT has private addresses alone, so nothing can be said about the public address of a name.
    """
    mine = {ipaddress.ip_address(address) for address in own}
    known = {address.version for address in mine if address.is_global}
    wrong: list[str] = []
    unclear: list[str] = []
    for text in found:
        address = ipaddress.ip_address(text)
        if address not in mine:
            (unclear if address.is_global and address.version not in known else wrong).append(text)
    return wrong, unclear


def _ask(name: str, kind: int, server: str, timeout: float) -> list[bytes]:
    host, port = _endpoint(server)
    number = os.urandom(2)
    question = b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.split(".")) + b"\0"
    packet = number + struct.pack(">5H", 0x0100, 1, 0, 0, 0) + question + struct.pack(">2H", kind, 1)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as connection:
        connection.settimeout(timeout)
        connection.connect((host, port))
        connection.send(packet)
        answer = connection.recv(65535)
    if answer[:2] != number:
        raise DnsError("an answer to another question")
    flags, _questions, count = struct.unpack_from(">3H", answer, 2)
    if flags & 15 == 3:
        return []
    if flags & 15:
        raise DnsError(f"answers with code {flags & 15}")
    return list(_records(answer, len(packet), count, kind))


def _records(answer: bytes, offset: int, count: int, kind: int) -> t.Iterator[bytes]:
    for _record in range(count):
        offset = _behind_name(answer, offset)
        found, _class, _ttl, length = struct.unpack_from(">2HIH", answer, offset)
        offset += 10
        if found == kind:
            yield answer[offset : offset + length]
        offset += length


def _behind_name(answer: bytes, offset: int) -> int:
    while answer[offset]:
        if answer[offset] & 0xC0:
            return offset + 2
        offset += 1 + answer[offset]
    return offset + 1


def _endpoint(server: str) -> tuple[str, int]:
    match = re.fullmatch(r"\[(.+)\]:(\d+)|([^:]+):(\d+)", server)
    if not match:
        return server.strip("[]"), 53
    return match[1] or match[3], int(match[2] or match[4])
