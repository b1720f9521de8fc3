# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the last runs ended: for the operator, and for Prometheus."""

from __future__ import annotations

import json
import os
from pathlib import Path

from dify_backup.basics import Json
from dify_backup.config import Config


def read_state(config: Config) -> Json:
    try:
        state: Json = json.loads(config.state("state.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return state


def keep(config: Config, command: str, result: Json) -> None:
    """Remembers how a command ended, for status and monitoring."""
    state = read_state(config)
    state[command] = {**(state.get(command) or {}), **result}
    replace(config.state("state.json"), json.dumps(state, indent=2, sort_keys=True), 0o600)
    if "ended" in result:
        publish(config, state)


def publish(config: Config, state: Json) -> None:
    if config.textfile_path:
        replace(Path(config.textfile_path), metrics(state), 0o644)


def replace(path: Path, text: str, mode: int) -> None:
    temporary = path.with_name("." + path.name + ".new")
    with temporary.open("w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
    temporary.replace(path)


def metrics(state: Json) -> str:
    """The state as Prometheus' textfile collector reads it."""
    lines = []
    for name, text, values in (
        ("last_run_timestamp_seconds", "When a command ended last.", "ended"),
        ("last_success_timestamp_seconds", "When a command ended well last.", "succeeded"),
        ("last_run_success", "Whether the last run of a command ended well.", "success"),
        ("duration_seconds", "How long the last good run of a command took.", "duration"),
        ("downtime_seconds", "How long the last good backup kept users waiting.", "downtime"),
        ("size_bytes", "How much the newest complete set holds.", "bytes"),
        ("set_age_seconds", "How old the set was that the last good drill restored.", "age"),
        ("added_bytes", "How much of it was new to the repository.", "added"),
    ):
        rows = [(command, run[values]) for command, run in sorted(state.items()) if values in run]
        if rows:
            full = "selfhost_dify_backup_" + name
            lines += [f"# HELP {full} {text}", f"# TYPE {full} gauge"]
            lines += [f'{full}{{command="{command}"}} {float(value)}' for command, value in rows]
    return "".join(line + "\n" for line in lines)
