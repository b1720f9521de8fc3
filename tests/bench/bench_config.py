# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures what configuring takes, and prints a table; judges nothing.

Rendering: the .env of each of the testbed's releases, made in this process. No-op: the module as a program of its own
on a converged directory, as a target runs it. With --inventory: playbooks/site.yml in check mode on hosts that are
converged, and of it the tasks of roles/dify/tasks/configure.yml with their seconds.
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

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / ".collections"), str(ROOT / "tests/testbed/upstream")]

import build  # noqa: E402
from ansible_collections.selfhost.dify.plugins.module_utils import _dotenv  # noqa: E402
from ansible_collections.selfhost.dify.plugins.modules import dotenv  # noqa: E402

ROLE = yaml.safe_load((ROOT / "roles/dify/vars/main.yml").read_text(encoding="utf-8"))
TASK = re.compile(r"^selfhost\.dify\.dify : configure \| (?P<name>.*?) -+ (?P<seconds>[0-9.]+)s$", re.MULTILINE)


def median(function: t.Callable[[], object], repetitions: int) -> float:
    """Milliseconds of the middle one."""
    seconds = []
    for _unused in range(repetitions):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1000


def measure(release: build.Release, directory: Path, repetitions: int) -> list[str]:
    """One line of the table."""
    for name, (_mode, text) in build.files(release).items():
        if name.endswith((".env.example", "docker-compose.yaml")):
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    docker = directory / "docker"
    known = [str(docker / pattern) for pattern in ROLE["__dify_known_files"]]
    secrets = [{key: value for key, value in item.items() if key != "fixed_by"} for item in ROLE["__dify_secrets"]]
    secrets = [{key: value for key, value in item.items() if key != "fallback_file"} for item in secrets]
    options = {
        "path": str(docker / ".env"),
        "example": str(docker / ".env.example"),
        "known": known,
        "secrets": secrets,
        "renamed": ROLE["__dify_env_renamed"],
        "values": {"LOG_LEVEL": "WARNING"},
    }
    arguments = directory / "arguments.json"
    arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": options}))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}

    def run() -> bool:
        command = [sys.executable, "-m", dotenv.__name__, str(arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return bool(json.loads(done.stdout)["changed"])

    if not run() or run():
        raise SystemExit(f"{release.version}: the first run must change something and the second nothing")
    found = dotenv.read_release(options["example"], known)
    table = [_dotenv.Secret(item["key"], item.get("also", {})) for item in secrets]
    host = _dotenv.Host((docker / ".env").read_text(), (docker / ".env.applied").read_text(), {}, True)
    figures = [
        len(found.known),
        median(lambda: dotenv.read_release(options["example"], known), repetitions),
        median(lambda: _dotenv.merge(found, {"LOG_LEVEL": "WARNING"}, table), repetitions),
        median(lambda: _dotenv.merge(found, {"LOG_LEVEL": "WARNING"}, table, host), repetitions),
        median(run, max(3, repetitions // 3)),
    ]
    return [release.version, *(f"{figure:.0f}" for figure in figures)]


def measure_hosts(inventory: str, playbook: str) -> None:
    """The tasks of configure.yml on converged hosts."""
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    environment |= {
        "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks",
        "PROFILE_TASKS_TASK_OUTPUT_LIMIT": "all",
    }
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        "--check",
        "--inventory",
        inventory,
        playbook,
    ]
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout[max(0, done.stdout.find("fatal: ")) :][:2000] + done.stderr)
    tasks = TASK.findall(done.stdout)
    print(f"\n{playbook} --check on {inventory}: {time.monotonic() - began:.0f} s; configure.yml, skipped tasks, too:")
    for name, seconds in tasks:
        print(f"  {float(seconds):5.2f} s  {name}")
    print(f"  {sum(float(seconds) for _name, seconds in tasks):5.2f} s  {len(tasks)} tasks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--inventory", help="an inventory of hosts on which site.yml has run")
    parser.add_argument("--playbook", default="playbooks/site.yml", help="what has run there (playbooks/site.yml)")
    options = parser.parse_args()
    rows = [["release", "settings", "read ms", "render ms", "merge ms", "no-op run ms"]]
    for release in build.releases():
        with tempfile.TemporaryDirectory() as directory:
            rows.append(measure(release, Path(directory), options.repetitions))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    tasks = yaml.safe_load((ROOT / "roles/dify/tasks/configure.yml").read_text(encoding="utf-8"))
    print(f"\nroles/dify/tasks/configure.yml: {len(tasks)} tasks")
    if options.inventory:
        measure_hosts(options.inventory, options.playbook)


if __name__ == "__main__":
    main()
