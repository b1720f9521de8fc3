# Copyright (c) 2026, selfhost.dify contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The databases of a project, from their servers into the repository and back."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

from dify_backup.basics import Json, Problem
from dify_backup.postgresql import Session
from dify_backup.project import Plan
from dify_backup.restic import Restic
from dify_backup.server import Server


def dump(server: Server, plan: Plan, restic: Restic, tags: t.Callable[[str], list[str]]) -> dict[str, Json]:
    """Saves every database of the plan: the parts for the manifest. ``tags``: those of a part's snapshot."""
    parts = {}
    for session in sessions(server, plan):
        accounts = session.accounts()
        if accounts and accounts.part not in parts:
            saved = restic.store(accounts.command, accounts.file, tags(accounts.part), env=session.environment)
            parts[accounts.part] = _part(saved)
        database = session.database
        with session.dump() as (command, rows):
            saved = restic.store(command, session.file, tags(database.part), env=session.environment)
        parts[database.part] = {**_part(saved), "database": database.name, "service": database.service, "rows": rows}
    return parts


def load(server: Server, plan: Plan, restic: Restic, manifest: Json, progress: Path) -> dict[str, int]:
    """Fills every database of the plan from a set: the rows in each of them.

    Starts the servers that are services of the project. Only databases without tables are filled; ``progress`` is a
    file that says which ones a restore of this set began, so that it can go on after it was cut short.
    """
    for service in sorted({database.service for database in plan.databases}):
        server.compose("up", "--detach", "--wait", "--no-deps", service)
    begun = _begun(progress, manifest["set"])
    counted = {}
    loaded = set()
    for session in sessions(server, plan):
        database = session.database
        saved = manifest["parts"].get(database.part)
        if saved is None:
            raise Problem("The set {} has no database {}.".format(manifest["set"], database.name))
        accounts = session.accounts()
        if accounts and accounts.part not in loaded:
            _load(restic, manifest["parts"][accounts.part], accounts.file, accounts.loading, session)
            loaded.add(accounts.part)
        session.create()
        if session.empty():
            begun.append(database.part)
            progress.write_text(json.dumps({"set": manifest["set"], "databases": begun}), encoding="utf-8")
            _load(restic, saved, session.file, session.loading(), session)
        elif database.part not in begun:
            raise Problem(f"The database {database.name} is not empty; nothing is restored over it.")
        rows = session.rows()
        wrong = [
            f"{table} has {rows.get(table)} rows, not {number}"
            for table, number in saved["rows"].items()
            if rows.get(table) != number
        ]
        if wrong:
            raise Problem("The database {} is not as it was saved: {}.".format(database.name, ", ".join(wrong)))
        counted[database.name] = sum(rows.values())
    return counted


def sessions(server: Server, plan: Plan) -> list[Session]:
    """One for each database of the plan, that of the API first."""
    return [Session(server.container(plan.project, database.service), database) for database in plan.databases]


def _load(restic: Restic, saved: Json, name: str, command: t.Sequence[str], session: Session) -> None:
    moved = restic.load(saved["snapshot"], name, command, env=session.environment)
    if moved["sha256"] != saved["sha256"]:
        raise Problem("{} of snapshot {} is not what was saved.".format(name, saved["snapshot"]))


def _part(saved: Json) -> Json:
    return {
        "snapshot": saved["snapshot_id"],
        "bytes": saved["bytes"],
        "sha256": saved["sha256"],
        "added": saved.get("data_added", 0),
    }


def _begun(progress: Path, identity: str) -> list[str]:
    """The parts that an earlier restore of the same set began to fill."""
    try:
        said = json.loads(progress.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return []
    return list(said["databases"]) if said["set"] == identity else []
