# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures what looking at servers takes, and prints a table; judges nothing.

For each host of the inventory: playbooks/status.yml as an operator runs it, of it the task that looks, and when each
question was answered. Then the same for several names of these hosts at once.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TASK = re.compile(r"^selfhost\.dify\.dify : status \| Ask the server what is wrong -+ (?P<seconds>[0-9.]+)s$", re.M)
ENVIRONMENT = {
    **os.environ,
    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    "ANSIBLE_NOCOLOR": "1",
    "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks",
    "PROFILE_TASKS_TASK_OUTPUT_LIMIT": "all",
}


class Run(t.NamedTuple):
    """Seconds of the playbook and of its task that looks; what was seen, host to facts."""

    playbook: float
    task: float
    hosts: dict[str, dict[str, t.Any]]


def tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def run(inventory: str, forks: int) -> Run:
    """The playbook once."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "status.json"
        command = [tool("ansible-playbook"), "--inventory", inventory, "--forks", str(forks)]
        command += ["-e", json.dumps({"status_format": "json", "status_file": str(file)}), "playbooks/status.yml"]
        began = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - began
        found = TASK.search(done.stdout)
        if not found or not file.exists():
            raise SystemExit(done.stdout[-3000:] + done.stderr)
        return Run(seconds, float(found["seconds"]), json.loads(file.read_text(encoding="utf-8")))


def aliases(inventory: str, count: int) -> dict[str, t.Any]:
    """An inventory with so many names for the hosts of another one."""
    command = [tool("ansible-inventory"), "--inventory", inventory, "--list"]
    listed = json.loads(subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, check=True).stdout)
    known = list(listed["_meta"]["hostvars"].items())
    hosts = {f"{known[number % len(known)][0]}-{number}": known[number % len(known)][1] for number in range(count)}
    for number, variables in enumerate(hosts.values()):
        variables.setdefault("ansible_host", known[number % len(known)][0])
    return {"dify": {"hosts": hosts}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inventory", required=True, help="an inventory of hosts on which site.yml has run")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=10, help="names of these hosts in one run (10)")
    options = parser.parse_args()
    runs = [run(options.inventory, 5) for _unused in range(options.repetitions)]
    whole = statistics.median(one.playbook for one in runs)
    print(f"{len(runs[0].hosts)} hosts, {len(runs)} runs: playbook {whole:.1f} s")
    print(f"  of it the task that looks {statistics.median(one.task for one in runs):.1f} s")
    for name, facts in runs[-1].hosts.items():
        print(f"\n{name}: {'healthy' if facts['healthy'] else ', '.join(row['id'] for row in facts['findings'])}")
        for question, seconds in sorted(facts["durations"].items(), key=lambda item: -item[1]):
            print(f"  {seconds:5.2f} s  {question}")
    with tempfile.TemporaryDirectory() as directory:
        inventory = Path(directory) / "inventory.json"
        inventory.write_text(json.dumps(aliases(options.inventory, options.at_once)), encoding="utf-8")
        one = run(str(inventory), options.at_once)
    print(
        f"\n{options.at_once} names at once: playbook {one.playbook:.1f} s, of it the task that looks {one.task:.1f} s"
    )
    totals = [facts["durations"]["total"] for facts in one.hosts.values()]
    print(f"  of it the looking itself {min(totals):.1f} to {max(totals):.1f} s")


if __name__ == "__main__":
    main()
