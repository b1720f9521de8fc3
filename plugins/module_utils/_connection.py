# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use it from outside selfhost.dify.

"""Knocking at services: TCP, TLS where asked, and a sign-in and a question where the protocol is simple enough."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import io
import os
import socket
import ssl
import struct
import typing as t


class Refused(Exception):
    """The service answered, and said no; the message is its own, and so is C(code), where it has one."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class Connection(t.NamedTuple):
    """Where to knock. ``verify``: whether the certificate must be trusted and name the host."""

    protocol: str
    host: str
    port: int
    tls: bool = False
    verify: bool = False
    user: str = ""
    password: str = ""
    database: str = ""


def knock(target: Connection, timeout: float) -> str:
    """Why the service cannot be used, or an empty string where it can."""
    try:
        with socket.create_connection((target.host, target.port), timeout) as plain:
            _PROTOCOLS[target.protocol](target, plain)
    except Refused as error:
        return str(error)
    except ssl.SSLCertVerificationError as error:
        return "its certificate is not trusted: {0}".format(error.verify_message)
    except ssl.SSLError as error:
        return "it does not speak TLS as asked: {0}".format(error.reason or error)
    except socket.timeout:
        return "no answer within {0:g} seconds".format(timeout)
    except (OSError, http.client.HTTPException) as error:
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ""


def query(target: Connection, statement: str, timeout: float) -> list[list[str | None]]:
    """The rows that a PostgreSQL server answers one statement with, as text. Raises Refused and OSError."""
    with socket.create_connection((target.host, target.port), timeout) as plain:
        stream = _sign_in(target, plain)
        body = statement.encode() + b"\0"
        stream.write(b"Q" + struct.pack("!i", len(body) + 4) + body)
        rows: list[list[str | None]] = []
        while True:
            kind, body = _message(stream)
            if kind == b"D":
                rows.append(_row(body))
            if kind == b"Z":
                _postgresql_ends(stream)
                return rows


def redis_stream(target: Connection, plain: socket.socket) -> t.IO[bytes]:
    """A signed-in connection to Redis, to be used with C(redis_command). Raises Refused and OSError."""
    stream = t.cast("t.IO[bytes]", _secured(target, plain).makefile("rwb"))
    if target.password:
        redis_command(stream, "AUTH", *([target.user] if target.user else []), target.password)
    return stream


def redis_command(stream: t.IO[bytes], *words: str) -> t.Any:
    """What Redis answers a command: text, a number, nothing, or a list of these. Raises Refused and OSError."""
    stream.write("*{0}\r\n".format(len(words)).encode())
    for word in words:
        raw = word.encode()
        stream.write("${0}\r\n".format(len(raw)).encode() + raw + b"\r\n")
    stream.flush()
    return _redis_answer(stream)


def _redis_answer(stream: t.IO[bytes]) -> t.Any:
    line = stream.readline(65536).decode("utf-8", "replace").strip()
    kind, rest = line[:1], line[1:]
    if kind == "+":
        return rest
    if kind == ":":
        return int(rest)
    if kind == "$":
        return _exactly(stream, int(rest) + 2)[:-2].decode("utf-8", "replace") if rest != "-1" else None
    if kind == "*":
        return [_redis_answer(stream) for _unused in range(int(rest))] if rest != "-1" else None
    if kind == "-":
        raise Refused(rest, rest.split(" ")[0])
    raise Refused(line or "it closed the connection, as it does when it expects TLS")


def _wrap(target: Connection, plain: socket.socket) -> socket.socket:
    context = ssl.create_default_context()
    if not target.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain, server_hostname=target.host)


def _secured(target: Connection, plain: socket.socket) -> socket.socket:
    return _wrap(target, plain) if target.tls else plain


def _tcp(target: Connection, plain: socket.socket) -> None:
    _secured(target, plain)


def _http(target: Connection, plain: socket.socket) -> None:
    """Any answer will do: what an object store says to a stranger differs."""
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.sock = _secured(target, plain)
    connection.request("HEAD", "/")
    connection.getresponse()


def _redis(target: Connection, plain: socket.socket) -> None:
    redis_command(redis_stream(target, plain), "PING")


def _mysql(target: Connection, plain: socket.socket) -> None:
    """The greeting alone: it says whether this host may connect."""
    stream = plain.makefile("rb")
    header = _exactly(stream, 4)
    body = _exactly(stream, int.from_bytes(header[:3], "little"))
    if body[:1] == b"\xff":
        raise Refused(body[3:].decode("utf-8", "replace"))
    if body[:1] != b"\x0a":
        raise Refused("it does not greet as a MySQL server does")


def _postgresql(target: Connection, plain: socket.socket) -> None:
    _postgresql_ends(_sign_in(target, plain))


