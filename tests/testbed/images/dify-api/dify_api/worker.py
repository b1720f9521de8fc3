# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Worker and beat: a process that holds on to the broker, tells it that it lives, and runs no tasks.

Its heartbeat is the key `standin:<mode>:<hostname>` in the broker, which expires soon after the process ends. A worker
answers a Celery ping as real ones do: kombu's pidbox, whose messages are JSON.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import sys
import threading
import time
import uuid

import redis
from standin import log

from dify_api.database import UNVERIFIED

HEARTBEAT_SECONDS = 5
PREFIX = f"{prefix}:" if (prefix := os.environ.get("REDIS_KEY_PREFIX", "").strip()) else ""


def run(mode: str, broker: redis.Redis) -> None:
    key = f"standin:{mode}:{socket.gethostname()}"
    connected = False
    while True:
        try:
            broker.set(key, int(time.time()), ex=3 * HEARTBEAT_SECONDS)
            if not connected:
                log(f"{mode} of the testbed's stand-in is ready.")
            connected = True
            broker.blpop([f"standin:{mode}:tasks"], timeout=HEARTBEAT_SECONDS)
        except redis.RedisError as error:
            log(f"{mode}: Cannot connect to the broker, trying again: {error}")
            connected = False
            time.sleep(1)


def answer_pings(broker: redis.Redis) -> None:
    """What a Celery worker says to `celery inspect ping`, until the process ends."""
    number = broker.connection_pool.connection_kwargs.get("db", 0)
    while True:
        try:
            listener = broker.pubsub(ignore_subscribe_messages=True)
            listener.subscribe(f"{PREFIX}/{number}.celery.pidbox")
            for message in listener.listen():
                asked = json.loads(base64.b64decode(json.loads(message["data"])["body"]))
                if asked["method"] == "ping":
                    pong(broker, asked)
        except redis.RedisError:
            time.sleep(1)


def pong(broker: redis.Redis, asked: dict) -> None:
    exchange, routing_key = asked["reply_to"]["exchange"], asked["reply_to"]["routing_key"]
    said = json.dumps({f"celery@{socket.gethostname()}": {"ok": "pong"}})
    properties = {
        "delivery_mode": 2,
        "delivery_info": {"exchange": exchange, "routing_key": routing_key},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid.uuid4()),
    }
    reply = {
        "body": base64.b64encode(said.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"ticket": asked["ticket"], "clock": 1},
        "properties": properties,
    }
    for binding in broker.smembers(f"{PREFIX}_kombu.binding.{exchange}"):
        bound, _pattern, queue = binding.split("\x06\x16")
        if bound == routing_key:
            broker.lpush(PREFIX + queue, json.dumps(reply))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    url = os.environ.get("CELERY_BROKER_URL") or "redis://localhost:6379/1"
    encrypted = UNVERIFIED if url.startswith("rediss://") else {}
    client = redis.Redis.from_url(url, decode_responses=True, **encrypted)
    if os.environ["MODE"] == "worker":
        threading.Thread(target=answer_pings, args=[client], daemon=True).start()
    run(os.environ["MODE"], client)
