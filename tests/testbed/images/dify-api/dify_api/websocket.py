# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A WebSocket (RFC 6455) on `/socket.io/`: greets as Socket.IO does, then echoes every message."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import secrets
import struct
from typing import BinaryIO

from standin import HttpError, Request, Response

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MAX_PAYLOAD = 1_000_000


def accept_key(key: str) -> str:
    return base64.b64encode(hashlib.sha1(key.encode() + MAGIC).digest()).decode()


def frame(opcode: int, payload: bytes) -> bytes:
    """One unmasked, final frame, as a server sends it."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 127, size)
    return head + payload


def read_frame(stream: BinaryIO) -> tuple[bool, int, bytes]:
    """(final, opcode, payload) of a client's frame; the end of the stream reads as a close."""
    head = stream.read(2)
    if len(head) < 2:
        return True, CLOSE, b""
    size = head[1] & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", stream.read(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", stream.read(8))
    if size > MAX_PAYLOAD:
        return True, CLOSE, struct.pack("!H", 1009)
    mask = stream.read(4) if head[1] & 0x80 else bytes(4)
    payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(stream.read(size)))
    return bool(head[0] & 0x80), head[0] & 0x0F, payload


def echo(reader: BinaryIO, writer: BinaryIO) -> None:
    """Answer until the client closes or goes away."""
    kind, message = TEXT, b""
    while True:
        final, opcode, payload = read_frame(reader)
        if opcode == CLOSE:
            writer.write(frame(CLOSE, payload))
            return
        if opcode == PING:
            writer.write(frame(PONG, payload))
        elif opcode != PONG:
            kind = opcode or kind
            message += payload
            if final:
                writer.write(frame(kind, message))
                message = b""


def serve(request: Request) -> Response:
    """Take the connection over from gunicorn; the error at the end tells it that nothing is left to answer."""
    key = request.header("Sec-WebSocket-Key")
    if request.header("Upgrade").lower() != "websocket" or not key:
        raise HttpError(400, "bad_request", "This is a WebSocket endpoint: send Upgrade: websocket.")
    greeting = {"sid": secrets.token_urlsafe(15), "upgrades": [], "pingInterval": 25000, "pingTimeout": 20000}
    with request.environ["gunicorn.socket"].makefile("rwb", buffering=0) as stream:
        handshake = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept_key(key)}",
        ]
        stream.write("\r\n".join([*handshake, "", ""]).encode())
        stream.write(frame(TEXT, b"0" + json.dumps(greeting).encode()))
        echo(stream, stream)
    raise ConnectionResetError(errno.ECONNRESET, "WebSocket closed")