def _postgresql_ends(stream: t.IO[bytes]) -> None:
    stream.write(b"X" + struct.pack("!i", 4))
    stream.flush()


def _sign_in(target: Connection, plain: socket.socket) -> t.IO[bytes]:
    """Signs in as protocol 3.0 has it, in clear text, with MD5 or with SCRAM-SHA-256; through TLS where offered."""
    plain.sendall(struct.pack("!ii", 8, 80877103))
    offered = plain.recv(1)
    if offered == b"S":
        plain = _wrap(target, plain)
    elif offered != b"N":
        raise Refused("it does not answer as a PostgreSQL server does")
    elif target.tls:
        raise Refused("it offers no TLS")
    stream = t.cast("t.IO[bytes]", plain.makefile("rwb"))
    options = {"user": target.user, "database": target.database, "application_name": "selfhost.dify"}
    startup = struct.pack("!i", 196608)
    startup += b"".join(key.encode() + b"\0" + value.encode() + b"\0" for key, value in options.items()) + b"\0"
    stream.write(struct.pack("!i", len(startup) + 4) + startup)
    scram = _Scram(target.password)
    while True:
        kind, body = _message(stream)
        if kind == b"Z":
            return stream
        if kind == b"R":
            answer = _answer(target, scram, struct.unpack("!i", body[:4])[0], body[4:])
            if answer is not None:
                stream.write(b"p" + struct.pack("!i", len(answer) + 4) + answer)


def _message(stream: t.IO[bytes]) -> tuple[bytes, bytes]:
    """The next message's kind and body. Raises Refused for an error, and for what PostgreSQL never says."""
    stream.flush()
    kind = _exactly(stream, 1)
    if kind not in b"RSKNZETDCI":
        raise Refused("it does not answer as a PostgreSQL server does")
    body = _exactly(stream, struct.unpack("!i", _exactly(stream, 4))[0] - 4)
    if kind == b"E":
        fields = {field[:1]: field[1:].decode("utf-8", "replace") for field in body.split(b"\0") if field}
        raise Refused(fields.get(b"M", "it refused without a reason"), fields.get(b"C", ""))
    return kind, body


def _row(body: bytes) -> list[str | None]:
    """The columns of a row in text format."""
    row: list[str | None] = []
    position = 2
    for _unused in range(struct.unpack("!h", body[:2])[0]):
        length = struct.unpack("!i", body[position : position + 4])[0]
        position += 4
        row.append(body[position : position + length].decode("utf-8", "replace") if length >= 0 else None)
        position += max(length, 0)
    return row


def _answer(target: Connection, scram: _Scram, request: int, body: bytes) -> bytes | None:
    """What to send to an authentication request; nothing to those that only tell."""
    if request in (0, 12):
        return None
    if request == 3:
        return target.password.encode() + b"\0"
    if request == 5:
        inner = hashlib.md5((target.password + target.user).encode()).hexdigest()  # noqa: S324
        return b"md5" + hashlib.md5(inner.encode() + body[:4]).hexdigest().encode() + b"\0"  # noqa: S324
    if request == 10:
        if b"SCRAM-SHA-256" not in body.split(b"\0"):
            raise Refused("it asks for a way to sign in that is not supported here")
        first = scram.first()
        return b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first
    if request == 11:
        return scram.final(body)
    raise Refused("it asks for a way to sign in that is not supported here")


class _Scram:
    """The client's half of SCRAM-SHA-256 (RFC 7677), for passwords that need no preparation."""

    def __init__(self, password: str) -> None:
        self.password = password.encode()
        self.bare = b"n=,r=" + base64.b64encode(os.urandom(18))

    def first(self) -> bytes:
        return b"n,," + self.bare

    def final(self, challenge: bytes) -> bytes:
        given = dict(part.split(b"=", 1) for part in challenge.split(b","))
        salted = hashlib.pbkdf2_hmac("sha256", self.password, base64.b64decode(given[b"s"]), int(given[b"i"]))
        key = hmac.new(salted, b"Client Key", "sha256").digest()
        unproven = b"c=biws,r=" + given[b"r"]
        signed = b",".join([self.bare, challenge, unproven])
        signature = hmac.new(hashlib.sha256(key).digest(), signed, "sha256").digest()
        proof = bytes(a ^ b for a, b in zip(key, signature))
        return unproven + b",p=" + base64.b64encode(proof)


def _exactly(stream: t.IO[bytes] | io.BufferedReader, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise Refused("it closed the connection")
    return data


_PROTOCOLS: dict[str, t.Callable[[Connection, socket.socket], None]] = {
    "tcp": _tcp,
    "http": _http,
    "redis": _redis,
    "mysql": _mysql,
    "postgresql": _postgresql,
}
