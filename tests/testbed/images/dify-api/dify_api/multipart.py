# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of a `multipart/form-data` body."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message


@dataclass(frozen=True)
class Part:
    name: str
    filename: str
    content_type: str
    content: bytes


def header(value: str, name: str = "Content-Type") -> Message:
    message = Message()
    message[name] = value
    return message


def parse(content_type: str, body: bytes) -> Iterator[Part]:
    """The parts in order; a body of another type has none."""
    boundary = header(content_type).get_param("boundary")
    if not isinstance(boundary, str):
        return
    for piece in (b"\r\n" + body).split(b"\r\n--" + boundary.encode())[1:-1]:
        head, _blank, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        fields = {name.lower(): value for name, value in fields.items()}
        disposition = header(fields.get("content-disposition", ""), "Content-Disposition")
        yield Part(
            name=str(disposition.get_param("name", "", "Content-Disposition")),
            filename=str(disposition.get_param("filename", "", "Content-Disposition")),
            content_type=fields.get("content-type", "application/octet-stream"),
            content=content,
        )
