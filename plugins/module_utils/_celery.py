# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use it from outside selfhost.dify.

"""Asks Celery's workers through Redis whether they are there, as C(celery inspect ping) does.

That command takes many seconds in Dify's containers, since it loads the application first; its protocol is a message
in JSON and an answer in JSON. Source: kombu's C(pidbox) and C(transport/redis), 4.x to 5.x.
"""

from __future__ import annotations

import base64
import json
import socket
import time
import typing as t
import uuid
from urllib.parse import unquote, urlsplit

from ansible_collections.selfhost.dify.plugins.module_utils._connection import (
    Connection,
    Refused,
    redis_command,
    redis_stream,
)

REPLIES = "reply.celery.pidbox"
_SEPARATOR = "\x06\x16"


class Broker(t.NamedTuple):
    """Where Celery's messages are. ``number``: the database; ``prefix``: of every key."""

    connection: Connection
    number: int
    prefix: str


def broker(url: str, key_prefix: str = "") -> Broker | None:
    """The broker at C(CELERY_BROKER_URL) with Dify's C(REDIS_KEY_PREFIX); None where it is no single Redis."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        return None
    account = (unquote(parts.username or ""), unquote(parts.password or ""))
    target = Connection("redis", parts.hostname, parts.port or 6379, parts.scheme == "rediss", False, *account)
    prefix = key_prefix.strip()
    return Broker(target, int(parts.path.strip("/") or 0), prefix + ":" if prefix else "")


def ping(target: Broker, timeout: float) -> list[str]:
    """Names of the workers that answer. Waits for all that listen, at most ``timeout`` seconds.

    Takes its two keys out of Redis again. Raises Refused, with Redis's own words, and OSError.
    """
    ticket, queue = str(uuid.uuid4()), str(uuid.uuid4())
    answers = "{0}{1}.{2}".format(target.prefix, queue, REPLIES)
    binding = "{0}_kombu.binding.{1}".format(target.prefix, REPLIES)
    member = _SEPARATOR.join([queue, "", "{0}.{1}".format(queue, REPLIES)])
    found: list[str] = []
    until = time.monotonic() + timeout
    with socket.create_connection((target.connection.host, target.connection.port), timeout) as plain:
        stream = redis_stream(target.connection, plain)
        redis_command(stream, "SELECT", str(target.number))
        redis_command(stream, "SADD", binding, member)
        try:
            channel = "{0}/{1}.celery.pidbox".format(target.prefix, target.number)
            listening = redis_command(stream, "PUBLISH", channel, message(ticket, queue, timeout))
            while len(found) < listening and time.monotonic() < until - 0.1:
                popped = redis_command(stream, "BRPOP", answers, "{0:.1f}".format(until - 0.1 - time.monotonic()))
                found += workers(popped[1]) if popped else []
        finally:
            redis_command(stream, "SREM", binding, member)
            redis_command(stream, "DEL", answers)
    return sorted(found)


def message(ticket: str, queue: str, timeout: float) -> str:
    """The broadcast that every worker answers."""
    reply_to = {"exchange": REPLIES, "routing_key": queue}
    nobody: dict[str, t.Any] = {"arguments": {}, "destination": None, "pattern": None, "matcher": None}
    body = json.dumps({"method": "ping", **nobody, "ticket": ticket, "reply_to": reply_to})
    properties = {
        "delivery_mode": 2,
        "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid.uuid4()),
    }
    envelope = {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"clock": 1, "expires": time.time() + timeout},
        "properties": properties,
    }
    return json.dumps(envelope)


def workers(answer: str) -> list[str]:
    """Names of the workers in one answer; those that do not say "pong" are left out."""
    try:
        body = json.loads(base64.b64decode(json.loads(answer)["body"]))
        return [name for name, said in body.items() if said == {"ok": "pong"}]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused("a worker answers in a way that is not Celery's") from error
