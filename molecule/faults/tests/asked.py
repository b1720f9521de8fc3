# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the status playbook says, as a program would read it."""

from __future__ import annotations

import json
import subprocess
import typing as t

from conftest import playbook_command


def status(**variables: t.Any) -> tuple[int, dict[str, t.Any]]:
    """Exit code and facts of the playbook, which must not stumble."""
    command, environment = playbook_command("status", {"status_format": "json", **variables})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stdout + done.stderr
    tasks = [task for play in json.loads(done.stdout)["plays"] for task in play["tasks"]]
    shown = next(task for task in tasks if task["task"]["name"] == "Show")
    return done.returncode, next(iter(shown["hosts"].values()))["msg"]


def errors(facts: dict[str, t.Any]) -> set[str]:
    return {row["id"] for row in facts["findings"] if row["severity"] == "error"}
