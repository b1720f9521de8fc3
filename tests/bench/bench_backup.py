# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures backup and restore beside upstream's way, and prints a table; judges the goals, and ends well either way.

It fills a server with mixed data, backs it up, backs it up again after each of some days of 1 % change, and then does
what upstream documents: `docker compose down`, a plain tar of `volumes`, `up`. Meanwhile a client asks the API ten
times a second through the edge. At last it empties the server and restores it, first by `tar -x` and `pg_restore`,
then from the backup. The repository is a directory on the same disk. Each measurement starts from a cold cache and
ends when all is on the disk. The server is the demonstration's, made if it is missing, or one of an inventory; all its
data are the bench's to destroy, so a domain that does not end in .test is refused. It wants an idle machine, and three
times SIZE of free disk.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTBED = ROOT / "tests/testbed"
sys.path.insert(0, str(TESTBED))

import demo  # noqa: E402

ENVIRONMENT = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
CACHE = ROOT / ".cache/bench"
ON_HOST = Path(__file__).with_name("backup_host.py").read_text(encoding="utf-8")
PLACE = "/srv/bench"
UNITS = {"M": 10**6, "G": 10**9}
# Whoever waits longer than this was not answered.
PATIENCE = 900

TAR = f"docker compose down && tar -cf {PLACE}/volumes.tar volumes && docker compose up -d"
DUMP = "docker compose exec -T db_postgres pg_dump -U postgres -Fc {0} >" + PLACE + "/{0}.dump; "
LOAD = "docker compose exec -T db_postgres pg_restore -U postgres -d {0} <" + PLACE + "/{0}.dump; "
# Redis and the files of PostgreSQL's are not restored by the program either.
UNTAR = f"tar -xpf {PLACE}/volumes.tar --exclude=volumes/db --exclude=volumes/redis; "
UNTAR += "docker compose up -d --wait --no-deps db_postgres; "
UNTAR += "docker compose exec -T db_postgres createdb -U postgres dify_plugin; " + LOAD.format("dify")
UNTAR += LOAD.format("dify_plugin")
EMPTY = "docker compose down; rm -rf volumes; git checkout -q -- ."
# Its named volumes are in the backup, so a restore would refuse them.
VOLUMES = "docker volume ls --quiet --filter label=com.docker.compose.project=dify"
BARE = f"docker compose down; {VOLUMES} | xargs --no-run-if-empty docker volume rm; "
BARE += "git clean -qxdff . && git checkout -q -- ."


class Figures(t.NamedTuple):
    """Seconds, peak memory in bytes, and of a backup how long users waited: as a client saw it, and as it said."""

    seconds: float
    memory: float
    outside: float = 0.0
    own: float = 0.0


