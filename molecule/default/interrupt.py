# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs site.yml and kills it at the start of each task named, so that converge has to finish what was begun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
# Converge moves the server to its own port.
FORMER_PORT = "dify_http_port=3001"


def run_until(task: str) -> None:
    """Kills the run as soon as it announces the task; fails when it ends before."""
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        *("-i", str(Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "inventory"), "-e", FORMER_PORT),
        str(PROJECT / "playbooks/site.yml"),
    ]
    environment = {**os.environ, "ANSIBLE_FORCE_COLOR": "false", "PYTHONUNBUFFERED": "1"}
    said = []
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            said.append(line)
            if line.startswith("TASK [") and task in line:
                os.killpg(run.pid, signal.SIGKILL)
                print(f"Killed at: {task}")
                return
    sys.exit(f"site.yml ended with {run.returncode} before {task!r}:\n{''.join(said[-40:])}")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        run_until(name)
