# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Worker and beat: a process that holds on to the broker, tells it that it lives, and runs no tasks.

Its heartbeat is the key `standin:<mode>:<hostname>` in the broker, which expires soon after the process ends.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

import redis
from standin import log

from dify_api.database import UNVERIFIED

HEARTBEAT_SECONDS = 5


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


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    url = os.environ.get("CELERY_BROKER_URL") or "redis://localhost:6379/1"
    encrypted = UNVERIFIED if url.startswith("rediss://") else {}
    run(os.environ["MODE"], redis.Redis.from_url(url, decode_responses=True, **encrypted))
