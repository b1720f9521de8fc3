# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What bench_backup.py does on the host itself, as root: fills it, uses it for a day, runs a command and measures it.

``fill BYTES``: uploads 60 %, plugins 5 % in small files, vectors 25 %, databases 10 %.
``change BYTES DAY``: what a day brings: about 1 % of that, new or changed.
``clear``: removes what those two made.
``measure COMMAND``: from a cold cache, until all is on the disk: seconds, and peak memory in bytes.
``used COMMAND``: the same while the vector store's log grows, so that its second copy has something to read.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

PROJECT = Path("/opt/dify/docker")
STORAGE = PROJECT / "volumes/app/storage/upload_files/bench"
PLUGINS = PROJECT / "volumes/plugin_daemon/cwd/bench"
VECTORS = PROJECT / "volumes/weaviate/bench"
DATABASES = {"dify": 0.09, "dify_plugin": 0.01}
SEGMENT = 128 << 20
ROW = 1000
# Rows of a kilobyte, half of which is chance.
TABLE = "CREATE TABLE bench (id bigint PRIMARY KEY, made timestamptz NOT NULL DEFAULT now(), content text NOT NULL);"
ROWS = """INSERT INTO bench (id, content)
SELECT n, (SELECT string_agg(md5(n || ':' || m), ' ') FROM generate_series(1, 29) m) FROM generate_series({}, {}) n;"""
# Tools that run in the database's container.
TOOLS = {"pg_dump", "pg_dumpall", "pg_restore", "psql"}


def sql(database: str, statements: str) -> None:
    command = ["docker", "compose", "exec", "-T", "db_postgres", "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-U"]
    subprocess.run([*command, "postgres", "-d", database], input=statements, text=True, cwd=PROJECT, check=True)


def uploads(name: str, total: int, chance: random.Random) -> None:
    """Files of 100 kB to 20 MB, as many small as large ones by the logarithm, that cannot be compressed."""
    directory = STORAGE / name
    directory.mkdir(parents=True)
    number = 0
    while total > 0:
        size = min(int(100e3 * 200 ** chance.random()), total)
        (directory / f"{number:06}").write_bytes(os.urandom(size))
        total -= size
        number += 1


def plugins(count: int, every: int, chance: random.Random) -> None:
    """Small files of text, 10 kB in the middle; every so many of them."""
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz_", k=chance.randint(2, 10))) for _unused in range(5000)]
    text = " ".join(chance.choices(words, k=500000)).encode()
    for number in range(0, count, every):
        directory = PLUGINS / f"{number % 500:03}"
        directory.mkdir(parents=True, exist_ok=True)
        size = min(int(chance.lognormvariate(9, 0.7)), 1 << 20)
        offset = chance.randrange(len(text) - size)
        (directory / f"{number}.py").write_bytes(text[offset : offset + size])


def vectors(name: str, total: int) -> None:
    """Segments, which stay as they are once written; each new one is told of in a log that grows."""
    VECTORS.mkdir(parents=True, exist_ok=True)
    with (VECTORS / "commitlog").open("ab") as log:
        log.write(os.urandom(total // 10))
    total -= total // 10
    for number in range(-(-total // SEGMENT)):
        with (VECTORS / f"segment-{name}-{number}.db").open("wb") as file:
            for _unused in range(min(SEGMENT, total - number * SEGMENT) >> 20):
                file.write(os.urandom(1 << 20))


def count(size: int) -> int:
    """Plugin files: 50 000 with 10 GB."""
    return size // 200000


def fill(size: int) -> None:
    chance = random.Random(7)
    uploads("0", int(size * 0.6), chance)
    plugins(count(size), 1, chance)
    vectors("0", int(size * 0.25))
    for database, share in DATABASES.items():
        sql(database, TABLE + ROWS.format(1, int(size * share / ROW)) + "ANALYZE bench;")


def change(size: int, day: int) -> None:
    """New uploads, vectors and rows, plugins that were updated, and rows of late that changed."""
    chance = random.Random(day)
    uploads(str(day), int(size * 0.006), chance)
    plugins(count(size), 100, chance)
    vectors(str(day), int(size * 0.003))
    for database, share in DATABASES.items():
        rows = int(size * share / ROW)
        first = rows + rows // 100 * (day - 1)
        newer = ROWS.format(first + 1, first + rows // 100)
        sql(database, f"UPDATE bench SET made = now() WHERE id > {first - rows // 1000};" + newer)


def clear() -> None:
    for path in (STORAGE, PLUGINS, VECTORS):
        shutil.rmtree(path, ignore_errors=True)
    for database in DATABASES:
        sql(database, "SET client_min_messages = warning; DROP TABLE IF EXISTS bench;")


def memory(root: int) -> int:
    """Bytes in memory of a process, of all below it, and of what it runs in the database's container."""
    parents, names, sizes = {}, {}, {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            line = (directory / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        head, _parenthesis, tail = line.rpartition(")")
        fields, one = tail.split(), int(directory.name)
        names[one] = head.partition("(")[2]
        parents[one], sizes[one] = int(fields[1]), int(fields[21]) * os.sysconf("SC_PAGE_SIZE")

    def mine(one: int) -> bool:
        return one == root or (one in parents and mine(parents[one]))

    return sum(size for one, size in sizes.items() if names[one] in TOOLS or mine(one))


def grow(enough: threading.Event) -> None:
    while not enough.wait(0.5):
        with (VECTORS / "commitlog").open("ab") as log:
            log.write(os.urandom(1 << 12))


def measure(command: str, used: bool) -> None:
    enough = threading.Event()
    if used:
        threading.Thread(target=grow, args=[enough]).start()
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
    peak = 0
    with tempfile.TemporaryFile("w+") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            ["sh", "-ec", command], cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(0.1)
        enough.set()
        os.sync()
        seconds = time.monotonic() - began
        output.seek(0)
        said = output.read()
    if process.returncode:
        sys.exit(f"{command} ended with {process.returncode}: {said[-2000:]}")
    print(json.dumps({"seconds": seconds, "memory": peak, "said": said}))


if __name__ == "__main__":
    _script, what, *given = sys.argv
    if what == "fill":
        fill(int(given[0]))
    elif what == "change":
        change(int(given[0]), int(given[1]))
    elif what == "clear":
        clear()
    else:
        measure(given[0], used=what == "used")