class Host:
    """The host of an inventory, by SSH as Ansible reaches it."""

    def __init__(self, inventory: str) -> None:
        self.inventory = inventory
        command = [tool("ansible-inventory"), "--inventory", inventory, "--list"]
        listed = json.loads(subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, check=True).stdout)
        hosts = listed["_meta"]["hostvars"]
        if len(hosts) != 1:
            raise SystemExit(f"{inventory} names {len(hosts)} hosts, expected one: {', '.join(hosts) or 'none'}")
        ((self.name, self.variables),) = hosts.items()
        self.domain = self.variables.get("dify_domain", "")
        # One for all questions, since a client that takes a third of a processor slows what it measures.
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE
        self.address = self.variables.get("ansible_host", self.name)
        if not self.domain.endswith(".test"):
            raise SystemExit(
                f"dify_domain of {self.name} is {self.domain!r}, expected a name that ends in .test: "
                "this destroys the server's data"
            )

    def ssh(self, *command: str, given: str = "") -> str:
        key, user = self.variables.get("ansible_ssh_private_key_file"), self.variables.get("ansible_user")
        words = ["ssh", *(["-i", key] if key else []), *(["-l", user] if user else [])]
        words += [*shlex.split(self.variables.get("ansible_ssh_common_args", "")), self.address, shlex.join(command)]
        done = subprocess.run(words, input=given, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{self.name}: {shlex.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def shell(self, script: str) -> str:
        """What a script prints, run by root in Dify's directory."""
        return self.ssh("sudo", "sh", "-ec", f"cd /opt/dify/docker; {script}")

    def do(self, what: str, *numbers: int) -> None:
        self.ssh("sudo", "python3", "-", what, *map(str, numbers), given=ON_HOST)

    def measure(self, command: str, how: str = "measure") -> tuple[Figures, str]:
        found = json.loads(self.ssh("sudo", "python3", "-", how, command, given=ON_HOST))
        return Figures(found["seconds"], found["memory"]), found["said"]

    def prepare(self) -> None:
        """Installs the backup with an empty repository. The clock starts nothing."""
        self.ssh("sudo", "rm", "-rf", PLACE, "/etc/selfhost-dify-backup", "/var/cache/selfhost-dify-backup")
        self.ssh("sudo", "mkdir", PLACE)
        CACHE.mkdir(parents=True, exist_ok=True)
        escrow = CACHE / "escrow"
        escrow.unlink(missing_ok=True)
        variables = {
            "backup_repository": f"{PLACE}/repository",
            "backup_password_escrow": str(escrow),
            "backup_schedule": "",
            "backup_check_schedule": "",
        }
        command = [tool("ansible"), "--inventory", self.inventory, "--become", "-e", json.dumps(variables)]
        command += ["-m", "ansible.builtin.include_role", "-a", "name=selfhost.dify.backup", self.name]
        done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"The role backup failed:\n{done.stdout[-3000:]}{done.stderr}")

    def freezes(self) -> bool:
        """Whether a container that Docker pauses stands still: not where the host's control groups are not its own."""
        api = self.shell("docker compose ps -q api").strip()
        self.ssh("sudo", "docker", "pause", api)
        try:
            return not self.answer(patience=2)
        finally:
            self.ssh("sudo", "docker", "unpause", api)

    def answer(self, patience: float = PATIENCE) -> bool:
        """Whether the API answers well through the edge."""
        try:
            plain = socket.create_connection((self.address, 443), patience)
            with self.tls.wrap_socket(plain, server_hostname=self.domain) as connection:
                head = f"GET /console/api/ping HTTP/1.1\r\nHost: {self.domain}\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode())
                return connection.recv(1 << 12).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def wait(self) -> None:
        end = time.monotonic() + PATIENCE
        while not self.answer():
            if time.monotonic() > end:
                raise SystemExit(f"https://{self.domain}/console/api/ping did not answer well within {PATIENCE} s")
            time.sleep(0.1)


def tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


class Client:
    """Asks ten times a second whether or not earlier questions were answered, as a crowd would."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.answers: list[tuple[float, float, bool]] = []  # when asked, when answered, whether well
        self.threads: list[threading.Thread] = []
        self.left = threading.Event()

    def ask(self) -> None:
        asked = time.monotonic()
        well = self.host.answer()
        self.answers.append((asked, time.monotonic(), well))

    def work(self) -> None:
        while not self.left.wait(0.1):
            thread = threading.Thread(target=self.ask, daemon=True)
            thread.start()
            self.threads.append(thread)

    def __enter__(self) -> Client:
        self.threads.append(threading.Thread(target=self.work, daemon=True))
        self.threads[0].start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Leaves when the server answers again."""
        self.host.wait()
        self.left.set()
        for thread in list(self.threads):
            thread.join()

    def waited(self) -> float:
        """Seconds: the longest wait for a good answer, or from the first of refused questions to the next good one."""
        longest, since = 0.0, None
        for asked, answered, well in sorted(self.answers):
            if not well:
                since = asked if since is None else since
                continue
            longest = max(longest, answered - (asked if since is None else since))
            since = None
        return longest


def backup(host: Host) -> Figures:
    with Client(host) as client:
        figures, said = host.measure("dify-backup backup", "used")
    figures = figures._replace(outside=client.waited(), own=json.loads(said)["downtime"])
    print(figures, file=sys.stderr)
    return figures


def middle(figures: list[Figures]) -> Figures:
    return Figures(*(statistics.median(column) for column in zip(*figures, strict=True)))


def measure(host: Host, size: int, days: int) -> dict[str, Figures]:
    found = {"first backup": backup(host)}
    incremental = []
    for day in range(1, days + 1):
        host.do("change", size, day)
        incremental.append(backup(host))
    found["incremental backup"] = middle(incremental)
    host.shell("".join(map(DUMP.format, ("dify", "dify_plugin"))))
    with Client(host) as client:
        figures, _said = host.measure(TAR)
    found["down, tar, up"] = figures._replace(outside=client.waited())
    host.shell(EMPTY)
    found["tar -x, pg_restore"] = host.measure(UNTAR)[0]
    host.shell(f"rm {PLACE}/volumes.tar {PLACE}/*.dump; {BARE}")
    found["restore"] = host.measure("dify-backup restore")[0]
    host.shell("docker compose up -d")
    host.wait()
    return found


def table(found: dict[str, Figures]) -> list[list[str]]:
    rows = [["", "seconds", "users waited", "as it says", "peak MB"]]
    for what, one in found.items():
        waited = [f"{one.outside:.1f}" if one.outside else "", f"{one.own:.1f}" if one.own else ""]
        rows.append([what, f"{one.seconds:.1f}", *waited, f"{one.memory / 1e6:.0f}"])
    return rows


def goals(found: dict[str, Figures]) -> t.Iterator[tuple[str, float, float]]:
    """Each goal with what was measured and what is wanted at most."""
    for what in ("first backup", "incremental backup"):
        yield f"downtime of the {what}, s", max(found[what].outside, found[what].own), 5
    yield "incremental / first", found["incremental backup"].seconds / found["first backup"].seconds, 0.1
    yield "restore / tar -x and pg_restore", found["restore"].seconds / found["tar -x, pg_restore"].seconds, 1.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inventory", help="of one host on which site.yml has run (the demonstration server)")
    parser.add_argument("--size", default="10G", help="of the data (10G)")
    parser.add_argument("--days", type=int, default=3, help="of change; the middle one counts (3)")
    options = parser.parse_args()
    if options.size[-1:] not in UNITS or not options.size[:-1].isdigit():
        parser.error(f"--size is {options.size}, expected a number with M or G, such as 10G")
    size = int(options.size[:-1]) * UNITS[options.size[-1]]
    if not options.inventory:
        options.inventory = str(demo.DIRECTORY / "inventory.yml")
        subprocess.run([sys.executable, str(TESTBED / "demo.py"), "up"], stdout=sys.stderr, check=True)
    host = Host(options.inventory)
    load = os.getloadavg()[0]
    host.do("clear")
    host.prepare()
    host.do("fill", size)
    host.wait()
    freezes = host.freezes()
    found = measure(host, size, options.days)
    repository = int(host.ssh("sudo", "du", "-sb", f"{PLACE}/repository").split()[0])
    restic = host.ssh("restic", "version").split()[1]
    with contextlib.suppress(SystemExit):
        host.do("clear")
    host.ssh("sudo", "rm", "-rf", PLACE)
    rows = table(found)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = zip(row, widths, strict=True)
        print("  ".join(cell.rjust(width) if number else cell.ljust(width)
                        for number, (cell, width) in enumerate(cells)))  # fmt: skip
    print()
    for what, value, limit in goals(found):
        print(f"{'met   ' if value <= limit else 'missed'}  {what}: {value:.2f}, wanted {limit:g} at most")
    print(f"\n{options.size} of data, middle of {options.days} days, repository {repository / 1e9:.2f} GB in the end, "
          f"restic {restic}, {os.cpu_count()} cores, load before it {load:.1f}: "
          "above 0.3 or so, run it again on an idle machine.")  # fmt: skip
    if not freezes:
        print("Here Docker freezes nothing when it pauses a container, so the client saw less than users would.")


if __name__ == "__main__":
    main()
