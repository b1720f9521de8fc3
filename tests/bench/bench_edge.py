# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures what the edge costs, and prints a table; judges nothing.

h2load runs in a container beside the host, in turns: plain HTTP/1.1 to the service on loopback, HTTP/1.1 and HTTP/2
over TLS through the edge. The way to loopback is one rule of the host's kernel: what comes to port 8300 is handed to
127.0.0.1:3000, the very socket that the edge passes requests to. Path, network, number of clients and their kept-alive
connections are the same; TLS and nginx are the difference. Client, edge and service share the machine's cores, so the
figures hold for a machine that has nothing else to do. The server is the demonstration's, made if it is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import sys
import typing as t
from pathlib import Path

TESTBED = Path(__file__).resolve().parents[1] / "testbed"
sys.path.insert(0, str(TESTBED))

import demo  # noqa: E402
from lab import hosts  # noqa: E402

PORT = 8300
FINISHED = re.compile(r"finished in .*, ([0-9.]+) req/s")
SUCCEEDED = re.compile(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded")
# nginx ends a connection after 1000 requests, and h2load has no second one for HTTP/2.
PER_CLIENT = 900
# Dify's own nginx opens a connection to the API for each request: after 28 000 within a minute it has no port left.
REQUESTS = 1500
# h2load's own summary has no percentiles; its log has a line for each request: begin, status, microseconds.
LOAD = 'h2load -t 1 -m 1 -c "$1" -n "$2" --log-file=/tmp/log $3 "$4" >&2 && cut -f 3 /tmp/log'


class Figures(t.NamedTuple):
    """Requests per second, and milliseconds within which half and 99 of 100 of them are answered."""

    rate: float
    p50: float
    p99: float


def client(*command: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a command in the testbed's client:tools."""
    whole = [sys.executable, str(TESTBED / "testbed.py"), "client", "--image", "tools", "--", *command]
    return subprocess.run(whole, input=given, capture_output=True, text=True, check=False)


def server(name: str) -> dict[str, t.Any]:
    """The host of this name; the demonstration server is made if it is missing."""
    if name == demo.HOST and not any(host["name"] == name for host in hosts.all_facts()):
        subprocess.run([sys.executable, str(TESTBED / "demo.py"), "up"], stdout=sys.stderr, check=True)
    found = [host for host in hosts.all_facts() if host["name"] == name]
    if not found:
        raise SystemExit(f"{name} is no host of the testbed: name one of `testbed.py host list`")
    return found[0]


@contextlib.contextmanager
def way_to_loopback(host: dict[str, t.Any], port: int) -> t.Iterator[None]:
    """As long as this lasts, the host hands what comes to PORT to this port of its loopback."""
    rule = f"PREROUTING -t nat -p tcp --dport {PORT} -j DNAT --to-destination 127.0.0.1:{port}"
    made = hosts.ssh(host, f"sudo sysctl -qw net.ipv4.conf.all.route_localnet=1 && sudo iptables -I {rule}")
    if made.returncode:
        raise SystemExit(f"{host['name']} makes no way to its loopback: {made.stderr.strip()}")
    try:
        yield
    finally:
        hosts.ssh(host, f"sudo iptables -D {rule}; sudo sysctl -qw net.ipv4.conf.all.route_localnet=0")


def load(url: str, clients: int, requests: int, protocol: str) -> Figures:
    done = client("sh", "-c", LOAD, "sh", str(clients), str(min(requests, PER_CLIENT * clients)), protocol, url)
    finished, succeeded = FINISHED.search(done.stderr), SUCCEEDED.search(done.stderr)
    if done.returncode or not finished or not succeeded or succeeded[1] != succeeded[2]:
        raise SystemExit(f"{url} did not answer all requests well:\n{done.stderr}")
    times = sorted(int(line) / 1000 for line in done.stdout.split())
    return Figures(float(finished[1]), times[len(times) // 2], times[len(times) * 99 // 100])


def middle(figures: list[Figures]) -> Figures:
    return Figures(*(statistics.median(column) for column in zip(*figures, strict=True)))


def measure(domain: str, path: str, clients: int, requests: int, rounds: int) -> list[list[str]]:
    """Lines of the table: loopback first, then each way through the edge with what it costs."""
    ways = {
        "loopback, HTTP/1.1": (f"http://{domain}:{PORT}{path}", "--h1"),
        "edge, HTTP/1.1": (f"https://{domain}{path}", "--h1"),
        "edge, HTTP/2": (f"https://{domain}{path}", ""),
    }
    found: dict[str, list[Figures]] = {way: [] for way in ways}
    for number in range(rounds):
        for way, (url, protocol) in list(ways.items())[:: -1 if number % 2 else 1]:
            found[way].append(load(url, clients, requests, protocol))
    straight = middle(found["loopback, HTTP/1.1"])
    lines = []
    for way, figures in found.items():
        one = middle(figures)
        cost = ["", ""]
        if way.startswith("edge"):
            cost = [f"{one.rate / straight.rate - 1:+.0%}", f"{one.p50 - straight.p50:+.2f}"]
        lines.append([path, str(clients), way, f"{one.rate:.0f}", cost[0], f"{one.p50:.2f}", cost[1], f"{one.p99:.2f}"])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--host", default=demo.HOST, help="a host of the testbed with an edge (the demonstration server)"
    )
    parser.add_argument("--port", type=int, default=3000, help="of the service on its loopback (3000)")
    parser.add_argument("--path", action="append", help="repeatable (/console/api/ping, /signin)")
    parser.add_argument("--clients", action="append", type=int, help="at the same time; repeatable (1, 16)")
    parser.add_argument(
        "--requests", type=int, default=REQUESTS, help=f"of a run, and at most {PER_CLIENT} of a client ({REQUESTS})"
    )
    parser.add_argument("--rounds", type=int, default=5, help="the middle one counts (5)")
    options = parser.parse_args()
    host = server(options.host)
    domain = host["domains"][0]
    load_before = os.getloadavg()[0]
    rows = [["path", "clients", "way", "requests/s", "", "p50 ms", "", "p99 ms"]]
    with way_to_loopback(host, options.port):
        for path in options.path or ["/console/api/ping", "/signin"]:
            for clients in options.clients or [1, 16]:
                rows += measure(domain, path, clients, options.requests, options.rounds)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = zip(row, widths, strict=True)
        print("  ".join(cell.ljust(width) if number in (0, 2) else cell.rjust(width)
                        for number, (cell, width) in enumerate(cells)))  # fmt: skip
    print(f"\nMiddle of {options.rounds} runs, {os.cpu_count()} cores, "
          f"load before it {load_before:.1f}: above 0.3 or so, run it again on an idle machine.")  # fmt: skip


if __name__ == "__main__":
    main()
