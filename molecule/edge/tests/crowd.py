# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many clients of one server: `crowd.py DOMAIN COUNT [WORDS]` connects them and keeps them connected.

Without WORDS they say nothing. With WORDS each speaks TLS and says them, `~` being a line's end. Then standard output
has the number of those for which it went well, and each line of standard input is said by all, with the same answer.
The end of standard input ends them all.
"""

from __future__ import annotations

import contextlib
import functools
import resource
import socket
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor

DOMAIN, COUNT = sys.argv[1], int(sys.argv[2])
# A TLS 1.2 session that is resumed costs both sides next to nothing: it is connections that are counted here.
CONTEXT = ssl.create_default_context()
CONTEXT.check_hostname, CONTEXT.verify_mode = False, ssl.CERT_NONE
CONTEXT.maximum_version = ssl.TLSVersion.TLSv1_2


def connect() -> socket.socket:
    return socket.create_connection((DOMAIN, 443), timeout=60)


def secured(plain: socket.socket, session: ssl.SSLSession | None) -> ssl.SSLSocket:
    return CONTEXT.wrap_socket(plain, server_hostname=DOMAIN, session=session)


def client(_number: int, words: bytes, session: ssl.SSLSession | None) -> socket.socket | None:
    with contextlib.suppress(OSError):
        stream = connect()
        if words:
            stream = secured(stream, session)
            stream.sendall(words)
        return stream
    return None


def took(stream: socket.socket, words: bytes) -> bool:
    with contextlib.suppress(OSError):
        stream.sendall(words)
        return True
    return False


def main() -> None:
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))
    words = "".join(sys.argv[3:]).replace("~", "\r\n").encode()
    session = secured(connect(), None).session if words else None
    with ThreadPoolExecutor(8) as pool:
        made = pool.map(functools.partial(client, words=words, session=session), range(COUNT))
        streams = [stream for stream in made if stream]
    print(len(streams), flush=True)
    for line in sys.stdin:
        words = line.rstrip("\n").replace("~", "\r\n").encode()
        print(sum(took(stream, words) for stream in streams), flush=True)


main()
